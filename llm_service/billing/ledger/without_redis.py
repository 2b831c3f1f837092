"""Limits of this process alone, used while Redis is unavailable: each worker grants its share of a quota."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from llm_service.billing.ledger.values import WINDOW, Check, rejection


class LocalShare:
    """``workers`` is the number of workers that share each quota. Together they grant no more than the quota, but
    each grants at least 1.

    ``take`` must not be called concurrently; the caller ensures that.
    """

    def __init__(self, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._workers, self._clock = max(1, workers), clock
        self._tokens: dict[str, tuple[int, int, int]] = {}  # scope -> (minute, taken in it, taken in the minute before)

    def take(self, checks: Iterable[Check], live: Callable[[str], int]) -> None:
        """Admit a call, or raise RateLimited. Money is not checked. ``live(scope)``: calls that run in this worker."""
        checks = [check for check in checks if check.kind != "money"]
        for check in checks:
            share = max(1, check.quota // self._workers) if check.quota else 0
            taken = live(check.scope) if check.kind == "slots" else self._taken(check.scope)
            if taken + check.amount > share:
                raise rejection(check, max(0, share - taken), WINDOW * 1000 if check.kind == "tokens" else 1000)
        for check in checks:
            if check.kind == "tokens":
                minute, current, before = self._buckets(check.scope)
                self._tokens[check.scope] = minute, current + check.amount, before

    def _buckets(self, scope: str) -> tuple[int, int, int]:
        minute = int(self._clock() // WINDOW)
        at, current, before = self._tokens.get(scope, (minute, 0, 0))
        if at == minute:
            return minute, current, before
        return minute, 0, current if at == minute - 1 else 0

    def _taken(self, scope: str) -> int:
        _, current, before = self._buckets(scope)
        passed = (self._clock() % WINDOW) / WINDOW
        return current + math.ceil(before * (1 - passed))

    def clear(self) -> None:
        """Forget all counts, because Redis counts again."""
        self._tokens.clear()
