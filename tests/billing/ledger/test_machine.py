"""A state machine: events happen to a few calls of three workers in any order, and the sums must always be right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llm_service.billing.ledger import Ledger, client
from llm_service.core.errors import BudgetExceeded, RateLimited, Unavailable
from tests.support.valkey import Valkey

from .support import PERIOD, Wire, everything_held, money, slot, tokens

BUDGETS = {"key:a": 100, "key:b": 80, "org:o": 140}
SLOTS = {"key:a": 3, "key:b": 2}
WORKERS = ("w0", "w1", "w2")


@dataclass
class Worker:
    """A process: its ledger, its calls, and the rows in its writer that are not committed yet."""

    ledger: Ledger
    wire: Wire
    calls: dict[str, int] = field(default_factory=dict)  # id -> its maximum cost
    queue: dict[str, int] = field(default_factory=dict)  # id -> its row's cost
    scopes: dict[str, str] = field(default_factory=dict)


class Machine(RuleBasedStateMachine):
    redis: Any  # set by the test
    without_redis: Literal["closed", "open"] = "closed"

    @initialize()
    def start(self) -> None:
        self.redis.connection_pool.disconnect()  # left over from an example that failed
        self.redis.flushdb()
        self.now = 1_800_000_000_000
        self.names = iter(range(10**6))
        self.log: dict[str, int] = {}  # the committed rows
        self.key_of: dict[str, str] = {}
        self.max_cost: dict[str, int] = {}
        self.sent: set[str] = set()  # calls that were sent upstream
        self.settled: dict[str, int] = {}  # settled by a worker that could reach Redis
        self.ghosts: dict[str, int] = {}  # calls of workers that died: id -> maximum cost
        self.slots_exceeded = False  # allowed after Redis lost live calls or was not available to count them
        self.costs_lost = False  # a worker was killed that alone knew of some costs
        self.kept: dict[bytes, tuple[bytes, int]] | None = None
        self.epoch: str | None = None
        self.snapshot: tuple[dict[str, int], set[str]] | None = None
        self.workers = {name: self.process(name) for name in WORKERS}
        self.build_all()

    def process(self, name: str) -> Worker:
        wire = Wire(self.redis)
        number = f"{name}-{next(self.names)}"
        ledger = Ledger(
            wire,  # type: ignore[arg-type]
            number,
            workers=len(WORKERS),
            without_redis=self.without_redis,
            retry_seconds=0.0,
            now_ms=lambda: self.now,
        )
        return Worker(ledger, wire)

    # -- calls --

    @rule(
        name=st.sampled_from(WORKERS),
        key=st.sampled_from(("key:a", "key:b")),
        max_cost=st.integers(0, 50),
        mute=st.sampled_from((False, False, False, True)),
        budget=st.sampled_from((True, True, True, False)),
    )
    def hold(self, name: str, key: str, max_cost: int, mute: bool, budget: bool) -> None:
        worker, call_id = self.workers[name], f"c{next(self.names):06}"
        checks = [tokens(max_cost, 10_000, key), slot(SLOTS[key], key)]
        if budget:
            checks = [money(max_cost, BUDGETS[key], key), money(max_cost, BUDGETS["org:o"], "org:o"), *checks]
        else:
            max_cost = 0  # no money is counted
        record = orjson.dumps({"key": key, "max_cost": max_cost})
        worker.wire.mute = mute
        self.key_of[call_id], self.max_cost[call_id] = key, max_cost
        try:
            held = worker.ledger.hold(call_id, checks, record)
            assert worker.ledger.hold(call_id, checks, record).in_redis == held.in_redis
            self.slots_exceeded = self.slots_exceeded or not held.in_redis
            worker.calls[call_id] = max_cost
            self.sent.add(call_id)
        except (BudgetExceeded, RateLimited):
            pass
        except Unavailable:
            worker.queue[call_id] = 0  # the row of a rejected call
        finally:
            worker.wire.mute = False

    @rule(
        name=st.sampled_from(WORKERS), part=st.floats(0, 1), mute=st.sampled_from((False, False, True)), pick=st.data()
    )
    def settle(self, name: str, part: float, mute: bool, pick: st.DataObject) -> None:
        worker = self.workers[name]
        if not worker.calls:
            return
        call_id = pick.draw(st.sampled_from(sorted(worker.calls)))
        cost = int(worker.calls.pop(call_id) * part)
        reachable = worker.wire.up and not mute
        worker.wire.mute = mute
        settled = worker.ledger.settle(call_id, cost, cost, orjson.dumps({"cost": cost}))
        worker.wire.mute = False
        assert not worker.ledger.settle(call_id, 40, 40, b"again"), "a repeat changes nothing"
        if settled:
            worker.queue[call_id] = cost
            assert not (reachable and call_id in self.settled), "settled twice"
            if reachable:
                self.settled[call_id] = cost

    @rule(name=st.sampled_from(WORKERS), pick=st.data())
    def settle_once_more(self, name: str, pick: st.DataObject) -> None:
        if self.max_cost:
            call_id = pick.draw(st.sampled_from(sorted(self.max_cost)))
            if call_id not in self.workers[name].calls:
                assert not self.workers[name].ledger.settle(call_id, 40, 40, b"again")

    @rule(name=st.sampled_from(WORKERS))
    def commit(self, name: str) -> None:
        self.flush(self.workers[name])

    def flush(self, worker: Worker) -> None:
        for call_id, cost in worker.queue.items():
            self.write(worker, call_id, cost)
        worker.queue.clear()

    def write(self, worker: Worker, call_id: str, cost: int) -> None:
        if self.log.setdefault(call_id, cost) != cost:
            worker.ledger.recount()
        worker.ledger.written([call_id])

    # -- time, and what workers do every few seconds --

    @rule(name=st.sampled_from(WORKERS))
    def tick(self, name: str) -> None:
        worker = self.workers[name]
        lost = worker.ledger.lost()
        self.flush(worker)
        worker.ledger.recover(lost)
        worker.ledger.renew(dict.fromkeys(worker.calls, 1))
        for reaped in worker.ledger.reap():
            assert not [other for other in self.workers.values() if reaped.call_id in other.calls] or self.stalled
            cost = self.log.get(reaped.call_id, orjson.loads(reaped.record)["max_cost"] // 2)
            record = orjson.dumps({"cost": cost})
            if worker.ledger.settle(reaped.call_id, cost, cost, record, claimed=True):
                assert reaped.call_id not in self.settled, "reaped although it was settled"
                assert not worker.ledger.settle(reaped.call_id, cost, cost, record, claimed=True)
                self.settled[reaped.call_id] = cost
                self.ghosts.pop(reaped.call_id, None)
                worker.queue[reaped.call_id] = cost
        for call_id, record in worker.ledger.unwritten(10).items():
            self.write(worker, call_id, orjson.loads(record)["cost"])

    stalled = False

    @rule(seconds=st.integers(1, 4))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * 1000
        for name in WORKERS:
            self.tick(name)
        # A worker that cannot reach Redis for long enough looks dead to the others.
        self.stalled = self.stalled or any(not worker.wire.up for worker in self.workers.values())

    @rule(seconds=st.integers(5, 20), name=st.sampled_from(WORKERS))
    def all_stall_but_one(self, seconds: int, name: str) -> None:
        self.stalled = True
        for _ in range(seconds // 2):
            self.now += 2000
            self.tick(name)

    @rule(hours=st.sampled_from((-1, 1)))
    def the_clock_jumps(self, hours: int) -> None:
        self.now += hours * 3_600_000

    # -- failures --

    @rule(name=st.sampled_from(WORKERS))
    def a_worker_is_cut_off(self, name: str) -> None:
        self.workers[name].wire.up = False

    @rule(name=st.sampled_from(WORKERS))
    def a_worker_is_connected_again(self, name: str) -> None:
        self.workers[name].wire.up = True

    @rule(name=st.sampled_from(WORKERS))
    def a_worker_is_killed(self, name: str) -> None:
        """kill -9: what only this process knew is lost."""
        worker = self.workers[name]
        self.costs_lost = self.costs_lost or worker.ledger.lost().uncounted > 0
        worker.wire.close()
        self.workers[name] = self.process(name)
        self.forget_what_is_lost()

    @rule()
    def redis_is_lost(self) -> None:
        self.redis.flushdb()
        self.forget_what_is_lost()
        self.epoch, self.slots_exceeded = None, True

    @rule()
    def redis_keeps_its_state_on_disk(self) -> None:
        names = self.redis.keys("{llm}:*")
        self.kept = {name: (self.redis.dump(name), max(0, self.redis.pttl(name))) for name in names}

    @precondition(lambda self: self.kept is not None)
    @rule()
    def redis_starts_again_from_its_disk(self) -> None:
        assert self.kept is not None
        self.redis.flushdb()
        for name, (dumped, ttl) in self.kept.items():
            self.redis.restore(name, ttl, dumped)
        self.redis.set("{llm}:run", "another server process")
        self.redis.script_flush()
        self.forget_what_is_lost()
        self.epoch, self.slots_exceeded = None, True

    def forget_what_is_lost(self) -> None:
        """Expect no row of a call that no process, row or Redis key remembers. Calls that are only held are reaped."""
        held = {name.decode().rpartition(":")[2] for name in self.redis.keys("{llm}:hold:*")}
        kept = {call_id.decode() for call_id in self.redis.hkeys("{llm}:unwritten")}
        reaped = {name.decode().rpartition(":")[2] for name in self.redis.keys("{llm}:reaped:*")}
        live = {call_id for worker in self.workers.values() for call_id in worker.calls}
        queued = {call_id for worker in self.workers.values() for call_id in worker.queue}
        self.sent &= held | kept | live | queued | set(self.log)
        over = kept | reaped | (queued | set(self.log)) - live - held
        self.settled = {call_id: cost for call_id, cost in self.settled.items() if call_id in over}
        self.ghosts = {
            call_id: self.max_cost[call_id] for call_id in held - live - set(self.settled) - queued - set(self.log)
        }

    # -- the rebuild, in steps with other events in between --

    def all_are_connected(self) -> bool:
        return all(worker.wire.up for worker in self.workers.values())

    @precondition(lambda self: self.epoch is None and self.all_are_connected())
    @rule()
    def a_rebuild_begins(self) -> None:
        for name in WORKERS:
            self.tick(name)
        self.epoch, self.snapshot = f"e{next(self.names)}", None
        if not self.workers["w0"].ledger.begin_rebuild(self.epoch):
            self.epoch = None

    @precondition(lambda self: self.epoch is not None and self.snapshot is None)
    @rule()
    def the_rebuild_reads_the_log(self) -> None:
        self.snapshot = self.sums(self.log), set(self.log)

    @precondition(lambda self: self.snapshot is not None)
    @rule()
    def the_rebuild_ends(self) -> None:
        assert self.snapshot is not None
        ledger = self.workers["w0"].ledger
        sums, ids = self.snapshot
        try:
            ledger.rebuild(
                self.epoch or "", {(scope, PERIOD): cost for scope, cost in sums.items()}, ledger.counted() & ids
            )
        except Unavailable:
            self.redis.delete("{llm}:rebuilding")  # it expires
        self.epoch = self.snapshot = None

    def build_all(self) -> None:
        self.redis.delete("{llm}:rebuilding")
        self.epoch = None
        self.a_rebuild_begins()
        self.the_rebuild_reads_the_log()
        self.the_rebuild_ends()

    def sums(self, rows: dict[str, int]) -> dict[str, int]:
        spent: dict[str, int] = {}
        for call_id, cost in rows.items():
            for scope in (self.key_of[call_id], "org:o"):
                spent[scope] = spent.get(scope, 0) + cost
        return spent

    # -- invariants --

    @invariant()
    def spent_money_and_possible_costs_are_within_every_budget(self) -> None:
        if not hasattr(self, "workers") or self.without_redis == "open":
            return
        costs = {**self.settled}
        for worker in self.workers.values():
            costs |= worker.queue
        costs |= self.log
        for worker in self.workers.values():
            costs = {**worker.calls, **costs}
        costs = {**self.ghosts, **costs}
        for scope, total in self.sums(costs).items():
            assert total <= BUDGETS[scope], f"{scope}: {costs}"

    @invariant()
    def no_counter_is_negative_and_each_equals_the_sum_of_the_holds(self) -> None:
        if not hasattr(self, "workers"):
            return
        held: dict[str, int] = {}
        slots: dict[str, set[bytes]] = {}
        for name in self.redis.keys("{llm}:hold:*"):
            for kind, counter_key, amount, *_ in orjson.loads(self.redis.hget(name, "checks")):
                if kind == "money":
                    held[counter_key] = held.get(counter_key, 0) + int(amount)
                elif kind == "slots":
                    slots.setdefault(counter_key, set()).add(name.rpartition(b":")[2])
        for name in self.redis.keys("{llm}:money:*"):
            counter = self.redis.hgetall(name)
            assert int(counter.get(b"spent", 0)) >= 0
            assert int(counter.get(b"held", 0)) == held.get(name.decode().removeprefix("{llm}:money:"), 0)
        for scope, quota in SLOTS.items():
            members = self.redis.smembers(f"{{llm}}:slots:{scope}")
            assert members == slots.get(scope, set())
            assert self.slots_exceeded or len(members) <= quota
        assert all(int(self.redis.get(name)) >= 0 for name in self.redis.keys("{llm}:tokens:*"))

    def teardown(self) -> None:
        """In the end all workers are connected, every call has one row, and the counters equal the sums of the rows."""
        if not hasattr(self, "workers"):
            return
        self.stalled = True
        for worker in self.workers.values():
            worker.wire.up = True
            for call_id, cost in list(worker.calls.items()):
                del worker.calls[call_id]
                if worker.ledger.settle(call_id, cost, cost, orjson.dumps({"cost": cost})):
                    worker.queue[call_id] = cost
                    self.settled[call_id] = cost
        for _ in range(16):
            self.now += 2000
            for name in WORKERS:
                self.tick(name)
        assert everything_held(Wire(self.redis)) == []
        if self.workers["w0"].ledger.is_empty() or (self.costs_lost and self.without_redis == "open"):
            self.build_all()
        assert self.sent <= set(self.log)
        assert self.spent() == {**dict.fromkeys(BUDGETS, 0), **self.sums(self.log)}
        self.build_all()  # a rebuild of correct counters changes nothing
        assert self.spent() == {**dict.fromkeys(BUDGETS, 0), **self.sums(self.log)}
        assert self.workers["w0"].ledger.counted() == set()
        for worker in self.workers.values():
            worker.wire.close()

    def spent(self) -> dict[str, int]:
        return {scope: self.workers["w0"].ledger.balances(scope, PERIOD)[0] for scope in BUDGETS}


@pytest.fixture
def redis(valkey: Valkey) -> Iterator[Any]:
    redis = client(valkey.fresh_url(), timeout=5)
    yield redis
    redis.close()


@pytest.mark.parametrize("without", ["closed", "open"])
def test_no_order_of_events_breaks_an_invariant(redis: Any, without: Literal["closed", "open"]) -> None:
    class Here(Machine):
        pass

    Here.redis, Here.without_redis = redis, without
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
