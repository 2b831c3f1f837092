"""Ports and child processes."""

from __future__ import annotations

import ctypes
import signal
import socket
import sys
from collections.abc import Callable

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
