"""Ending a call from outside: the caller left, or the worker is draining.

A greenlet that waits inside a connection pool must never be killed. Instead the
call carries a ``Cancel``: setting it shuts down the upstream socket the call
waits on (the wait then ends by itself, as if the peer had closed) and wakes its
sleeps; whoever waits calls ``check()`` and raises the reason.
"""

from __future__ import annotations

import os
import socket
import threading

from llm_service.core.errors import ServiceError


class Cancel:
    """One call's off switch. ``set`` may come from any greenlet or thread; the first reason stays."""

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
        """``fd`` is the socket the call waits on from here on, until ``detach``."""
        with self._lock:
            self._fd = fd
            if self.reason is not None:
                _shut_down(fd)

    def detach(self) -> None:
        with self._lock:
            self._fd = None

    def sleep(self, seconds: float) -> None:
        """Sleep unless cancelled; raises the reason."""
        self.wait(threading.Event(), seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for ``event``, which nobody else may wait for; whether it came in time. Raises the reason."""
        with self._lock:
            self._awake = event
            if self.reason is not None:
                event.set()
        came = event.wait(seconds)
        self.check()
        return came


def _shut_down(fd: int) -> None:
    """Shut the connection down below any TLS layer, so that a blocked read returns.

    The descriptor is duplicated for the call: the owner may close its own at any time.
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
