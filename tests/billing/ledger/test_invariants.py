"""One test for each invariant in the ledger's docstring. test_machine.py checks them all together."""

from __future__ import annotations

import pytest

from llm_service.billing.ledger import MAX_AMOUNT, Check, Ledger
from llm_service.core.errors import BudgetExceeded, RateLimited

from .conftest import MakeLedger
from .support import PERIOD, Wire, build, everything_held, money, slot, slots_of, tokens, tokens_of


def test_1_a_hold_takes_from_every_limit_that_applies_or_takes_nothing(ledger: Ledger, wire: Wire) -> None:
    ledger.hold("first", [slot(1, "org:o")], b"{}")
    with pytest.raises(RateLimited) as rejected:
        ledger.hold("second", [money(10), tokens(10), slot(1), money(10, scope="org:o"), slot(1, "org:o")], b"{}")
    assert rejected.value.limit is not None and rejected.value.limit.scope == "org"
    assert ledger.balances("key:a", PERIOD) == (0, 0) == ledger.balances("org:o", PERIOD)
    assert (slots_of(wire), tokens_of(wire)) == (0, 0)
    assert not wire.redis.exists("{llm}:hold:second")


def test_2_spent_and_held_never_exceed_the_budget(make: MakeLedger) -> None:
    one, two = make("w1"), make("w2")
    one.hold("1", [money(60)], b"{}")
    with pytest.raises(BudgetExceeded):
        two.hold("2", [money(41)], b"{}")
    two.hold("3", [money(40)], b"{}")
    assert one.balances("key:a", PERIOD) == (0, 100)
    one.settle("1", 60, 1, b"{}")
    with pytest.raises(BudgetExceeded):
        two.hold("4", [money(1)], b"{}")
    assert one.balances("key:a", PERIOD) == (60, 40)


def test_3_a_call_is_settled_exactly_once(make: MakeLedger) -> None:
    one, two = make("w1"), make("w2")
    one.hold("1", [money(60), tokens(50)], b"{}")
    assert one.hold("1", [money(60), tokens(50)], b"{}").in_redis  # a repeat
    assert one.balances("key:a", PERIOD) == (0, 60)
    assert one.settle("1", 10, 5, b"{}")
    assert not one.settle("1", 10, 5, b"{}")
    assert not two.settle("1", 20, 5, b"{}")
    assert not two.settle("1", 20, 5, b"{}", claimed=True)
    assert one.written(["1"])
    assert not one.settle("1", 10, 5, b"{}")
    assert one.balances("key:a", PERIOD) == (10, 0)


def test_4_after_a_call_is_settled_nothing_of_it_is_held(ledger: Ledger, wire: Wire) -> None:
    checks = [money(100), money(100, period="total"), tokens(900), slot(1), slot(1, "service")]
    ledger.hold("1", checks, b"{}")
    assert ledger.settle("1", 0, 100, b"row")
    assert everything_held(wire) == []
    assert tokens_of(wire) == 100
    ledger.hold("2", checks, b"{}")  # all of it can be used again


def test_5_a_call_of_a_dead_worker_is_settled_by_one_reaper_once(make: MakeLedger, wire: Wire) -> None:
    clock = [1_800_000_000_000]
    died, one, two = (make(name, now_ms=lambda: clock[0]) for name in ("died", "one", "two"))
    died.hold("1", [money(60), slot()], b"the intent")
    died.renew({"1": 17})
    for _ in range(5):
        assert one.reap() == [] == two.reap()
        clock[0] += 2000
    (reaped,) = one.reap()
    assert (reaped.call_id, reaped.record, reaped.seen) == ("1", b"the intent", 17)
    assert two.reap() == []
    assert not two.settle("1", 9, 17, b"row", claimed=True)
    assert one.settle("1", 9, 17, b"row", claimed=True)
    assert not one.settle("1", 9, 17, b"row", claimed=True)
    assert not died.settle("1", 50, 100, b"late")
    assert one.balances("key:a", PERIOD) == (9, 0)
    assert one.unwritten(0) == {"1": b"row"}
    assert everything_held(wire) == []


