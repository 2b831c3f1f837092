"""HTTP/1.1 to the vendors, with what a gateway needs and the SDKs' own transport lacks.

It uses the standard library's sockets (so gevent or threads) and the llhttp parser
of ``httptools``. The SDKs write the heads of the requests (``sdk_head``). What it has
and httpx2, the SDKs' transport, has not:

* four deadlines per attempt (connect, first byte, idle, total); httpx2 has one per
  operation and none for the whole;
* it reports idle time: the body yields ``b""`` when nothing came for ``tick``
  seconds, so a stream can be kept alive without a second greenlet;
* cancellation: the socket is attached to the call's ``Cancel``;
* it takes a fifth of the processor time per call (``benchmarks/``).

Invariants: a connection is reused only after its answer was read to the end; an
incomplete answer never looks complete; every wait has a deadline.

Behind an environment proxy (HTTPS_PROXY), ``proxied`` is used instead.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import httptools
import httpx2

from llm_service.core.cancellation import Cancel
from llm_service.core.errors import UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from llm_service.core.target import Timeouts

READ_SIZE = 64 * 1024
# An idle connection older than this is not reused: vendors' load balancers drop theirs after 60 s or more.
IDLE_EXPIRY = 55.0
MAX_HEADER_BYTES = 128 * 1024
# The limit for answers that are not event streams. The largest real ones (embeddings, images) are far smaller.
MAX_PLAIN_BYTES = 128 * 1024 * 1024

Origin = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body: ``lines`` are the request line and the headers but Content-Length, without the
    last CRLF."""

    origin: Origin
    lines: bytes

    def with_headers(self, headers: Mapping[str, str]) -> Head:
        more = [f"{name}: {value}".encode("latin-1") for name, value in headers.items()]
        return Head(self.origin, b"\r\n".join([self.lines, *more]))


@dataclass(frozen=True, slots=True)
class Scope:
    """The limits of one attempt: its time-outs, the ``Cancel`` of its call, and its tick in seconds."""

    timeouts: Timeouts
    cancel: Cancel
    tick: float


class _Connection:
    """A socket and the time when it was last used."""

    __slots__ = ("idle_since", "origin", "sock")

    def __init__(self, origin: Origin, sock: socket.socket) -> None:
        self.origin, self.sock, self.idle_since = origin, sock, 0.0

    def usable(self, now: float) -> bool:
        """Whether it can carry another request. If there is something to read, it is closed or out of step."""
        if now - self.idle_since > IDLE_EXPIRY:
            return False
        self.sock.settimeout(0)
        try:
            # The plain socket's method: a TLS socket does not allow MSG_PEEK.
            socket.socket.recv(self.sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        try:
            self.sock.close()
        except OSError:
            pass


class Transport:
    """All providers of a process share it. It is safe to use from several greenlets and threads."""

    def __init__(self) -> None:
        self._idle: dict[Origin, deque[_Connection]] = {}
        self._ssl: ssl.SSLContext | None = None

    def prepare(self, request: httpx2.Request) -> Callable[[bytes, Scope, Mapping[str, str] | None], Reply]:
        """A function that sends the head of ``request`` with a body and, if given, more headers, by ``ask``."""
        url = request.url
        origin = url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)
        lines = [request.method.encode() + b" " + url.raw_path + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in request.headers.raw if name.lower() != b"content-length"]
        head = Head(origin, b"\r\n".join(lines))

        def send(body: bytes, scope: Scope, more: Mapping[str, str] | None = None) -> Reply:
            return self.ask(head if more is None else head.with_headers(more), body, scope)

        return send

    def ask(self, head: Head, body: bytes, scope: Scope) -> Reply:
        """Send a request and read the head of its answer.

        Raises UpstreamUnreachable, UpstreamTimeout, UpstreamBroken, or the reason of the call's Cancel.
        """
        scope.cancel.check()
        started = time.monotonic()
        deadline = started + scope.timeouts.total
        connection, fresh = self._acquire(head.origin, min(deadline, started + scope.timeouts.connect))
        reply = Reply(self, connection, scope, deadline)
        try:
            scope.cancel.attach(connection.sock.fileno())
            reply.send(b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head.lines, len(body), body))
            reply.read_head()
        except _StaleConnection:
            reply.discard()
            if fresh:
                raise UpstreamUnreachable("The provider closed the connection without an answer.") from None
            # The server had closed the idle connection before the request came: send it again over a new one.
            self._forget(head.origin)
            return self.ask(head, body, scope)
        except BaseException:
            reply.discard()
            raise
        return reply

    def release(self, connection: _Connection) -> None:
        connection.idle_since = time.monotonic()
        self._idle.setdefault(connection.origin, deque()).append(connection)

    def close(self) -> None:
        for origin in list(self._idle):
            self._forget(origin)

    def _forget(self, origin: Origin) -> None:
        for connection in self._idle.pop(origin, ()):
            connection.close()

    def _acquire(self, origin: Origin, deadline: float) -> tuple[_Connection, bool]:
        """A connection, and whether it is a new one."""
        idle = self._idle.get(origin)
        now = time.monotonic()
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread took the last one
                break
            if connection.usable(now):
                return connection, False
            connection.close()
        return _Connection(origin, self._connect(origin, deadline)), True

    def _connect(self, origin: Origin, deadline: float) -> socket.socket:
        scheme, host, port = origin
        try:
            sock = socket.create_connection((host, port), timeout=_remaining(deadline))
        except TimeoutError:
            text = "The provider did not accept a connection in time."
            raise UpstreamTimeout(text, code="upstream_connect_timeout") from None
        except OSError:
            raise UpstreamUnreachable("The provider could not be reached.") from None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if scheme == "https":
                sock.settimeout(_remaining(deadline))
                sock = self._context().wrap_socket(sock, server_hostname=host)
        except TimeoutError:
            sock.close()
            text = "The provider did not finish the TLS handshake in time."
            raise UpstreamTimeout(text, code="upstream_connect_timeout") from None
        except OSError:
            sock.close()
            raise UpstreamUnreachable("The provider's TLS handshake failed.") from None
        return sock

    def _context(self) -> ssl.SSLContext:
        """The context that httpx2 would use, so the same certificates are trusted. Making it takes 20 ms."""
        if self._ssl is None:
            context = httpx2.create_ssl_context()
            context.set_alpn_protocols(["http/1.1"])
            self._ssl = context
        return self._ssl


