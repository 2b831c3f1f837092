"""HTTP/1.1 on a blocking socket: as much as a vendor needs, correct or hostile.

All waiting happens in ``Connection.wait`` and ``Connection.send``, which notice within milliseconds that the client
has disconnected.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

GONE_EVENTS = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
MAX_HEAD = 256 * 1024
POLL_INTERVAL = 0.02  # seconds between two checks of the socket, on systems without POLLRDHUP


class ClientGone(Exception):
    """The client closed its side of the connection before the answer was complete."""


class Malformed(Exception):
    """The client sent bytes that are not a valid HTTP request."""


@dataclass
class Request:
    """One request as received. Header names are in lower case; values of a repeated header are joined with commas."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""
    keep_alive: bool = True
    too_large: bool = False
    arrived: float = field(default_factory=time.monotonic)


class Connection:
    """One accepted socket."""

    def __init__(self, sock: socket.socket, number: int, max_body: int) -> None:
        self.sock = sock
        self.number = number
        self.max_body = max_body
        self.closing = False
        self.close_on_next = False
        self._buffer = b""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll = select.poll()
        self._poll.register(sock, getattr(select, "POLLRDHUP", select.POLLIN))

    # ---- reading

    def read_request(self) -> Request | None:
        """The next request, or None if the client closed the connection between two requests.

        Raises:
            Malformed: the bytes are not a valid request.
            OSError: the connection failed.
        """
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > MAX_HEAD:
                raise Malformed("the header block is too long")
            data = self.sock.recv(65536)
            if not data:
                return None
            if self.close_on_next:
                return None
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        request = _parse_head(head)
        length = int(request.headers.get("content-length", "0"))
        if length > self.max_body:
            request.too_large, request.keep_alive = True, False
        elif "chunked" in request.headers.get("transfer-encoding", ""):
            self._continue(request)
            request.body = self._read_chunked()
        elif length:
            self._continue(request)
            request.body = self._read_exactly(length)
        return request

    def _continue(self, request: Request) -> None:
        if request.headers.get("expect", "").lower() == "100-continue":
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read_exactly(self, length: int) -> bytes:
        pieces, missing = [self._buffer[:length]], length - len(self._buffer)
        self._buffer = self._buffer[length:]
        while missing > 0:
            data = self.sock.recv(min(missing, 1 << 20))
            if not data:
                raise Malformed("the connection ended inside the body")
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)

    def _read_line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            data = self.sock.recv(65536)
            if not data:
                raise Malformed("the connection ended inside the body")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _read_chunked(self) -> bytes:
        body = b""
        while size := int(self._read_line().partition(b";")[0], 16):
            body += self._read_exactly(size)
            self._read_line()
            if len(body) > self.max_body:
                raise Malformed("the body is too long")
        while self._read_line():
            pass
        return body

    # ---- writing

    def send(self, data: bytes, split: int = 0) -> None:
        """Send all of ``data``. ``split`` is the number of bytes per packet; 0 sends all bytes at once.

        Raises:
            ClientGone: the client has disconnected.
        """
        self.check()
        try:
            if not split:
                self.sock.sendall(data)
                return
            for start in range(0, len(data), split):
                self.sock.sendall(data[start : start + split])
        except OSError:
            raise ClientGone from None

    def wait(self, seconds: float) -> None:
        """Sleep. Raises ClientGone as soon as the client disconnects."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not hasattr(select, "POLLRDHUP"):
                time.sleep(min(left, POLL_INTERVAL))
                self.check()
            elif self._poll.poll(left * 1000):
                raise ClientGone

    def check(self) -> None:
        """Raise ClientGone if the client has closed or half-closed the connection."""
        for _, events in self._poll.poll(0):
            if events & GONE_EVENTS:
                raise ClientGone
            if events & select.POLLIN and not self._peek():
                raise ClientGone

    def _peek(self) -> bytes:
        try:
            return self.sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return b""

    def reset(self) -> None:
        """Close the connection with RST, so that the client sees ECONNRESET."""
        self.closing = True
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()

    def close(self) -> None:
        """Close with FIN. Reads what the client still sends, because the kernel would send RST for unread bytes."""
        self.closing = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.settimeout(0.05)
            while self.sock.recv(65536):
                pass
        with contextlib.suppress(OSError):
            self.sock.close()


def head(status: int, headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> bytes:
    """The status line and header block of a response."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Vendor Specific"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in pairs)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body. Empty data makes the last chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _parse_head(head: bytes) -> Request:
    lines = head.decode("latin-1").split("\r\n")
    try:
        method, target, version = lines[0].split(" ")
    except ValueError:
        raise Malformed("the request line is malformed") from None
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise Malformed("a header line has no colon")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    url = urlsplit(target)
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection if version == "HTTP/1.1" else "keep-alive" in connection
    return Request(method, unquote(url.path), url.query, headers, keep_alive=keep_alive)
