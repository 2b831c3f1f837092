"""Regressions: orders of events that the state machine once found, and cases that it does not cover."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import pytest

from llm_service.billing.ledger import Ledger, Settlement, client
from llm_service.core.errors import Unavailable
from tests.support.valkey import Valkey
from tests.support.wait import wait_until

from .conftest import MakeLedger
from .support import PERIOD, Wire, build, everything_held, money, slot, tokens

LONG_AGO = 1_800_000_000_000


def test_a_call_whose_row_a_rebuild_has_counted_is_not_counted_again_by_a_reaper(make: MakeLedger, wire: Wire) -> None:
    """It was settled without Redis and its row was committed, but its worker was killed before Redis knew."""
    now = [LONG_AGO]
    cut_off = Wire(wire.redis)
    died = Ledger(cut_off, "died", now_ms=lambda: now[0])  # type: ignore[arg-type]
    other = make("other", now_ms=lambda: now[0])
    died.hold("1", [money(20), slot()], b"{}")
    cut_off.up = False
    assert died.settle("1", 7, 1, b"row")
    assert other.counted() == {"1"}
    build(other, {("key:a", PERIOD): 7}, included=["1"])
    for _ in range(10):
        now[0] += 2000
        assert other.reap() == []
    assert other.balances("key:a", PERIOD) == (7, 0)
    assert everything_held(wire) == []


def test_a_clock_that_is_set_back_hides_no_unwritten_row(make: MakeLedger) -> None:
    now = [LONG_AGO]
    died, other = (make(name, now_ms=lambda: now[0]) for name in ("died", "other"))
    died.hold("1", [money(20)], b"{}")
    died.settle("1", 7, 1, b"row")
    assert other.unwritten(10) == {}
    now[0] -= 3_600_000
    assert other.unwritten(10) == {"1": b"row"}


@pytest.mark.parametrize("jump", [-3_600_000, 3_600_000])
def test_a_clock_that_jumps_there_and_back_leaves_no_lease_with_a_time_of_the_jump(make: MakeLedger, jump: int) -> None:
    now = [LONG_AGO]
    owner, other = (make(name, now_ms=lambda: now[0]) for name in ("owner", "other"))
    assert other.reap() == []
    now[0] += jump
    owner.hold("1", [money(20)], b"{}")
    now[0] -= jump
    assert other.reap() == []
    left = []
    for _ in range(6):  # its owner does not renew it; it must not take an hour until it is reaped
        now[0] += 2000
        left += other.reap()
    assert [reaped.call_id for reaped in left] == ["1"]


def test_repeating_a_settlement_that_did_not_reach_redis_changes_nothing(make: MakeLedger, wire: Wire) -> None:
    ledger, other = make("w"), make("other")
    ledger.hold("1", [money(20)], b"{}")
    wire.up = False
    assert ledger.settle("1", 7, 1, b"row")
    wire.up = True
    assert not ledger.settle("1", 15, 1, b"again")
    assert not other.settle("1", 15, 1, b"not its own")
    assert other.unwritten(0) == {}
    assert ledger.balances("key:a", PERIOD) == (0, 20)
    assert ledger.recover(ledger.lost())
    assert ledger.is_empty()
    assert ledger.balances("key:a", PERIOD) == (0, 0)


def test_many_settlements_return_their_results_in_order(ledger: Ledger) -> None:
    for number in range(250):
        ledger.hold(str(number), [tokens(1)], b"{}")
    some = [Settlement(str(number), 0, 1, b"row") for number in range(0, 250, 2)]
    assert ledger.settle_many(some) == [True] * 125
    every = [Settlement(str(number), 0, 1, b"row") for number in range(250)]
    assert ledger.settle_many(every) == [False, True] * 125


def test_all_workers_know_at_once_of_a_row_with_another_cost(make: MakeLedger) -> None:
    one, two = make("one"), make("two")
    one.recount()
    assert two.is_empty()
    with pytest.raises(Unavailable):
        two.hold("1", [money(1)], b"{}")


def test_a_row_with_another_cost_is_remembered_while_redis_is_unavailable(ledger: Ledger, wire: Wire) -> None:
    wire.up = False
    ledger.recount()
    wire.up = True
    assert not ledger.is_empty()
    assert ledger.recover(ledger.lost())
    assert ledger.is_empty()
    assert ledger.lost().uncounted == 0


def test_a_budget_that_the_call_does_not_count_against_is_fully_released(ledger: Ledger, wire: Wire) -> None:
    ledger.hold("1", [money(20), money(20, scope="model:m")], b"{}")
    exempt = (money(0, scope="model:m").counter_key,)
    assert ledger.settle_many([Settlement("1", 7, 1, b"row", exempt=exempt)]) == [True]
    assert (ledger.balances("key:a", PERIOD), ledger.balances("model:m", PERIOD)) == ((7, 0), (0, 0))
    build(ledger, {("key:a", PERIOD): 0})
    assert (ledger.balances("key:a", PERIOD), ledger.balances("model:m", PERIOD)) == ((7, 0), (0, 0))


# -- with a server of its own, which the test stops, freezes and restarts --


@pytest.fixture
def server() -> Iterator[Valkey]:
    own = Valkey().start()
    yield own
    own.remove()


def ledger_at(server: Valkey, worker: str = "w", timeout: float = 2, retry: float = 0) -> Ledger:
    ledger = Ledger(client(server.url, timeout), worker, retry_seconds=retry)
    if ledger.is_empty():
        build(ledger, {})
    return ledger


def until_back(ledger: Ledger) -> None:
    def answers() -> bool:
        try:
            ledger.is_empty()
        except Unavailable:
            return False
        return True

    wait_until(answers, 10, "Redis answers the ledger")


def test_a_restart_of_a_redis_that_keeps_its_scripts_is_noticed_within_a_tick(ledger: Ledger, wire: Wire) -> None:
    """Versions before 7 keep scripts on disk, so no NoScriptError reveals the restart."""
    wire.redis.set("{llm}:run", "0123")
    assert not ledger.is_empty()
    assert ledger.reap() == []
    assert ledger.is_empty()


def test_counters_are_rebuilt_when_redis_comes_back_with_old_ones(server: Valkey) -> None:
    """All changes since its last snapshot are lost: later holds, and settlements."""
    ledger = ledger_at(server)
    ledger.hold("before", [money(20)], b"{}")
    ledger.hold("settled", [money(20)], b"{}")
    server.command("SAVE")
    ledger.settle("settled", 5, 1, b"row")
    ledger.written(["settled"])
    ledger.hold("after", [money(20)], b"{}")
    ledger.hold("forgotten", [money(20)], b"{}")
    server.stop()
    server.start()
    until_back(ledger)
    assert ledger.is_empty()
    with pytest.raises(Unavailable):
        ledger.hold("new", [money(1)], b"{}")
    assert ledger.settle("forgotten", 3, 1, b"row"), "otherwise its row would never be written"
    ledger.renew({})
    build(ledger, {("key:a", PERIOD): 5}, included=ledger.counted() & {"settled"})
    assert ledger.balances("key:a", PERIOD) == (8, 40)
    assert ledger.settle("before", 1, 1, b"row")
    assert ledger.settle("after", 1, 1, b"row")
    assert ledger.balances("key:a", PERIOD) == (10, 0)


def test_a_redis_that_kept_every_write_needs_no_rebuild(server: Valkey) -> None:
    ledger = ledger_at(server)
    ledger.hold("1", [money(20)], b"{}")
    server.command("CONFIG", "SET", "appendonly", "yes")
    server.command("SET", "{llm}:run", "0123")  # as if another server process had written all this
    server.command("SCRIPT", "FLUSH")
    assert not ledger.is_empty()
    assert ledger.settle("1", 5, 1, b"row")
    assert ledger.balances("key:a", PERIOD) == (5, 0)


def test_a_redis_that_hangs_costs_waiting_calls_at_most_two_time_outs_and_later_calls_none(server: Valkey) -> None:
    ledger = ledger_at(server, timeout=0.1, retry=60)
    server.freeze()
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(50) as pool:
            waits = list(pool.map(lambda number: wait_of(ledger, f"c{number}"), range(50)))
        assert time.monotonic() - began < 2  # one after another the calls would have waited for 5 s
        assert max(waits) < 1
        assert not ledger.available
        assert min(wait_of(ledger, f"d{number}") for number in range(20)) < 0.05
        failures = ledger.failures
        assert wait_of(ledger, "last") < 0.1
        assert ledger.failures == failures, "Redis was asked although it is known to be unavailable"
    finally:
        server.thaw()
    assert ledger.refused_without_redis == 71


def wait_of(ledger: Ledger, call_id: str) -> float:
    began = time.monotonic()
    with pytest.raises(Unavailable):
        ledger.hold(call_id, [money(1), tokens(1)], b"{}")
    return time.monotonic() - began


def test_a_redis_that_is_available_again_is_noticed_and_nothing_is_counted_twice(server: Valkey) -> None:
    ledger = ledger_at(server, timeout=0.2)
    ledger.hold("1", [money(20), slot()], b"{}")
    ledger.hold("2", [money(20), slot()], b"{}")
    server.freeze()
    assert ledger.settle("1", 7, 1, b"row")  # the server runs the sent command when it continues
    server.thaw()
    wait_until(server.answers, 5, "the server answers again")
    until_back(ledger)
    assert ledger.recover(ledger.lost())
    until_back(ledger)
    build(ledger, {("key:a", PERIOD): 7}, included=ledger.counted() & {"1"})
    ledger.written(["1"])
    assert ledger.balances("key:a", PERIOD) == (7, 20)
    assert ledger.settle("2", 3, 1, b"row")
    assert ledger.balances("key:a", PERIOD) == (10, 0)


def test_a_ledger_made_before_a_fork_acts_as_another_worker_in_the_child(server: Valkey) -> None:
    ledger = ledger_at(server)
    ledger.hold("of the parent", [money(20)], b"{}")
    near, far = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=use_in_child, args=(ledger, far))
    child.start()
    assert near.poll(10)
    name, held = near.recv()
    child.join(10)
    assert child.exitcode == 0
    assert name != ledger.worker_id == "w"
    assert held == (0, 40)
    assert ledger.settle("of the parent", 5, 1, b"row")  # the parent's own connection still works
    assert ledger.balances("key:a", PERIOD) == (5, 20)


def use_in_child(ledger: Ledger, far: Connection) -> None:
    ledger.hold("of the child", [money(20)], b"{}")
    far.send((ledger.worker_id, ledger.balances("key:a", PERIOD)))
