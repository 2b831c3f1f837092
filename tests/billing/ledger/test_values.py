"""What is reported to a caller, and what is rejected before Redis is asked."""

from __future__ import annotations

import math

import pytest

from llm_service.billing.ledger import MAX_AMOUNT, Check, Held, Ledger, bounded
from llm_service.core.errors import BudgetExceeded, Limit, RateLimited

from .support import PERIOD, build, money, slot, tokens

CENT = 10_000_000
ENDS = 1_801_440_000_000  # 2027-02-01


def budget(amount: int, quota: int, ends: int | None = ENDS) -> Check:
    return Check("money", "key:a", quota, amount, PERIOD, ends, "monthly budget of this API key")


def fields(limit: Limit | None) -> tuple[str, str, int, int, int]:
    assert limit is not None
    return limit.name, limit.scope, limit.quota, limit.window, limit.remaining


def test_the_error_of_an_exhausted_budget_names_the_budget_what_is_left_what_was_asked_and_when_it_renews(
    ledger: Ledger,
) -> None:
    ledger.hold("1", [budget(4 * CENT, 10 * CENT)], b"{}")
    with pytest.raises(BudgetExceeded) as rejected:
        ledger.hold("2", [budget(6 * CENT + 1, 10 * CENT)], b"{}")
    assert rejected.value.message == (
        "The monthly budget of this API key does not cover this call: $0.06 of $0.10 is left, "
        "and the call may cost up to $0.060000001. It renews at 2027-02-01T00:00:00Z."
    )
    assert fields(rejected.value.limit) == ("budget", "key", 10 * CENT, 0, 6 * CENT)
    assert rejected.value.retry_after is not None and rejected.value.limit is not None
    assert rejected.value.retry_after == rejected.value.limit.reset > 0


def test_the_error_of_a_budget_that_never_renews_says_so_and_has_no_retry_after(ledger: Ledger) -> None:
    ledger.hold("1", [budget(4 * CENT, 4 * CENT, None)], b"{}")
    with pytest.raises(BudgetExceeded, match="It does not renew by itself") as rejected:
        ledger.hold("2", [budget(CENT, 4 * CENT, None)], b"{}")
    assert rejected.value.retry_after is None


@pytest.mark.parametrize("quota", [0, CENT])
def test_a_call_that_exceeds_the_whole_budget_gets_no_retry_after(ledger: Ledger, quota: int) -> None:
    with pytest.raises(BudgetExceeded) as rejected:
        ledger.hold("1", [budget(2 * CENT, quota)], b"{}")
    assert rejected.value.retry_after is None
    assert fields(rejected.value.limit) == ("budget", "key", quota, 0, quota)


def test_a_budget_lowered_below_what_is_spent_has_nothing_left_and_admits_not_even_a_free_call(ledger: Ledger) -> None:
    ledger.hold("1", [budget(9, 10)], b"{}")
    ledger.settle("1", 9, 1, b"row")
    for amount in (0, 1):
        with pytest.raises(BudgetExceeded) as rejected:
            ledger.hold("2", [budget(amount, 5)], b"{}")
        assert fields(rejected.value.limit) == ("budget", "key", 5, 0, 0)
    assert ledger.hold("3", [budget(0, 9)], b"{}").remaining == (
        0,
    )  # the budget is used up, but a free call is still admitted


def test_a_raised_budget_admits_calls_again_at_once(ledger: Ledger) -> None:
    ledger.hold("1", [budget(10, 10)], b"{}")
    assert ledger.hold("2", [budget(5, 20)], b"{}").remaining == (5,)


def test_the_error_of_a_token_limit_says_what_is_left_and_when_to_retry(ledger: Ledger) -> None:
    ledger.hold("1", [tokens(900)], b"{}")
    with pytest.raises(RateLimited) as rejected:
        ledger.hold("2", [tokens(200)], b"{}")
    assert rejected.value.message.startswith(
        "Rate limit reached: 100 of 1000 is left of the limit of tokens per minute of this API key, "
        "and this call may take 200. Retry in "
    )
    assert fields(rejected.value.limit) == ("tokens", "key", 1000, 60, 100)
    assert rejected.value.retry_after is not None and 1 <= rejected.value.retry_after <= 120


