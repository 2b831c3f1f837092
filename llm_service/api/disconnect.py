"""The connection to the caller: notice when it is closed, and do not wait for a slow reader for ever.

A server notices a closed connection only when it writes. While a call waits for its
first token nothing is written. So under gevent the socket is watched until it becomes
readable. After a complete request this means that the connection is closed, or that
the client sent a pipelined request; then watching stops. A watcher on the hub's loop
costs a few microseconds; a greenlet would cost ten times as much.

Under other servers a closed connection is noticed at the next write.
"""

from __future__ import annotations

import socket
from typing import Any

from flask import Request

from llm_service.core.cancellation import Cancel
from llm_service.core.errors import ClientClosed


class Watch:
    """Sets ``cancel`` when the caller closes the connection. ``stop`` must be called; a second call does nothing."""

    __slots__ = ("_cancel", "_sock", "_watcher")

    def __init__(self, request: Request, cancel: Cancel, send_timeout: float) -> None:
        self._cancel = cancel
        self._watcher: Any = None
        self._sock: Any = request.environ.get("gunicorn.socket")
        if self._sock is None:
            return
        # gunicorn sets no time-out, so a client that stops reading would keep its call open for ever.
        self._sock.settimeout(send_timeout)
        hub = _hub()
        if hub is not None:
            self._watcher = hub.loop.io(self._sock.fileno(), 1)
            self._watcher.start(self._readable)

    def _readable(self) -> None:
        """Runs in the hub and must not block, so what takes locks runs in a greenlet of its own."""
        try:
            closed = _peek(self._sock.fileno()) == b""
        except BlockingIOError:
            return
        except OSError:
            closed = True
        self.stop()
        if closed:
            import gevent

            gevent.spawn(self._cancel.set, ClientClosed("The client closed the connection."))

    def stop(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None


def _peek(fd: int) -> bytes:
    """The next byte of ``fd``, which stays open and unread. It is read below TLS, whose sockets reject MSG_PEEK."""
    raw = socket.socket(fileno=fd)
    try:
        plain: bytes = _recv(raw, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return plain
    finally:
        raw.detach()


def _recv(sock: socket.socket, size: int, flags: int) -> bytes:
    # gevent's recv would wait in the hub; the socket under it does not.
    native = getattr(sock, "_sock", sock)
    data: bytes = native.recv(size, flags)
    return data


def _hub() -> Any:
    """gevent's hub if gevent runs this process, or else None."""
    try:
        from gevent import get_hub, monkey
    except ImportError:
        return None
    return get_hub() if monkey.is_module_patched("socket") else None
