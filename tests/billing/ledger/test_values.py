"""What a caller is told, and what is refused before Redis is asked."""

from __future__ import annotations

import math

import pytest

from llm_service.billing.ledger import MOST, Check, Held, Ledger, bounded
from llm_service.core.errors import BudgetExceeded, Limit, RateLimited

from .support import PERIOD, build, money, slot, tokens

CENT = 10_000_000
ENDS = 1_801_440_000_000  # 2027-02-01


def budget(amount: int, quota: int, ends: int | None = ENDS) -> Check:
    return Check("money", "key:a", quota, amount, PERIOD, ends, "monthly budget of this API key")


def fields(limit: Limit | None) -> tuple[str, str, int, int, int]:
    assert limit is not None
    return limit.name, limit.scope, limit.quota, limit.window, limit.remaining


def test_a_refused_budget_says_whose_what_is_left_what_was_asked_and_when_it_renews(ledger: Ledger) -> None:
    ledger.hold("1", [budget(4 * CENT, 10 * CENT)], b"{}")
    with pytest.raises(BudgetExceeded) as refused:
        ledger.hold("2", [budget(6 * CENT + 1, 10 * CENT)], b"{}")
    assert refused.value.message == (
        "The monthly budget of this API key does not cover this call: $0.06 of $0.10 is left, "
        "and the call may cost up to $0.060000001. It renews at 2027-02-01T00:00:00Z."
    )
    assert fields(refused.value.limit) == ("budget", "key", 10 * CENT, 0, 6 * CENT)
    assert refused.value.retry_after is not None and refused.value.limit is not None
    assert refused.value.retry_after == refused.value.limit.reset > 0


def test_a_budget_that_never_renews_says_so_and_gives_no_time_to_wait(ledger: Ledger) -> None:
    ledger.hold("1", [budget(4 * CENT, 4 * CENT, None)], b"{}")
    with pytest.raises(BudgetExceeded, match="It does not renew by itself") as refused:
        ledger.hold("2", [budget(CENT, 4 * CENT, None)], b"{}")
    assert refused.value.retry_after is None


@pytest.mark.parametrize("quota", [0, CENT])
def test_a_call_that_no_whole_budget_covers_is_not_told_to_wait(ledger: Ledger, quota: int) -> None:
    with pytest.raises(BudgetExceeded) as refused:
        ledger.hold("1", [budget(2 * CENT, quota)], b"{}")
    assert refused.value.retry_after is None
    assert fields(refused.value.limit) == ("budget", "key", quota, 0, quota)


def test_a_budget_lowered_below_what_is_spent_has_nothing_left_and_admits_not_even_a_free_call(ledger: Ledger) -> None:
    ledger.hold("1", [budget(9, 10)], b"{}")
    ledger.settle("1", 9, 1, b"row")
    for amount in (0, 1):
        with pytest.raises(BudgetExceeded) as refused:
            ledger.hold("2", [budget(amount, 5)], b"{}")
        assert fields(refused.value.limit) == ("budget", "key", 5, 0, 0)
    assert ledger.hold("3", [budget(0, 9)], b"{}").remaining == (0,)  # spent to the end: what is free is free


def test_a_budget_raised_admits_again_at_once(ledger: Ledger) -> None:
    ledger.hold("1", [budget(10, 10)], b"{}")
    assert ledger.hold("2", [budget(5, 20)], b"{}").remaining == (5,)


def test_refused_tokens_say_what_is_left_and_when_to_try_again(ledger: Ledger) -> None:
    ledger.hold("1", [tokens(900)], b"{}")
    with pytest.raises(RateLimited) as refused:
        ledger.hold("2", [tokens(200)], b"{}")
    assert refused.value.message.startswith(
        "Rate limit reached: 100 of 1000 is left of the limit of tokens per minute of this API key, "
        "and this call may take 200. Retry in "
    )
    assert fields(refused.value.limit) == ("tokens", "key", 1000, 60, 100)
    assert refused.value.retry_after is not None and 1 <= refused.value.retry_after <= 120


def test_refused_parallel_calls_say_so(ledger: Ledger) -> None:
    ledger.hold("1", [slot(1)], b"{}")
    with pytest.raises(RateLimited) as refused:
        ledger.hold("2", [slot(1)], b"{}")
    assert refused.value.message == (
        "Rate limit reached: 0 of 1 is left of the limit of parallel calls of this API key. Retry in 1 s."
    )


def test_a_call_larger_than_a_limit_is_told_to_be_smaller_and_not_to_wait(ledger: Ledger) -> None:
    with pytest.raises(RateLimited, match="is 1000, and this call alone may take 1001: shorten it") as refused:
        ledger.hold("1", [tokens(1001)], b"{}")
    assert refused.value.retry_after is None


@pytest.mark.parametrize("check", [tokens(1, 0), slot(0)])
def test_a_limit_of_0_admits_no_call_and_says_so(ledger: Ledger, check: Check) -> None:
    with pytest.raises(RateLimited, match="is 0, and this call alone may take 1: it admits no call") as refused:
        ledger.hold("1", [check], b"{}")
    assert refused.value.retry_after is None


def test_the_tightest_limit_is_that_of_which_the_smallest_part_is_left(ledger: Ledger) -> None:
    held = ledger.hold("1", [budget(9, 10), tokens(500, 1000), slot(4), tokens(10, 1000, "service")], b"{}")
    assert fields(held.tightest()) == ("tokens", "key", 1000, 60, 500)
    held = ledger.hold("2", [tokens(0, 1000, "org:o"), slot(2)], b"{}")
    assert fields(held.tightest()) == ("parallel", "key", 2, 0, 0)
    assert ledger.hold("3", [budget(1, 10)], b"{}").tightest() is None
    assert Held("4", checks=(tokens(0),)).tightest() is None  # what is left is not known
    assert ledger.hold("5", [tokens(0, 0, "ip:x")], b"{}").tightest() is None


@pytest.mark.parametrize(
    ("given", "counted"), [(-5, 0), (-(2**70), 0), (0, 0), (7, 7), (MOST, MOST), (MOST + 1, MOST), (2**70, MOST)]
)
def test_any_number_is_brought_into_what_can_be_counted(ledger: Ledger, given: int, counted: int) -> None:
    assert bounded(given) == counted
    ledger.hold("1", [budget(0, MOST), tokens(10, MOST)], b"{}")
    ledger.renew({"1": given})
    assert ledger.settle("1", given, given, b"row")
    assert ledger.balances("key:a", PERIOD) == (counted, 0)


def test_a_sum_beyond_what_can_be_counted_stays_at_the_most(ledger: Ledger) -> None:
    build(ledger, {("key:a", PERIOD): 2**80})
    assert ledger.balances("key:a", PERIOD) == (MOST, 0)
    ledger.hold("1", [budget(0, MOST)], b"{}")
    assert ledger.settle("1", 5, 1, b"row")
    assert ledger.balances("key:a", PERIOD) == (MOST, 0)


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        ("quota", {"quota": -1}),
        ("quota", {"quota": MOST + 1}),
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
        ("resets_at_ms", {"resets_at_ms": MOST + 1}),
    ],
)
def test_a_limit_that_cannot_be_counted_is_refused_where_it_is_made(word: str, wrong: dict[str, object]) -> None:
    given = {"kind": "money", "scope": "key:a", "quota": 10, "amount": 1, "period": PERIOD, **wrong}
    with pytest.raises(ValueError, match=word):
        Check(**given)  # type: ignore[arg-type]


def test_one_limit_twice_in_a_call_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="two checks"):
        ledger.hold("1", [money(1), money(2)], b"{}")
