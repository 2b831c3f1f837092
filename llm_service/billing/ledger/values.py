"""What goes into the ledger and comes out. Amounts of money are nano-dollars."""

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

# Lua counts in doubles, exact below 2^53.
MOST: Final = MOST_NANODOLLARS
WINDOW: Final = 60
_NAMES: Final = {"money": "budget", "tokens": "tokens", "slots": "parallel"}
_LONGEST: Final = 512


def money_place(scope: str, period: str) -> str:
    """Unambiguous whatever a scope's name holds."""
    return f"{period}|{scope}"


def bounded(number: int) -> int:
    """``number`` as the ledger counts it: rows of costs beyond this must say the same, or sums differ."""
    return min(max(0, number), MOST)


@dataclass(frozen=True, slots=True)
class Check:
    """One limit that applies to a call, and what the call takes of it.

    ``scope`` is e.g. ``key:<id>``, ``org:<name>`` or ``service``; ``period`` (money only, without a ``|``)
    names the period, e.g. ``month:2026-01`` or ``total``; ``resets_at_ms`` is its end in Unix ms, None if it has none.
    ``label`` says which limit of whom, for the caller: ``monthly budget of this API key``. An ``amount`` above
    ``MOST`` never fits; of ``slots`` it is 1.

    Raises ValueError for a quota that cannot be counted, a negative amount or a place that is none.
    """

    kind: Kind
    scope: str
    quota: int
    amount: int
    period: str = ""
    resets_at_ms: int | None = None
    label: str = ""

    def __post_init__(self) -> None:
        for name, value, most in (("quota", self.quota, MOST), ("amount", self.amount, None)):
            if type(value) is not int or value < 0 or (most is not None and value > most):
                raise ValueError(f"{name} must be an integer from 0 to {MOST}")
        if self.kind not in _NAMES:
            raise ValueError("kind must be money, tokens or slots")
        if self.kind == "slots" and self.amount != 1:
            raise ValueError("a call takes one slot")
        if not 0 < len(self.scope) <= _LONGEST:
            raise ValueError(f"scope must have 1 to {_LONGEST} characters")
        if (self.kind == "money") != bool(self.period) or "|" in self.period:
            raise ValueError("money, and nothing else, has a period, without a |")
        if self.resets_at_ms is not None and not 0 <= self.resets_at_ms <= MOST:
            raise ValueError("resets_at_ms must be Unix milliseconds")

    @property
    def place(self) -> str:
        """Where it is counted."""
        return money_place(self.scope, self.period) if self.kind == "money" else self.scope

    def limit(self, remaining: int, wait_ms: int) -> Limit:
        """``wait_ms`` -1: time alone does not help."""
        window = WINDOW if self.kind == "tokens" else 0
        reset = 0 if wait_ms < 0 else max(1, math.ceil(wait_ms / 1000))
        return Limit(_NAMES[self.kind], self.scope.partition(":")[0], self.quota, window, remaining, reset)


@dataclass(frozen=True, slots=True)
class Held:
    """An admitted call. ``in_redis`` False: it was admitted without Redis. ``remaining``: after it, of each check;
    empty when that is not known."""

    call_id: str
    in_redis: bool = True
    checks: tuple[Check, ...] = field(default=(), repr=False)
    remaining: tuple[int, ...] = ()

    def tightest(self) -> Limit | None:
        """The limit of tokens or parallel calls with the smallest part left, for headers."""
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
    """The end of a call. ``record`` is kept until ``written``; empty: there is none to keep.

    ``cost_nanousd`` and ``tokens`` are brought into what the ledger can count (``bounded``).
    ``claimed``: by a reaper, which must still have its claim. ``exempt``: places (``Check.place``) of money that
    the call held and does not count against, as it was served: what was held there comes back, nothing is spent.
    """

    call_id: str
    cost_nanousd: int
    tokens: int
    record: bytes = b""
    claimed: bool = False
    exempt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reaped:
    """A call whose worker stopped renewing it: the claimer's to settle. ``seen``: its last known output tokens."""

    call_id: str
    record: bytes
    seen: int
    started_ms: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """What could not be settled for want of Redis: holds that may be left there, and whether money is uncounted."""

    ids: frozenset[str] = frozenset()
    uncounted: int = 0


def encode(checks: Sequence[Check]) -> bytes:
    """As the script reads them. Raises ValueError if two are of the same place."""
    if len({(check.kind, check.place) for check in checks}) != len(checks):
        raise ValueError("two checks of one kind, scope and period")
    rows = [
        [
            check.kind,
            check.place,
            str(min(check.amount, MOST + 1)),  # one more than any quota: never fits
            str(check.quota),
            "" if check.resets_at_ms is None else str(check.resets_at_ms),
        ]
        for check in checks
    ]
    return orjson.dumps(rows)


def refusal(check: Check, remaining: int, wait_ms: int) -> Rejected:
    """The error for a call that ``check`` does not admit."""
    limit = check.limit(remaining, wait_ms)
    label = check.label or f"{limit.name} limit"
    # Where waiting cannot help there is no Retry-After: a client that obeys it would ask for ever.
    helps = check.amount <= check.quota
    if check.kind == "money":
        when = "It does not renew by itself."
        if check.resets_at_ms is not None:
            when = f"It renews at {datetime.fromtimestamp(check.resets_at_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}."
        return BudgetExceeded(
            f"The {label} does not cover this call: {dollars(remaining)} of {dollars(check.quota)} is left, "
            f"and the call may cost up to {dollars(check.amount)}. {when}",
            limit=limit,
            retry_after=limit.reset or None if helps else None,
        )
    if not helps:
        advice = "shorten it, or ask for fewer output tokens" if check.quota else "it admits no call"
        return RateLimited(
            f"The {label} is {check.quota}, and this call alone may take {check.amount}: {advice}.", limit=limit
        )
    asked = f", and this call may take {check.amount}" if check.kind == "tokens" else ""
    return RateLimited(
        f"Rate limit reached: {remaining} of {check.quota} is left of the {label}{asked}. Retry in {limit.reset} s.",
        limit=limit,
        retry_after=limit.reset,
    )


def dollars(nanodollars: int) -> str:
    """For people, exact: at least cents, more digits only where they are not zero."""
    whole, rest = divmod(nanodollars, NANO_PER_DOLLAR)
    digits = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"${whole:,}.{digits}"
