"""The scripted vendor: a threaded HTTP/1.1 server that answers as api.anthropic.com and api.openai.com do.

It has one thread per connection. It runs inside the test process (``with Upstream() as upstream``) or as a process of
its own (``python -m tests.upstream``).
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterable
from typing import Any

from tests.upstream import routes
from tests.upstream.http1 import ClientGone, Connection, Malformed, Request, head
from tests.upstream.ledger import Bill, Ledger, SeenRequest
from tests.upstream.rejection import Account, parse
from tests.upstream.steps import Step, for_model

ANTHROPIC_KEY = "sk-ant-scripted-vendor-key"
OPENAI_KEY = "sk-scripted-vendor-key"
MAX_BODY = 64 * 1024 * 1024


class Upstream:
    """The server. Thread-safe. ``keys`` None accepts the two keys above; an empty set accepts any key."""

    def __init__(self, port: int = 0, keys: Iterable[str] | None = None, ledger_limit: int | None = None) -> None:
        self.keys = {ANTHROPIC_KEY, OPENAI_KEY} if keys is None else set(keys)
        self.ledger = Ledger(ledger_limit)
        self.account = Account(keys=set(self.keys))
        self.connections_seen = 0
        self._lock = threading.Lock()
        self._steps: list[list[Any]] = []  # [step, requests left]
        self._default = Step()
        self._drop = 0
        self._open: dict[int, Connection] = {}
        self._busy: set[int] = set()
        self._listener: socket.socket | None = None
        self._port = port

    # ---- start and stop

    def start(self) -> Upstream:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen(1024)
        self._port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name="upstream", daemon=True).start()
        return self

    def stop(self) -> None:
        """Refuse new connections and end the open ones. ``start`` listens on the same port again."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.close_connections(idle_only=False)

    def __enter__(self) -> Upstream:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def listening(self) -> bool:
        return self._listener is not None

    @property
    def url(self) -> str:
        """The value for ANTHROPIC_BASE_URL."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def openai_url(self) -> str:
        """The value for OPENAI_BASE_URL."""
        return f"{self.url}/v1"

    @property
    def compatible_url(self) -> str:
        """The base URL of an OpenAI-compatible server: any model, any key or none, without OpenAI's extra fields."""
        return f"{self.url}/compatible/v1"

    # ---- script

    def script(self, *steps: Step) -> None:
        """Queue steps. A request gets the first step in the queue that serves its model and path."""
        with self._lock:
            self._steps += [[step, step.times or -1] for step in steps]

    def always(self, step: Step) -> None:
        """Set the step for requests that neither a queued step nor their model's name decides."""
        self._default = step

    def allow(self, *fields: str) -> None:
        """Accept these body fields too, as if the vendor had added them with a release."""
        self.account.fields |= set(fields)

    def serve(self, *models: str) -> None:
        """Make these models exist, whatever their names are."""
        self.account.models |= set(models)

    def drop_connections(self, count: int) -> None:
        """Reset the next ``count`` connections as soon as they are accepted."""
        with self._lock:
            self._drop = count

    def close_connections(self, idle_only: bool = True) -> None:
        """Close kept-alive connections, as a vendor may do at any time."""
        with self._lock:
            to_close = [
                connection for number, connection in self._open.items() if not idle_only or number not in self._busy
            ]
        for connection in to_close:
            connection.closing = True
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def clear_script(self) -> None:
        with self._lock:
            self._steps.clear()
            self._default, self._drop = Step(), 0

    def reset(self) -> None:
        """Restore the initial state. Open connections stay."""
        self.clear_script()
        self.ledger.clear()
        self.account = Account(keys=set(self.keys))

    @property
    def unused_steps(self) -> list[Step]:
        with self._lock:
            return [step for step, left in self._steps if left > 0]

    # ---- ledger

    @property
    def requests(self) -> list[SeenRequest]:
        """Every request so far, in order of arrival."""
        return self.ledger.all()

    @property
    def last(self) -> SeenRequest:
        return self.ledger.all()[-1]

    @property
    def open_connections(self) -> int:
        with self._lock:
            return len(self._open)

    def wait_requests(self, count: int, timeout: float = 5.0) -> list[SeenRequest]:
        """Wait until ``count`` requests have arrived. Raises TimeoutError, as the other waiting methods do."""
        return self.ledger.wait(lambda seen: seen, count, timeout, "requests")

    def wait_closed(self, count: int = 1, timeout: float = 5.0) -> list[SeenRequest]:
        """Wait until ``count`` requests have ended because the client disconnected. ``gone_at`` is the time of that."""
        return self.ledger.wait(
            lambda seen: [entry for entry in seen if entry.outcome == "client_gone"],
            count,
            timeout,
            "abandoned requests",
        )

    def wait_ended(self, count: int, timeout: float = 5.0) -> list[SeenRequest]:
        """Wait until ``count`` requests have ended in any way."""
        return self.ledger.wait(
            lambda seen: [entry for entry in seen if entry.outcome != "open"], count, timeout, "ended requests"
        )

    def billed(self) -> Bill:
        """The sum of all tokens that the vendor would bill."""
        total = Bill()
        for seen in self.requests:
            for name, value in vars(seen.billed or Bill()).items():
                setattr(total, name, getattr(total, name) + value)
        return total

    # ---- connections

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections_seen += 1
                connection = Connection(sock, self.connections_seen, MAX_BODY)
                dropped = self._drop > 0
                self._drop -= dropped
                if not dropped:
                    self._open[connection.number] = connection
            if dropped:
                connection.reset()
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        try:
            while not connection.closing:
                request = connection.read_request()
                if request is None:
                    break
                connection.closing = not request.keep_alive
                with self._lock:
                    self._busy.add(connection.number)
                self._answer(connection, request)
                with self._lock:
                    self._busy.discard(connection.number)
        except (OSError, ClientGone):
            pass
        except Malformed:
            with contextlib.suppress(OSError):
                connection.sock.sendall(head(400, {"content-length": "0", "connection": "close"}))
        finally:
            with self._lock:
                self._busy.discard(connection.number)
                self._open.pop(connection.number, None)
            connection.close()

    def _answer(self, connection: Connection, request: Request) -> None:
        if request.path.startswith("/_"):
            self._control(connection, request)
            return
        seen = self.ledger.open(
            lambda number: SeenRequest(
                id=number,
                connection=connection.number,
                method=request.method,
                path=request.path,
                query=request.query,
                headers=request.headers,
                body=parse(request.body),
                arrived=request.arrived,
                raw=request.body,
            )
        )
        try:
            routes.answer(self, connection, request, seen)
        except ClientGone:
            self.ledger.end(seen, "client_gone")
            raise
        except OSError:
            self.ledger.end(seen, "client_gone")
            raise
        finally:
            self.ledger.end(seen, "defect")

    # ---- called by the routes

    def take(self, model: str | None, path: str) -> Step:
        """The step for this request. Raises ValueError if the model's name has an unknown modifier."""
        with self._lock:
            for item in self._steps:
                step, left = item
                if step.serves(model, path):
                    item[1] = left - 1 if left > 0 else left
                    if item[1] == 0:
                        self._steps.remove(item)
                    return step
        return for_model(model) or self._default

    def give_back(self, step: Step) -> None:
        """Put the step back for the next request, because the vendor itself rejected this one."""
        if step is not self._default and step.times:
            with self._lock:
                self._steps.insert(0, [step, 1])

    def _control(self, connection: Connection, request: Request) -> None:
        """Answer a request to the script or the ledger over HTTP."""
        status, document = 200, {}  # type: tuple[int, Any]
        route = (request.method, request.path)
        try:
            if route == ("POST", "/_script"):
                self.script(*[Step.from_json(item) for item in json.loads(request.body)])
            elif route == ("DELETE", "/_script"):
                self.clear_script()
            elif route == ("GET", "/_ledger"):
                document = [seen.to_json() for seen in self.requests]
            elif route == ("DELETE", "/_ledger"):
                self.ledger.clear()
            else:
                status = 404
        except (ValueError, TypeError) as error:
            status, document = 400, {"error": str(error)}
        body = json.dumps(document, default=repr).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        connection.send(head(status, headers) + body)