@pytest.mark.parametrize("written", [False, True])
def test_6_spent_is_the_sum_of_the_rows_whatever_happened_to_redis(ledger: Ledger, wire: Wire, written: bool) -> None:
    """Calls that are settled before Redis loses its data, during that, after it, and one that still runs."""
    rows = {}
    for name in ("before", "during", "after", "running"):
        ledger.hold(name, [money(20)], b"{}")
    ledger.settle("before", 1, 1, b"row")
    rows["before"] = 1
    wire.up = False
    assert ledger.settle("during", 2, 1, b"row")
    if written:
        rows["during"] = 2
    wire.redis.flushdb()
    wire.up = True
    assert ledger.is_empty()
    assert ledger.settle("after", 4, 1, b"row")
    ledger.renew({})
    rows["during"] = 2  # the writer is flushed before recover()
    assert ledger.recover(ledger.lost())
    build(ledger, {("key:a", PERIOD): sum(rows.values())}, ledger.counted() & set(rows))
    rows["after"] = 4
    ledger.written(["after"])
    assert ledger.balances("key:a", PERIOD) == (sum(rows.values()), 20)
    assert ledger.settle("running", 8, 1, b"row")
    assert ledger.balances("key:a", PERIOD) == (15, 0)


def test_7_no_balance_is_negative_and_no_number_exceeds_what_lua_counts_exactly(ledger: Ledger, wire: Wire) -> None:
    for quota, amount in ((-1, 0), (MAX_AMOUNT + 1, 0), (1, -1)):
        with pytest.raises(ValueError, match="integer from 0"):
            Check("money", "key:a", quota, amount, PERIOD)
    for index, cost in enumerate((2**70, -5, MAX_AMOUNT, 1)):
        ledger.hold(str(index), [Check("money", f"key:{index % 2}", MAX_AMOUNT, 0, PERIOD), tokens(10)], b"{}")
        assert ledger.settle(str(index), cost, -(2**70), b"row")
    assert ledger.balances("key:0", PERIOD) == (MAX_AMOUNT, 0)
    assert ledger.balances("key:1", PERIOD) == (1, 0)
    assert tokens_of(wire) == 0
    with pytest.raises(BudgetExceeded):
        ledger.hold("5", [Check("money", "key:0", MAX_AMOUNT, 1, PERIOD)], b"{}")
    with pytest.raises(BudgetExceeded):
        ledger.hold("6", [Check("money", "key:9", MAX_AMOUNT, 2**80, PERIOD)], b"{}")
    # Another client removed the counter of a hold.
    ledger.hold("7", [money(50)], b"{}")
    wire.redis.delete(f"{{llm}}:money:{PERIOD}|key:a")
    ledger.settle("7", 5, 1, b"row")
    assert ledger.balances("key:a", PERIOD) == (5, 0)


@pytest.mark.parametrize("jump", [3_600_000, -3_600_000, 86_400_000 * 400])
def test_8_a_jump_of_the_clock_settles_no_live_call_and_frees_nothing(make: MakeLedger, wire: Wire, jump: int) -> None:
    clock = [1_800_000_000_000]
    owner, other = make("owner", now_ms=lambda: clock[0]), make("other", now_ms=lambda: clock[0])
    owner.hold("1", [money(60), slot()], b"{}")
    owner.renew({})
    clock[0] += jump
    assert other.reap() == []
    for _ in range(20):
        clock[0] += 2000
        owner.renew({})
        assert other.reap() == []
    assert other.balances("key:a", PERIOD) == (0, 60)
    assert slots_of(wire) == 1
    left = []
    for _ in range(6):  # a call whose owner dies is not kept for the length of the jump
        clock[0] += 2000
        left += other.reap()
    assert [reaped.call_id for reaped in left] == ["1"]
