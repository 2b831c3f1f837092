"""What has gone wrong once, or could: orders of events that the state machine found, and the seams around it."""

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
    """Settled without Redis, its row committed, its worker killed before Redis was told."""
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


def test_a_clock_that_goes_back_hides_no_row_that_was_not_written(make: MakeLedger) -> None:
    now = [LONG_AGO]
    died, other = (make(name, now_ms=lambda: now[0]) for name in ("died", "other"))
    died.hold("1", [money(20)], b"{}")
    died.settle("1", 7, 1, b"row")
    assert other.unwritten(10) == {}
    now[0] -= 3_600_000
    assert other.unwritten(10) == {"1": b"row"}


@pytest.mark.parametrize("jump", [-3_600_000, 3_600_000])
def test_a_clock_that_jumps_there_and_back_leaves_no_lease_of_the_time_between(make: MakeLedger, jump: int) -> None:
    now = [LONG_AGO]
    owner, other = (make(name, now_ms=lambda: now[0]) for name in ("owner", "other"))
    assert other.reap() == []
    now[0] += jump
    owner.hold("1", [money(20)], b"{}")
    now[0] -= jump
    assert other.reap() == []
    left = []
    for _ in range(6):  # its owner does not renew it: an hour later would be late
        now[0] += 2000
        left += other.reap()
    assert [reaped.call_id for reaped in left] == ["1"]


def test_a_settlement_repeated_after_one_that_redis_did_not_hear_of_changes_nothing(
    make: MakeLedger, wire: Wire
) -> None:
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


def test_many_are_told_each_in_its_place(ledger: Ledger) -> None:
    for number in range(250):
        ledger.hold(str(number), [tokens(1)], b"{}")
    some = [Settlement(str(number), 0, 1, b"row") for number in range(0, 250, 2)]
    assert ledger.settle_many(some) == [True] * 125
    every = [Settlement(str(number), 0, 1, b"row") for number in range(250)]
    assert ledger.settle_many(every) == [False, True] * 125


def test_a_row_with_another_cost_is_known_at_once_to_all_workers(make: MakeLedger) -> None:
    one, two = make("one"), make("two")
    one.recount()
    assert two.is_empty()
    with pytest.raises(Unavailable):
        two.hold("1", [money(1)], b"{}")


def test_a_row_with_another_cost_is_remembered_while_redis_is_away(ledger: Ledger, wire: Wire) -> None:
    wire.up = False
    ledger.recount()
    wire.up = True
    assert not ledger.is_empty()
    assert ledger.recover(ledger.lost())
    assert ledger.is_empty()
    assert ledger.lost().uncounted == 0


def test_what_a_call_does_not_count_against_comes_back_whole(ledger: Ledger, wire: Wire) -> None:
    ledger.hold("1", [money(20), money(20, scope="model:m")], b"{}")
    exempt = (money(0, scope="model:m").place,)
    assert ledger.settle_many([Settlement("1", 7, 1, b"row", exempt=exempt)]) == [True]
    assert (ledger.balances("key:a", PERIOD), ledger.balances("model:m", PERIOD)) == ((7, 0), (0, 0))
    build(ledger, {("key:a", PERIOD): 0})
    assert (ledger.balances("key:a", PERIOD), ledger.balances("model:m", PERIOD)) == ((7, 0), (0, 0))


# -- a server of one's own, which stops, hangs and comes back --


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


def test_a_redis_that_remembers_its_scripts_is_seen_through_within_a_tick(ledger: Ledger, wire: Wire) -> None:
    """As versions before 7 do, which keep them on disk: nothing asks for the script again."""
    wire.redis.set("{llm}:run", "0123")
    assert not ledger.is_empty()
    assert ledger.reap() == []
    assert ledger.is_empty()


def test_a_redis_that_comes_back_with_old_counters_has_them_built_again(server: Valkey) -> None:
    """Everything since its last snapshot is lost: calls that were held then or since, and what was settled."""
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
    assert ledger.settle("forgotten", 3, 1, b"row"), "its row would never be written"
    ledger.renew({})
    build(ledger, {("key:a", PERIOD): 5}, included=ledger.counted() & {"settled"})
    assert ledger.balances("key:a", PERIOD) == (8, 40)
    assert ledger.settle("before", 1, 1, b"row")
    assert ledger.settle("after", 1, 1, b"row")
    assert ledger.balances("key:a", PERIOD) == (10, 0)


def test_a_redis_that_kept_every_write_goes_on_where_it_was(server: Valkey) -> None:
    ledger = ledger_at(server)
    ledger.hold("1", [money(20)], b"{}")
    server.command("CONFIG", "SET", "appendonly", "yes")
    server.command("SET", "{llm}:run", "0123")  # as if another process had written all this
    server.command("SCRIPT", "FLUSH")
    assert not ledger.is_empty()
    assert ledger.settle("1", 5, 1, b"row")
    assert ledger.balances("key:a", PERIOD) == (5, 0)


def test_a_redis_that_hangs_costs_all_who_wait_one_time_out_or_two_and_nobody_else(server: Valkey) -> None:
    ledger = ledger_at(server, timeout=0.1, retry=60)
    server.freeze()
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(50) as pool:
            waits = list(pool.map(lambda number: wait_of(ledger, f"c{number}"), range(50)))
        assert time.monotonic() - began < 2  # one after another they would have waited for 5 s
        assert max(waits) < 1
        assert not ledger.available
        assert min(wait_of(ledger, f"d{number}") for number in range(20)) < 0.05
        failures = ledger.failures
        assert wait_of(ledger, "last") < 0.1
        assert ledger.failures == failures, "it was asked although it is known to be away"
    finally:
        server.thaw()
    assert ledger.refused_without_redis == 71


def wait_of(ledger: Ledger, call_id: str) -> float:
    began = time.monotonic()
    with pytest.raises(Unavailable):
        ledger.hold(call_id, [money(1), tokens(1)], b"{}")
    return time.monotonic() - began


def test_a_redis_that_was_away_is_found_again_and_nothing_is_counted_twice(server: Valkey) -> None:
    ledger = ledger_at(server, timeout=0.2)
    ledger.hold("1", [money(20), slot()], b"{}")
    ledger.hold("2", [money(20), slot()], b"{}")
    server.freeze()
    assert ledger.settle("1", 7, 1, b"row")  # what was sent is carried out by the server when it goes on
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


def test_a_ledger_made_before_a_fork_is_another_workers_after_it(server: Valkey) -> None:
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
    assert ledger.settle("of the parent", 5, 1, b"row")  # its own connection is as it was
    assert ledger.balances("key:a", PERIOD) == (5, 20)


def use_in_child(ledger: Ledger, far: Connection) -> None:
    ledger.hold("of the child", [money(20)], b"{}")
    far.send((ledger.worker_id, ledger.balances("key:a", PERIOD)))
