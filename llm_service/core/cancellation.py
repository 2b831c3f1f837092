"""Ends a call from outside: the client disconnected, or the worker is draining.

A greenlet that waits inside a connection pool must never be killed. Instead each call has a ``Cancel``. Setting it
shuts down the upstream socket that the call waits on: the wait then ends by itself, as if the peer had closed the
connection. It also wakes the call's sleeps. After each wait the call runs ``check()``, which raises the reason.
"""

from __future__ import annotations

import os
import socket
import threading

from llm_service.core.errors import ServiceError


class Cancel:
    """The off switch of one call. ``set`` may be called from any greenlet or thread. The first reason is kept."""

    __slots__ = ("_awake", "_fd", "_lock", "reason")

    def __init__(self) -> None:
        self.reason: ServiceError | None = None
        self._fd: int | None = None
        self._awake: threading.Event | None = None
        self._lock = threading.Lock()

    def set(self, reason: ServiceError) -> None:
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
            if self._fd is not None:
                _shut_down(self._fd)
            if self._awake is not None:
                self._awake.set()

    def check(self) -> None:
        """Raise the reason if there is one."""
        if self.reason is not None:
            raise self.reason

    def attach(self, fd: int) -> None:
        """From now on, until ``detach``, the call waits on the socket ``fd``."""
        with self._lock:
            self._fd = fd
            if self.reason is not None:
                _shut_down(fd)

    def detach(self) -> None:
        with self._lock:
            self._fd = None

    def sleep(self, seconds: float) -> None:
        """Sleep. If the call is cancelled, raise the reason at once."""
        self.wait(threading.Event(), seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for ``event`` and return whether it was set in time. Raises the reason if the call is cancelled.

        No other greenlet or thread may wait for the same event.
        """
        with self._lock:
            self._awake = event
            if self.reason is not None:
                event.set()
        in_time = event.wait(seconds)
        self.check()
        return in_time


def _shut_down(fd: int) -> None:
    """Shut the connection down below any TLS layer, so that a blocked read returns.

    This uses a duplicate of the descriptor, because the owner may close its own at any time.
    """
    try:
        duplicate = socket.socket(fileno=os.dup(fd))
    except OSError:
        return
    try:
        duplicate.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # already closed by the peer
    finally:
        duplicate.close()
