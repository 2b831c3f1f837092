"""The values that go into the ledger and come out of it. Amounts of money are nano-dollars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

import orjson

from llm_service.core.errors import BudgetExceeded, Limit, RateLimited, Rejected
from llm_service.core.money import MOST_NANODOLLARS, NANO_PER_DOLLAR

Kind: TypeAlias = Literal["money", "tokens", "slots"]

# Lua counts in doubles, which are exact below 2^53.
MAX_AMOUNT: Final = MOST_NANODOLLARS
WINDOW: Final = 60
_NAMES: Final = {"money": "budget", "tokens": "tokens", "slots": "parallel"}
_MAX_SCOPE_LENGTH: Final = 512


def money_key(scope: str, period: str) -> str:
    """Return the counter key of money. It is unambiguous whatever the scope's name contains."""
    return f"{period}|{scope}"


def bounded(number: int) -> int:
    """Return ``number`` as the ledger counts it. A row must contain the same bounded cost, or the sums differ."""
    return min(max(0, number), MAX_AMOUNT)


@dataclass(frozen=True, slots=True)
class Check:
    """One limit that applies to a call, and what the call takes of it.

    ``scope`` is e.g. ``key:<id>``, ``org:<name>`` or ``service``. ``period`` (only for money, without a ``|``)
    names the period, e.g. ``month:2026-01`` or ``total``. ``resets_at_ms`` is its end in Unix ms, None if it has none.
    ``label`` describes the limit to the caller: ``monthly budget of this API key``. An ``amount`` above
    ``MAX_AMOUNT`` never fits. For ``slots`` the amount is 1.

    Raises ValueError if the quota cannot be counted, the amount is negative, or scope or period is invalid.
    """

    kind: Kind
    scope: str
    quota: int
    amount: int
    period: str = ""
    resets_at_ms: int | None = None
    label: str = ""

    def __post_init__(self) -> None:
        for name, value, maximum in (("quota", self.quota, MAX_AMOUNT), ("amount", self.amount, None)):
            if type(value) is not int or value < 0 or (maximum is not None and value > maximum):
                raise ValueError(f"{name} must be an integer from 0 to {MAX_AMOUNT}")
        if self.kind not in _NAMES:
            raise ValueError("kind must be money, tokens or slots")
        if self.kind == "slots" and self.amount != 1:
            raise ValueError("the amount of a slots check must be 1: a call takes one slot")
        if not 0 < len(self.scope) <= _MAX_SCOPE_LENGTH:
            raise ValueError(f"scope must have 1 to {_MAX_SCOPE_LENGTH} characters")
        if (self.kind == "money") != bool(self.period) or "|" in self.period:
            raise ValueError("only money has a period, it must have one, and it must not contain |")
        if self.resets_at_ms is not None and not 0 <= self.resets_at_ms <= MAX_AMOUNT:
            raise ValueError("resets_at_ms must be Unix milliseconds")

    @property
    def counter_key(self) -> str:
        """The key of the counter in Redis, without the prefix."""
        return money_key(self.scope, self.period) if self.kind == "money" else self.scope

    def limit(self, remaining: int, wait_ms: int) -> Limit:
        """Return the limit for an error or headers. ``wait_ms`` -1 means that waiting does not help."""
        window = WINDOW if self.kind == "tokens" else 0
        reset = 0 if wait_ms < 0 else max(1, math.ceil(wait_ms / 1000))
        return Limit(_NAMES[self.kind], self.scope.partition(":")[0], self.quota, window, remaining, reset)


@dataclass(frozen=True, slots=True)
class Held:
    """An admitted call. ``in_redis`` is False if it was admitted without Redis. ``remaining`` is what each check has
    left after this call; it is empty if that is not known."""

    call_id: str
    in_redis: bool = True
    checks: tuple[Check, ...] = field(default=(), repr=False)
    remaining: tuple[int, ...] = ()

    def tightest(self) -> Limit | None:
        """Return the limit of tokens or parallel calls that has the smallest fraction left, for headers."""
        pairs = [
            (check, left)
            for check, left in zip(self.checks, self.remaining, strict=False)
            if check.kind != "money" and check.quota
        ]
        if not pairs:
            return None
        check, left = min(pairs, key=lambda pair: pair[1] / pair[0].quota)
        return check.limit(left, WINDOW * 1000 if check.kind == "tokens" else 1000)


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a call. ``record`` is kept until ``written``; an empty one is not kept.

    ``cost_nanousd`` and ``tokens`` are limited to what the ledger can count (``bounded``).
    ``claimed``: a reaper settles the call and must still have its claim. ``exempt``: counter keys
    (``Check.counter_key``) of budgets that the call held but does not count against, because of the model that
    served it. There the held amount is released and nothing is spent.
    """

    call_id: str
    cost_nanousd: int
    tokens: int
    record: bytes = b""
    claimed: bool = False
    exempt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reaped:
    """A call whose worker stopped renewing it. The worker that claims it settles it.

    ``seen``: its last known output tokens.
    """

    call_id: str
    record: bytes
    seen: int
    started_ms: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """What could not be settled without Redis: calls whose holds may remain there, and how many costs are uncounted."""

    ids: frozenset[str] = frozenset()
    uncounted: int = 0


def encode(checks: Sequence[Check]) -> bytes:
    """Encode the checks for the script. Raises ValueError if two have the same counter key."""
    if len({(check.kind, check.counter_key) for check in checks}) != len(checks):
        raise ValueError("two checks have the same kind, scope and period")
    rows = [
        [
            check.kind,
            check.counter_key,
            str(min(check.amount, MAX_AMOUNT + 1)),  # more than any quota, so it never fits
            str(check.quota),
            "" if check.resets_at_ms is None else str(check.resets_at_ms),
        ]
        for check in checks
    ]
    return orjson.dumps(rows)


def rejection(check: Check, remaining: int, wait_ms: int) -> Rejected:
    """Return the error for a call that ``check`` does not admit."""
    limit = check.limit(remaining, wait_ms)
    label = check.label or f"{limit.name} limit"
    # If waiting cannot help there is no Retry-After: a client that obeys it would retry for ever.
    waiting_helps = check.amount <= check.quota
    if check.kind == "money":
        when = "It does not renew by itself."
        if check.resets_at_ms is not None:
            when = f"It renews at {datetime.fromtimestamp(check.resets_at_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}."
        return BudgetExceeded(
            f"The {label} does not cover this call: {dollars(remaining)} of {dollars(check.quota)} is left, "
            f"and the call may cost up to {dollars(check.amount)}. {when}",
            limit=limit,
            retry_after=limit.reset or None if waiting_helps else None,
        )
    if not waiting_helps:
        advice = "shorten it, or ask for fewer output tokens" if check.quota else "this limit admits no call"
        text = f"The {label} is {check.quota}, and this call alone may take {check.amount}: {advice}."
        too_large = RateLimited(text, limit=limit)
        too_large.is_final = True
        return too_large
    asked = f", and this call may take {check.amount}" if check.kind == "tokens" else ""
    return RateLimited(
        f"Rate limit reached: {remaining} of {check.quota} is left of the {label}{asked}. Retry in {limit.reset} s.",
        limit=limit,
        retry_after=limit.reset,
    )


def dollars(nanodollars: int) -> str:
    """Return the exact amount for people: at least two decimals, more only where they are not zero."""
    whole, rest = divmod(nanodollars, NANO_PER_DOLLAR)
    digits = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"${whole:,}.{digits}"
