"""A relay in front of a server that keeps the requests that it relays: what a client really sends."""

from __future__ import annotations

import http.client
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# The headers of one connection, which a relay does not pass on.
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host", "content-length"})


@dataclass(frozen=True)
class Recorded:
    """One request and the status of its answer. ``body`` is None where the request had no JSON."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    status: int


class Recorder:
    """A relay to ``target``, a URL without a path. Thread-safe."""

    def __init__(self, target: str) -> None:
        self._target = target.removeprefix("http://")
        self._lock = threading.Lock()
        self._requests: list[Recorded] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def requests(self) -> list[Recorded]:
        """The requests so far, in order of their answers."""
        with self._lock:
            return list(self._requests)

    def __enter__(self) -> Recorder:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def relay(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        onward = {name: value for name, value in headers.items() if name not in _HOP}
        connection = http.client.HTTPConnection(self._target, timeout=60)
        try:
            connection.request(handler.command, handler.path, body, onward)
            answer = connection.getresponse()
            recorded = Recorded(handler.command, handler.path, headers, json.loads(body or b"null"), answer.status)
            with self._lock:
                self._requests.append(recorded)
            handler.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP:
                    handler.send_header(name, value)
            handler.send_header("connection", "close")
            handler.end_headers()
            while piece := answer.read1(65536):
                handler.wfile.write(piece)
                handler.wfile.flush()
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.close_connection = True
                recorder.relay(self)

            do_GET = do_HEAD = do_POST

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        return Handler
