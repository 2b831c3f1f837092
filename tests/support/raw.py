"""A client for misbehaviour: it can disconnect at any time, read slowly, pipeline and send malformed HTTP."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Reply:
    """A whole response. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Raw:
    """One connection. A small ``receive_buffer`` (in bytes) makes the TCP window of a slow reader small."""

    def __init__(self, url: str, timeout: float = 10.0, receive_buffer: int | None = None) -> None:
        address = urlsplit(url)
        self.host = address.netloc
        self.sock = socket.socket()
        self.sock.settimeout(timeout)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.sock.connect((address.hostname, address.port))
        except OSError:
            self.sock.close()
            raise
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self._chunked = False

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- sending

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a request. A ``body`` of bytes is sent unchanged, any other value as JSON."""
        self.send(self.encode(method, path, body, key, headers))

    def encode(
        self,
        method: str,
        path: str,
        body: Any = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        fields = {"Host": self.host}
        if key is not None:
            fields["Authorization"] = f"Bearer {key}"
        if body is not None:
            fields |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        fields |= headers or {}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content

    # ---- reading

    def read_until(self, mark: bytes) -> bytes:
        """The raw bytes of the connection up to and including ``mark``.

        Raises:
            EOFError: the connection ended before ``mark``.
            TimeoutError: the bytes did not arrive in time.
        """
        while mark not in self.buffer:
            self._more()
        data, _, self.buffer = self.buffer.partition(mark)
        return data + mark

    def read_head(self) -> tuple[int, dict[str, str]]:
        """(status, headers) of the next final response. Interim responses are skipped."""
        while True:
            lines = self.read_until(b"\r\n\r\n").decode("latin-1").strip().split("\r\n")
            status = int(lines[0].split(" ")[1])
            pairs = (line.partition(":") for line in lines[1:])
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            self._chunked = "chunked" in headers.get("transfer-encoding", "")
            if status >= 200:
                return status, headers

    def read_reply(self) -> Reply:
        """The next response with its whole body."""
        status, headers = self.read_head()
        if self._chunked:
            return Reply(status, headers, b"".join(self.iter_body()))
        if "content-length" in headers:
            length = int(headers["content-length"])
            while len(self.buffer) < length:
                self._more()
            body, self.buffer = self.buffer[:length], self.buffer[length:]
            return Reply(status, headers, body)
        return Reply(status, headers, b"".join(self.iter_body()))

    def iter_body(self) -> Iterator[bytes]:
        """The body after ``read_head``: chunk by chunk, or piece by piece until the connection ends.

        Raises:
            EOFError: the connection ended inside a chunked body.
        """
        while self._chunked:
            size = int(self.read_until(b"\r\n").partition(b";")[0], 16)
            while len(self.buffer) < size + 2:
                self._more()
            data, self.buffer = self.buffer[:size], self.buffer[size + 2 :]
            if not size:
                return
            yield data
        data, self.buffer = self.buffer, b""
        while data:
            yield data
            data = self.sock.recv(65536)

    def read_all(self) -> bytes:
        """All bytes until the other side closes the connection."""
        data, self.buffer = [self.buffer], b""
        while piece := self.sock.recv(65536):
            data.append(piece)
        return b"".join(data)

    def is_closed(self, within: float = 1.0) -> bool:
        """Whether the other side closes or resets the connection within this time. Bytes that arrive are buffered."""
        self.sock.settimeout(within)
        try:
            while True:
                self._more()
        except TimeoutError:
            return False
        except (EOFError, OSError):
            return True

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(f"the connection ended after {self.buffer[-200:]!r}")
        self.buffer += data

    # ---- disconnecting

    def half_close(self) -> None:
        """Close the sending side. Replies can still be read."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Disconnect with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
