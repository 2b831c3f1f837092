"""Amounts of money: dollars for people, integer nano-dollars everywhere else."""

from __future__ import annotations

import re
from decimal import Decimal

NANO_PER_DOLLAR = 1_000_000_000
DECIMALS = 9
# Below 2**53 nano-dollars, which Redis' Lua can count without rounding.
MOST_DOLLARS = 9_000_000
MOST_NANODOLLARS = MOST_DOLLARS * NANO_PER_DOLLAR

_AMOUNT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)


def nanodollars(amount: str | int | float) -> int:
    """Convert ``amount`` dollars exactly.

    Raises:
        ValueError: it is not a number of dollars, negative, finer than a nano-dollar, or more than 9,000,000.
    """
    text = str(amount).strip()
    if isinstance(amount, bool) or not _AMOUNT.fullmatch(text):
        raise ValueError("must be a number of dollars such as 25 or 0.50")
    value = Decimal(text)
    if value.is_signed():
        raise ValueError("must not be negative")
    if value > MOST_DOLLARS:
        raise ValueError(f"must be at most {MOST_DOLLARS:,} dollars")
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int), "the pattern accepts only numbers"
    if exponent < -DECIMALS:
        raise ValueError(f"must have at most {DECIMALS} decimals (a nano-dollar)")
    return int(value.scaleb(DECIMALS))


def as_dollars(nanodollars: int | None) -> float | None:
    """Convert an amount for people and JSON replies. Everything uses this function."""
    return None if nanodollars is None else nanodollars / NANO_PER_DOLLAR
