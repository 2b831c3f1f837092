"""Work that never yields to gevent's hub, such as SQLite's, done in a real thread while the hub goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Native:
    """One native thread where gevent has replaced threads; elsewhere the caller's own, which is one already.

    For one greenlet at a time. The thread starts with the first call.
    """

    def __init__(self) -> None:
        self._pool = _pool()

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """What ``function`` returns or raises."""
        if self._pool is None:
            return function(*arguments)
        # As a value: gevent's pool would print the traceback of an exception before handing it on.
        done: tuple[Exception | None, Any] = self._pool.apply(_attempt, (function, arguments))
        error, result = done
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
    except Exception as error:  # noqa: BLE001 - raised by who asked, in its own thread
        return error, None


def _pool() -> Any:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return None
    from gevent.threadpool import ThreadPool

    return ThreadPool(1)
