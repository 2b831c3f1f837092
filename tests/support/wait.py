"""Waiting, always with an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 5.0, what: str = "", pause: float = 0.01) -> T:
    """Call ``condition`` until it is true; returns what it returned.

    Raises:
        TimeoutError: with its last value.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout} s: {what or condition}: {value!r}")
        time.sleep(pause)
