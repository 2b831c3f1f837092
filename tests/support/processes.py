"""Ports and child processes."""

from __future__ import annotations

import ctypes
import signal
import socket
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def end_with_parent() -> Callable[[], object] | None:
    """For ``Popen(preexec_fn=...)``: a killed test run leaves no server behind (on Linux)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.PyDLL(None)  # loaded before the fork: the child only calls
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
