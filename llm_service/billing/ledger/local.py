"""Limits of this process alone, for when Redis is away: each worker grants its share of a quota."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from llm_service.billing.ledger.values import WINDOW, Check, refusal


class LocalShare:
    """``workers`` is how many share each quota: together they grant no more than the whole (but each at least 1).

    Whoever calls ``take`` sees to it that nobody else does meanwhile.
    """

    def __init__(self, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._workers, self._clock = max(1, workers), clock
        self._tokens: dict[str, tuple[int, int, int]] = {}  # scope -> (minute, taken in it, in the one before)

    def take(self, checks: Iterable[Check], live: Callable[[str], int]) -> None:
        """Admit a call, or raise RateLimited. Money is not looked at. ``live(scope)``: parallel calls here now."""
        checks = [check for check in checks if check.kind != "money"]
        for check in checks:
            share = max(1, check.quota // self._workers) if check.quota else 0
            taken = live(check.scope) if check.kind == "slots" else self._taken(check.scope)
            if taken + check.amount > share:
                raise refusal(check, max(0, share - taken), WINDOW * 1000 if check.kind == "tokens" else 1000)
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
        """Redis counts again."""
        self._tokens.clear()
