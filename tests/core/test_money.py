"""Dollars are read exactly to the nano-dollar, or rejected."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_service.core.money import MOST_DOLLARS, MOST_NANODOLLARS, nanodollars


@pytest.mark.parametrize(
    ("amount", "nano"),
    [
        ("25", 25 * 10**9),
        (" 0.50 ", 5 * 10**8),
        (".000000001", 1),
        ("0", 0),
        ("1e3", 10**12),
        (0.1, 10**8),
        (1e-9, 1),
        (7, 7 * 10**9),
        ("9000000", MOST_NANODOLLARS),
        ("8999999.999999999", MOST_NANODOLLARS - 1),
    ],
)
def test_dollars_are_read_exactly(amount: str | int | float, nano: int) -> None:
    assert nanodollars(amount) == nano


@pytest.mark.parametrize(
    ("amount", "rule"),
    [
        ("0.0000000001", "9 decimals"),
        ("1e-10", "9 decimals"),
        ("1e-9999", "9 decimals"),
        ("-1", "negative"),
        ("-0", "negative"),
        (-0.5, "negative"),
        ("9000000.000000001", "9,000,000"),
        ("1e9999", "9,000,000"),
        ("NaN", "number of dollars"),
        (float("nan"), "number of dollars"),
        (float("inf"), "number of dollars"),
        ("Infinity", "number of dollars"),
        ("", "number of dollars"),
        ("$5", "number of dollars"),
        ("1,000", "number of dollars"),
        ("1_000", "number of dollars"),
        ("٣", "number of dollars"),
        ("1e99999", "number of dollars"),
        (True, "number of dollars"),
    ],
)
def test_text_that_is_not_an_amount_is_rejected_with_the_rule(amount: str | float, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        nanodollars(amount)


@given(st.decimals(0, MOST_DOLLARS, places=9))
def test_every_amount_keeps_its_value(amount: Decimal) -> None:
    assert Decimal(nanodollars(f"{amount:f}")) / 10**9 == amount


@given(st.text(max_size=40))
def test_any_text_is_an_amount_or_raises_a_value_error(text: str) -> None:
    try:
        assert 0 <= nanodollars(text) <= MOST_NANODOLLARS
    except ValueError:
        pass