def test_the_error_of_a_limit_of_parallel_calls_says_so(ledger: Ledger) -> None:
    ledger.hold("1", [slot(1)], b"{}")
    with pytest.raises(RateLimited) as rejected:
        ledger.hold("2", [slot(1)], b"{}")
    assert rejected.value.message == (
        "Rate limit reached: 0 of 1 is left of the limit of parallel calls of this API key. Retry in 1 s."
    )


def test_the_error_of_a_call_larger_than_the_limit_advises_a_smaller_call_and_no_retry(ledger: Ledger) -> None:
    with pytest.raises(RateLimited, match="is 1000, and this call alone may take 1001: shorten it") as rejected:
        ledger.hold("1", [tokens(1001)], b"{}")
    assert rejected.value.retry_after is None


@pytest.mark.parametrize("check", [tokens(1, 0), slot(0)])
def test_a_limit_of_0_admits_no_call_and_says_so(ledger: Ledger, check: Check) -> None:
    with pytest.raises(
        RateLimited, match="is 0, and this call alone may take 1: this limit admits no call"
    ) as rejected:
        ledger.hold("1", [check], b"{}")
    assert rejected.value.retry_after is None


def test_the_tightest_limit_is_the_one_with_the_smallest_fraction_left(ledger: Ledger) -> None:
    held = ledger.hold("1", [budget(9, 10), tokens(500, 1000), slot(4), tokens(10, 1000, "service")], b"{}")
    assert fields(held.tightest()) == ("tokens", "key", 1000, 60, 500)
    held = ledger.hold("2", [tokens(0, 1000, "org:o"), slot(2)], b"{}")
    assert fields(held.tightest()) == ("parallel", "key", 2, 0, 0)
    assert ledger.hold("3", [budget(1, 10)], b"{}").tightest() is None
    assert Held("4", checks=(tokens(0),)).tightest() is None  # it is not known what is left
    assert ledger.hold("5", [tokens(0, 0, "ip:x")], b"{}").tightest() is None


@pytest.mark.parametrize(
    ("given", "counted"),
    [
        (-5, 0),
        (-(2**70), 0),
        (0, 0),
        (7, 7),
        (MAX_AMOUNT, MAX_AMOUNT),
        (MAX_AMOUNT + 1, MAX_AMOUNT),
        (2**70, MAX_AMOUNT),
    ],
)
def test_any_number_is_limited_to_what_can_be_counted(ledger: Ledger, given: int, counted: int) -> None:
    assert bounded(given) == counted
    ledger.hold("1", [budget(0, MAX_AMOUNT), tokens(10, MAX_AMOUNT)], b"{}")
    ledger.renew({"1": given})
    assert ledger.settle("1", given, given, b"row")
    assert ledger.balances("key:a", PERIOD) == (counted, 0)


def test_a_sum_beyond_what_can_be_counted_stays_at_the_maximum(ledger: Ledger) -> None:
    build(ledger, {("key:a", PERIOD): 2**80})
    assert ledger.balances("key:a", PERIOD) == (MAX_AMOUNT, 0)
    ledger.hold("1", [budget(0, MAX_AMOUNT)], b"{}")
    assert ledger.settle("1", 5, 1, b"row")
    assert ledger.balances("key:a", PERIOD) == (MAX_AMOUNT, 0)


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        ("quota", {"quota": -1}),
        ("quota", {"quota": MAX_AMOUNT + 1}),
        ("quota", {"quota": 1.5}),
        ("quota", {"quota": True}),
        ("amount", {"amount": -1}),
        ("amount", {"amount": 0.5}),
        ("amount", {"amount": math.nan}),
        ("kind", {"kind": "requests"}),
        ("slot", {"kind": "slots", "period": "", "amount": 2}),
        ("scope", {"scope": ""}),
        ("scope", {"scope": "x" * 513}),
        ("period", {"period": ""}),
        ("period", {"period": "month|x"}),
        ("period", {"kind": "tokens"}),
        ("resets_at_ms", {"resets_at_ms": -1}),
        ("resets_at_ms", {"resets_at_ms": MAX_AMOUNT + 1}),
    ],
)
def test_a_check_that_cannot_be_counted_is_rejected_when_it_is_created(word: str, wrong: dict[str, object]) -> None:
    given = {"kind": "money", "scope": "key:a", "quota": 10, "amount": 1, "period": PERIOD, **wrong}
    with pytest.raises(ValueError, match=word):
        Check(**given)  # type: ignore[arg-type]


def test_the_same_limit_twice_in_a_call_is_rejected(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="two checks"):
        ledger.hold("1", [money(1), money(2)], b"{}")
