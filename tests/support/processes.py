"""Ports and child processes."""

from __future__ import annotations

import ctypes
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import psutil

_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def end_with_parent() -> Callable[[], object] | None:
    """A function for ``Popen(preexec_fn=...)`` that ends the child with its parent. None on systems other than Linux.

    So a test run that is killed leaves no server process behind.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.PyDLL(None)  # loaded before the fork, so that the child only has to call it
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def children(pid: int) -> dict[int, str]:
    """The process ids of the living children of a process, each with its command line."""
    found: dict[int, str] = {}
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            with suppress(psutil.NoSuchProcess):  # it has ended since, or only waits to be reaped
                found[child.pid] = " ".join(child.cmdline())
    return found


def living(*pids: int) -> set[int]:
    """Which of ``pids`` still run; one that only waits to be reaped does not."""
    alive: set[int] = set()
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                alive.add(pid)
    return alive