class _StaleConnection(Exception):
    """The server closed the connection before the first byte of an answer."""


class Reply(httpx2.SyncByteStream):
    """An answer whose head was read. Iterating over it reads the body as it arrives; ``b""`` means an idle tick.

    ``close`` must be called.
    """

    def __init__(self, transport: Transport, connection: _Connection, scope: Scope, deadline: float) -> None:
        self._transport, self._connection, self._scope, self._deadline = transport, connection, scope, deadline
        self._parser = httptools.HttpResponseParser(self)
        self._ready: list[bytes] = []
        self._received = self._plain_bytes = 0
        self._head_done = self._complete = self._framed = self._closed = False
        self._is_stream = self._reusable = False
        self.status = 0
        self.headers: dict[bytes, bytes] = {}  # lower-case names; of a repeated header the first value

    # --- called by the parser ---

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:  # 100 Continue, 103 Early Hints: the answer is still to come
            self.headers = {}
            return
        self._head_done = True
        self._framed = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        self._is_stream = self.header("content-type").lower().startswith("text/event-stream")

    def on_body(self, data: bytes) -> None:
        self._ready.append(data)

    def on_message_complete(self) -> None:
        self._complete = self._head_done
        # The parser knows this only now: it forgets it when it prepares for the next message.
        self._reusable = self._framed and self._parser.should_keep_alive()

    # --- sending and receiving ---

    def send(self, request: bytes) -> None:
        sock = self._connection.sock
        sock.settimeout(min(_remaining(self._deadline), self._scope.timeouts.first_byte))
        try:
            sock.sendall(request)
        except TimeoutError:
            text = "The provider did not take the request in time."
            raise UpstreamTimeout(text, code="upstream_send_timeout") from None
        except OSError:
            self._scope.cancel.check()
            # The server may have answered early (with a 413, say), so an answer may be there although sending failed.

    def read_head(self) -> None:
        deadline = min(self._deadline, time.monotonic() + self._scope.timeouts.first_byte)
        while not self._head_done:
            data = self._receive(deadline, "first_byte")
            if not data:
                if self._received == 0:
                    raise _StaleConnection
                raise UpstreamBroken("The provider closed the connection within the headers of its answer.")
            self._feed(data)
            if not self._head_done and self._received > MAX_HEADER_BYTES:
                raise UpstreamBroken(
                    f"The headers of the provider's answer are too large: more than {MAX_HEADER_BYTES:,} bytes."
                )

    def _receive(self, deadline: float, timeout: str) -> bytes:
        """The next bytes; b"" if the server closed the connection. ``timeout`` names the time-out in the error."""
        sock = self._connection.sock
        sock.settimeout(_remaining(deadline))
        try:
            data = sock.recv(READ_SIZE)
        except TimeoutError:
            self._scope.cancel.check()
            text = f"The provider's answer exceeded the {timeout} time-out."
            raise UpstreamTimeout(text, code=f"upstream_{timeout}_timeout") from None
        except (OSError, ValueError):  # ValueError: a TLS socket was shut down while it was read
            data = b""
        self._scope.cancel.check()
        self._received += len(data)
        return data

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise UpstreamBroken("The provider answered with another protocol.") from None
        except httptools.HttpParserError:
            if not self._complete:  # after a complete answer, wrong bytes only make the connection unusable
                raise UpstreamBroken("The provider's answer is not valid HTTP.") from None
            self._reusable = False

    def header(self, name: str) -> str:
        """The value of the header with this lower-case name; "" if there is none."""
        return self.headers.get(name.encode(), b"").decode("latin-1")

    @property
    def complete(self) -> bool:
        """Whether the body was read to an end that its headers announced, not only to the end of the connection."""
        return self._complete and self._framed

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives. If the vendor compressed it although asked not to: decoded, without ticks."""
        return iter(self) if self.header("content-encoding").lower() in ("", "identity") else self._decoded()

    def _decoded(self) -> Iterator[bytes]:
        try:
            yield from httpx2.Response(self.status, headers=list(self.headers.items()), stream=self).iter_bytes()
        except httpx2.DecodingError:
            raise UpstreamBroken("The provider's answer is not in the encoding that its headers name.") from None

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces())

    def __iter__(self) -> Iterator[bytes]:
        """Raises UpstreamBroken if the connection ends before the body does."""
        last = time.monotonic()
        while True:
            if self._ready:
                data = self._ready[0] if len(self._ready) == 1 else b"".join(self._ready)
                self._ready = []
                self._count(len(data))
                yield data
                last = time.monotonic()
            if self._complete:
                return
            received = self._next(last)
            if received is None:
                yield b""
            elif received:
                self._feed(received)
            elif self._framed:
                raise UpstreamBroken("The provider closed the connection before its answer was complete.")
            else:
                return  # a body without a length ends when the connection does, so that is not reused

    def _next(self, last: float) -> bytes | None:
        """The next bytes; b"" at the end, None after an idle tick. ``last``: when the last bytes came."""
        idle_deadline = last + self._scope.timeouts.idle
        deadline = min(self._deadline, idle_deadline)
        now = time.monotonic()
        if now + self._scope.tick < deadline:
            sock = self._connection.sock
            sock.settimeout(self._scope.tick)
            try:
                data = sock.recv(READ_SIZE)
            except TimeoutError:
                self._scope.cancel.check()
                return None
            except (OSError, ValueError):
                data = b""
            self._scope.cancel.check()
            self._received += len(data)
            return data
        return self._receive(deadline, "total" if deadline == self._deadline else "idle")

    def _count(self, size: int) -> None:
        if not self._is_stream:
            self._plain_bytes += size
            if self._plain_bytes > MAX_PLAIN_BYTES:
                raise UpstreamBroken(f"The provider's answer is too large: more than {MAX_PLAIN_BYTES:,} bytes.")

    def drain(self, seconds: float = 0.05) -> None:
        """Read the few bytes that may follow a stream's terminal event, so that the connection can be reused."""
        deadline = time.monotonic() + seconds
        try:
            while not self._complete:
                data = self._receive(deadline, "idle")
                if not data:
                    return
                self._feed(data)
        except (UpstreamTimeout, UpstreamBroken):
            return

    def close(self) -> None:
        """Keep the connection for reuse if the answer was read to its end; otherwise close it."""
        if self._closed:
            return
        self._closed = True
        del self._parser  # it refers to our methods: a cycle, whose memory only the garbage collector would free
        self._scope.cancel.detach()
        if self._complete and self._reusable:
            self._transport.release(self._connection)
        else:
            self._connection.close()

    def discard(self) -> None:
        self._complete = False
        self.close()


def _remaining(deadline: float) -> float:
    """Seconds, never 0: a time-out of 0 would make the socket non-blocking."""
    return max(0.001, deadline - time.monotonic())
