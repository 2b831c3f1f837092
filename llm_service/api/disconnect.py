"""The caller's end of the connection: noticing that it has left, and not waiting for it for ever.

A server notices a closed connection only when it writes. While a call waits for
its first token nothing is written, so under gevent the socket is watched for
becoming readable: after a complete request that is the end of the connection
(or a pipelined request, and then the watching stops). A watcher on the hub's
loop costs a few microseconds; a greenlet would cost ten times that.

Under other servers the next write notices.
"""

from __future__ import annotations

import socket
from typing import Any

from flask import Request

from llm_service.core.cancellation import Cancel
from llm_service.core.errors import ClientClosed


class Watch:
    """Sets ``cancel`` when the caller closes the connection. ``stop`` must be called, and may be twice."""

    __slots__ = ("_cancel", "_sock", "_watcher")

    def __init__(self, request: Request, cancel: Cancel, send_timeout: float) -> None:
        self._cancel = cancel
        self._watcher: Any = None
        self._sock: Any = request.environ.get("gunicorn.socket")
        if self._sock is None:
            return
        # gunicorn leaves the socket without a time-out: a reader that stops reading would hold the call for ever.
        self._sock.settimeout(send_timeout)
        hub = _hub()
        if hub is not None:
            self._watcher = hub.loop.io(self._sock.fileno(), 1)
            self._watcher.start(self._readable)

    def _readable(self) -> None:
        """Runs in the hub: must not block, hence the separate greenlet for what takes locks."""
        try:
            gone = _peek(self._sock.fileno()) == b""
        except BlockingIOError:
            return
        except OSError:
            gone = True
        self.stop()
        if gone:
            import gevent

            gevent.spawn(self._cancel.set, ClientClosed("The client closed the connection."))

    def stop(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None


def _peek(fd: int) -> bytes:
    """Below any TLS layer, whose sockets refuse MSG_PEEK. ``fd`` stays its owner's."""
    raw = socket.socket(fileno=fd)
    try:
        plain: bytes = _recv(raw, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return plain
    finally:
        raw.detach()


def _recv(sock: socket.socket, size: int, flags: int) -> bytes:
    # gevent's recv would wait in the hub; its underlying socket does not.
    native = getattr(sock, "_sock", sock)
    data: bytes = native.recv(size, flags)
    return data


def _hub() -> Any:
    """gevent's hub where gevent runs this process, else None."""
    try:
        from gevent import get_hub, monkey
    except ImportError:
        return None
    return get_hub() if monkey.is_module_patched("socket") else None
