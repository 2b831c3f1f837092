"""Waiting with a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 5.0, what: str = "", pause: float = 0.01) -> T:
    """Call ``condition`` until it returns a true value, and return that value.

    Raises:
        TimeoutError: with the last value of ``condition``.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s: {what or condition}; the last value was {value!r}")
        time.sleep(pause)
