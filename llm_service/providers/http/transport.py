"""HTTP/1.1 to the vendors: what the SDKs' own transport cannot do for a gateway.

On stdlib sockets (so gevent or threads) and the llhttp parser of ``httptools``.
The heads of the requests are the SDKs' (``providers/clients.py``). Over httpx2 it has:

* four deadlines per attempt (connect, first byte, idle, total), where httpx2 has
  one per operation and none over all;
* silence told upward: the body yields ``b""`` when nothing came for ``tick``
  seconds, so a stream can be kept alive without a second greenlet;
* an off switch: the socket is attached to the call's ``Cancel``;
* a fifth of the CPU per call of httpx2's layers over httpcore2's pool (benchmarks/).

Invariants: a connection is reused only after its response was read to the end;
a response cut short never looks complete; every wait has a deadline.

A provider behind an environment proxy (HTTPS_PROXY) uses httpx2's own transport
instead and goes without ticks and the off switch (``providers/clients.py``).
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
# Of answers that are not event streams; the largest real ones (embeddings, images) stay far below.
MAX_PLAIN_BYTES = 128 * 1024 * 1024

Origin = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Head:
    """A request but for its body: ``lines`` are the request line and the headers, without a Content-Length
    and the last CRLF."""

    origin: Origin
    lines: bytes

    def with_headers(self, headers: Mapping[str, str]) -> Head:
        more = [f"{name}: {value}".encode("latin-1") for name, value in headers.items()]
        return Head(self.origin, b"\r\n".join([self.lines, *more]))


@dataclass(frozen=True, slots=True)
class Scope:
    """What one attempt brings along: its deadlines, its off switch and its tick."""

    timeouts: Timeouts
    cancel: Cancel
    tick: float


class _Connection:
    """A socket and the time it was last used."""

    __slots__ = ("idle_since", "origin", "sock")

    def __init__(self, origin: Origin, sock: socket.socket) -> None:
        self.origin, self.sock, self.idle_since = origin, sock, 0.0

    def usable(self, now: float) -> bool:
        """Not too old, and silent: a readable idle socket is closed or out of step."""
        if now - self.idle_since > IDLE_EXPIRY:
            return False
        self.sock.settimeout(0)
        try:
            # Below TLS, where peeking is allowed.
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
    """Shared by all providers of a process; safe between greenlets and threads."""

    def __init__(self) -> None:
        self._idle: dict[Origin, deque[_Connection]] = {}
        self._ssl: ssl.SSLContext | None = None

    def prepare(self, request: httpx2.Request) -> Callable[[bytes, Scope, Mapping[str, str] | None], Reply]:
        """A function that sends the head of ``request`` with a body and, if given, more headers, as ``ask`` does."""
        url = request.url
        origin = url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)
        lines = [request.method.encode() + b" " + url.raw_path + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in request.headers.raw if name.lower() != b"content-length"]
        head = Head(origin, b"\r\n".join(lines))

        def send(body: bytes, scope: Scope, more: Mapping[str, str] | None = None) -> Reply:
            return self.ask(head if more is None else head.with_headers(more), body, scope)

        return send

    def ask(self, head: Head, body: bytes, current: Scope) -> Reply:
        """Send a request and read the head of its answer.

        Raises:
            UpstreamUnreachable, UpstreamTimeout, UpstreamBroken, or the reason of the call's Cancel.
        """
        current.cancel.check()
        started = time.monotonic()
        deadline = started + current.timeouts.total
        # The port of the origin is refused or the pooled connection is dead: told apart by `fresh`.
        connection, fresh = self._acquire(head.origin, min(deadline, started + current.timeouts.connect))
        reply = Reply(self, connection, current, deadline)
        try:
            current.cancel.attach(connection.sock.fileno())
            reply.send(b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head.lines, len(body), body))
            reply.read_head()
        except _StaleConnection:
            reply.discard()
            if fresh:
                raise UpstreamUnreachable("The provider closed the connection without an answer.") from None
            # Nothing of an answer came over a reused connection: the server had closed it. Ask over a new one.
            self._forget(head.origin)
            return self.ask(head, body, current)
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
            raise UpstreamTimeout(
                "The provider did not accept a connection in time.", code="upstream_connect_timeout"
            ) from None
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
            raise UpstreamTimeout(
                "The provider did not finish the TLS handshake in time.", code="upstream_connect_timeout"
            ) from None
        except OSError:
            sock.close()
            raise UpstreamUnreachable("The provider's TLS handshake failed.") from None
        return sock

    def _context(self) -> ssl.SSLContext:
        """Made once (20 ms): as httpx2 makes it, so the same certificates are trusted."""
        if self._ssl is None:
            context = httpx2.create_ssl_context()
            context.set_alpn_protocols(["http/1.1"])
            self._ssl = context
        return self._ssl


class _StaleConnection(Exception):
    """The peer closed before the first byte of an answer."""


class Reply(httpx2.SyncByteStream):
    """An answer, its head read; iterating over it reads the body as it arrives, ``b""`` for a tick of silence.

    ``close`` must be called.
    """

    def __init__(self, transport: Transport, connection: _Connection, current: Scope, deadline: float) -> None:
        self._transport, self._connection, self._scope, self._deadline = transport, connection, current, deadline
        self._parser = httptools.HttpResponseParser(self)
        self._ready: list[bytes] = []
        self._received = self._plain = 0
        self._head_done = self._complete = self._framed = self._closed = False
        self._streams = self._reusable = False
        self.status = 0
        self.headers: dict[bytes, bytes] = {}  # lower-case names; of several the first

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
        self._streams = self.is_event_stream

    def on_body(self, data: bytes) -> None:
        self._ready.append(data)

    def on_message_complete(self) -> None:
        self._complete = self._head_done
        # Asked now: the parser forgets it when it gets ready for a next message.
        self._reusable = self._framed and self._parser.should_keep_alive()

    # --- sending and receiving ---

    def send(self, request: bytes) -> None:
        sock = self._connection.sock
        sock.settimeout(min(_remaining(self._deadline), self._scope.timeouts.first_byte))
        try:
            sock.sendall(request)
        except TimeoutError:
            raise UpstreamTimeout(
                "The provider did not take the request in time.", code="upstream_send_timeout"
            ) from None
        except OSError:
            self._scope.cancel.check()
            # An early answer (413, say) may be waiting to be read even though the sending failed.

    def read_head(self) -> None:
        deadline = min(self._deadline, time.monotonic() + self._scope.timeouts.first_byte)
        while not self._head_done:
            data = self._receive(deadline, "first_byte")
            if not data:
                if self._received == 0:
                    raise _StaleConnection
                raise UpstreamBroken("The provider closed the connection inside its answer's head.")
            self._feed(data)
            if not self._head_done and self._received > MAX_HEADER_BYTES:
                raise UpstreamBroken("The provider's answer has too large a head.")

    def _receive(self, deadline: float, which: str) -> bytes:
        """Bytes, or b"" when the peer closed."""
        sock = self._connection.sock
        sock.settimeout(_remaining(deadline))
        try:
            data = sock.recv(READ_SIZE)
        except TimeoutError:
            self._scope.cancel.check()
            raise UpstreamTimeout(
                f"The provider went over the {which} time-out.", code=f"upstream_{which}_timeout"
            ) from None
        except (OSError, ValueError):  # ValueError: a TLS socket shut down under a read
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
            if not self._complete:  # bytes after a complete answer only spoil the connection
                raise UpstreamBroken("The provider's answer is not valid HTTP.") from None
            self._reusable = False

    def header(self, name: str) -> str:
        """By its lower-case name; "" without one."""
        return self.headers.get(name.encode(), b"").decode("latin-1")

    @property
    def is_event_stream(self) -> bool:
        return self.header("content-type").lower().startswith("text/event-stream")

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives; decoded, and without ticks, if the vendor compressed it although asked not to."""
        return iter(self) if self.header("content-encoding").lower() in ("", "identity") else self._decoded()

    def _decoded(self) -> Iterator[bytes]:
        try:
            yield from httpx2.Response(self.status, headers=list(self.headers.items()), stream=self).iter_bytes()
        except httpx2.DecodingError:
            raise UpstreamBroken("The provider's answer is not in its declared encoding.") from None

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces())

    def __iter__(self) -> Iterator[bytes]:
        """
        Raises:
            UpstreamBroken: the connection ended before the body did.
        """
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
                raise UpstreamBroken("The provider closed the connection inside its answer.")
            else:
                return  # a body without a length ends with its connection, which is not reused

    def _next(self, last: float) -> bytes | None:
        """The next bytes, b"" at the end, or None for a tick of silence."""
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
        if not self._streams:
            self._plain += size
            if self._plain > MAX_PLAIN_BYTES:
                raise UpstreamBroken("The provider's answer is too large.")

    def drain(self, seconds: float = 0.05) -> None:
        """Read what little is left after a stream's terminal event, so the connection can be reused."""
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
        """Give the connection back if the answer was read to its end, else close it."""
        if self._closed:
            return
        self._closed = True
        del self._parser  # it holds our methods: a cycle, whose memory would wait for the garbage collector
        self._scope.cancel.detach()
        if self._complete and self._reusable:
            self._transport.release(self._connection)
        else:
            self._connection.close()

    def discard(self) -> None:
        self._complete = False
        self.close()


def _remaining(deadline: float) -> float:
    """Never 0: that would make the socket non-blocking instead of late."""
    return max(0.001, deadline - time.monotonic())
