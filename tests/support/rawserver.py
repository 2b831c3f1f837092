"""A TCP server that sends exactly the bytes that a test scripts."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

Action = bytes | float | Callable[[socket.socket], None]


@dataclass
class RawServer:
    """What the server saw so far."""

    port: int
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    closed_by_peer: threading.Event = field(default_factory=threading.Event)


def reset(sock: socket.socket) -> None:
    """End the connection with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def close(sock: socket.socket) -> None:
    sock.close()


def _read_request(sock: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length:
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


def _serve(sock: socket.socket, server: RawServer, scripts: Iterator[Sequence[Action]]) -> None:
    try:
        while request := _read_request(sock):
            server.requests.append(request)
            for action in next(scripts):
                if isinstance(action, bytes):
                    sock.sendall(action)
                elif isinstance(action, (int, float)):
                    time.sleep(action)
                else:
                    action(sock)
                    if sock.fileno() < 0:
                        return
    except (OSError, StopIteration):
        pass
    finally:
        server.closed_by_peer.set()
        sock.close()


@contextmanager
def raw_server(*scripts: Sequence[Action]) -> Iterator[RawServer]:
    """A server that plays one script per request.

    Each action of a script is bytes to send, a number of seconds to sleep, or a function that gets the socket.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    server = RawServer(listener.getsockname()[1])
    remaining = iter(scripts)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            server.connections += 1
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_serve, args=(sock, server, remaining), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        listener.close()
