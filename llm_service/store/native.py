"""Run work that never yields to gevent's hub, such as SQLite's, in a native thread, so that the hub keeps running."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class NativeThread:
    """Runs functions in one native thread if gevent has replaced threads, otherwise in the caller's own thread.

    One greenlet at a time may use it. The thread starts with the first call.
    """

    def __init__(self) -> None:
        self._pool = _pool()

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what ``function`` returns, or raise what it raises."""
        if self._pool is None:
            return function(*arguments)
        # The exception travels as a value: gevent's pool would print its traceback before passing it on.
        outcome: tuple[Exception | None, Any] = self._pool.apply(_attempt, (function, arguments))
        error, result = outcome
        if error is not None:
            raise error
        returned: T = result
        return returned

    def close(self) -> None:
        if self._pool is not None:
            self._pool.kill()


def _attempt(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Exception | None, Any]:
    try:
        return None, function(*arguments)
    except Exception as error:  # noqa: BLE001 - the caller raises it in its own thread
        return error, None


def _pool() -> Any:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return None
    from gevent.threadpool import ThreadPool

    return ThreadPool(1)
