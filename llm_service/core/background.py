"""Work in the background of a process: one loop that survives forks and defects.

A ``Background`` keeps the loop of the current process. The loop starts when it is first needed, in a thread, which is
a greenlet where gevent has replaced threads. A forked child starts a loop of its own, and if a loop died another one
starts. A ``Loop`` runs round after round. A round that raises is reported, and the next one goes on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

REPORT_EVERY: Final = 30.0

log = logging.getLogger(__name__)


class Loop:
    """One process's rounds. Subclasses implement ``round``, which waits by itself, with ``wait`` or on ``stopping``.

    Attributes:
        pid: the process that the loop belongs to.
        dead: whether it has ended, or was killed.
        stopping: set when the loop must end after the work that is left (``has_work``).
        abandoned: set when the time to stop is over; work that is left stays undone.
    """

    name = "background"

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.dead = False
        self.stopping, self.abandoned = threading.Event(), threading.Event()
        self._awake = threading.Event()
        self._reported: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    # ---- for subclasses

    def round(self) -> None:
        """Do what is due, or wait until something is."""
        raise NotImplementedError

    def has_work(self) -> bool:
        """Whether rounds must go on although the loop is stopping."""
        return False

    def failed(self, error: Exception) -> None:
        """Report a round that raised ``error``. The same class of error is reported at most every 30 seconds."""
        reason, now = class_of(error), time.monotonic()
        if now - self._reported.get(reason, -REPORT_EVERY) >= REPORT_EVERY:
            self._reported[reason] = now
            log.warning("%s: a step failed and is repeated (%s)", self.name, reason)

    def close(self) -> None:
        """Release what the rounds have opened. Runs in the loop at its end, in its own process only."""

    def wait(self, seconds: float | None) -> bool:
        """Wait until ``wake`` or ``stop`` is called, or ``seconds`` have passed. Return False in the last case."""
        is_awake = self._awake.wait(seconds)
        self._awake.clear()
        return is_awake

    # ---- for owners

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        if not self._awake.is_set():  # this check takes no lock
            self._awake.set()

    def stop(self, deadline_seconds: float) -> None:
        """Let the loop finish its work, for at most ``deadline_seconds``."""
        self.stopping.set()
        self.wake()
        self._thread.join(max(0.0, deadline_seconds))
        self.abandoned.set()

    def is_working(self) -> bool:
        """Whether to go on. gevent copies a running greenlet into a forked child: there it must end."""
        if self.abandoned.is_set() or self.pid != os.getpid():
            return False
        return not self.stopping.is_set() or self.has_work()

    def _run(self) -> None:
        try:
            while self.is_working():
                try:
                    self.round()
                except Exception as error:  # noqa: BLE001 - it must not end the loop
                    self.failed(error)
        finally:
            self.dead = True
            if self.pid == os.getpid():
                self.close()


AnyLoop = TypeVar("AnyLoop", bound=Loop)


class Background(Generic[AnyLoop]):
    """The loop of the current process. Safe between greenlets and threads.

    ``make`` gets the loop that died in this process, so that the new one can take over its work, or None.

    Attributes:
        closing: set by ``stop``. No loop starts any more.
    """

    def __init__(self, make: Callable[[AnyLoop | None], AnyLoop]) -> None:
        self.closing = threading.Event()
        self._make = make
        self._loop: AnyLoop | None = None
        self._starting = threading.Lock()

    def running(self) -> AnyLoop | None:
        """Return the loop, started if necessary. None after ``stop``."""
        if self.closing.is_set():
            return None
        loop = self._loop
        if loop is None or loop.dead or loop.pid != os.getpid():
            loop = self._start()
        return loop

    def own(self) -> AnyLoop | None:
        """Return the loop of this process, if it was started. A forked child does not see its parent's."""
        loop = self._loop
        return loop if loop is not None and loop.pid == os.getpid() else None

    def stop(self, deadline_seconds: float) -> AnyLoop | None:
        """Stop the loop within ``deadline_seconds`` and return it. If it died with work left, another one does it."""
        self.closing.set()
        loop = self.own()
        if loop is not None:
            if loop.dead and loop.has_work():
                loop = self._start()
            loop.stop(deadline_seconds)
        return loop

    def _start(self) -> AnyLoop:
        with self._starting:
            loop = self.own()
            if loop is None or loop.dead:
                self._loop = loop = self._make(loop)
                loop.start()
            return loop


def class_of(error: Exception) -> str:
    """The class of ``error`` for a log line: the database driver's own, where SQLAlchemy has wrapped it."""
    return type(getattr(error, "orig", None) or error).__name__
