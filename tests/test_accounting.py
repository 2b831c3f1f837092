"""The books of each process: what dies with a worker is settled by another, once, with one row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from llm_service import ids, ledger, store
from llm_service.accounting import Accounts
from llm_service.catalog import Catalog
from llm_service.conversation import Call, Caller
from llm_service.errors import BudgetExceeded, Unavailable
from llm_service.extensions import db
from llm_service.record import Record
from llm_service.scopes import Budget
from llm_service.settings import Settings
from llm_service.store import budgets, requests
from llm_service.store.writer import Writer
from tests.support.valkey import Valkey
from tests.support.wait import wait_until

CATALOGUE: dict[str, Any] = {
    "providers": {"one": {"kind": "openai", "keyless": True}},
    "models": {"one/m": {"max_output": 100, "price": {"input": 1, "output": 10}}},
}
MARKER = "MARKER-of-a-prompt"


class Metrics:
    def __init__(self) -> None:
        self.reaped = 0

    def calls_reaped(self, count: int) -> None:
        self.reaped += count

    def calls_without_redis(self, admitted: int, refused: int) -> None: ...


class Entry:
    """A call in the making, which has had some output."""

    def __init__(self, seen: int = 0) -> None:
        self.created_at = datetime.now(UTC)
        self.seen = seen
        self.settle: Callable[[Record], Record | None] | None = None

    def output_tokens_seen(self) -> int:
        return self.seen

    def settle_with(self, settle: Callable[[Record], Record | None]) -> None:
        self.settle = settle


class Rig:
    """Workers over one database and one Redis. Their loops are not started: a test turns them by ``tick``."""

    def __init__(self, folder: Path, redis_url: str, database_url: str | None) -> None:
        values = {"LLM_SERVICE_INSTANCE": str(folder), **({"DATABASE_URL": database_url} if database_url else {})}
        self.settings, self.redis_url = Settings.load(values), redis_url
        self.app = Flask("tests")
        store.configure(self.app, self.settings)
        store.upgrade(self.app)
        self.redis: Any = Redis.from_url(redis_url)
        self.made: list[tuple[Accounts, Writer]] = []
        with self.app.app_context():
            self.budget = budgets.put("key", "k", 10**9, "total")

    def worker(self) -> Accounts:
        writer = Writer(store.database_url(self.settings))
        catalog = Catalog(CATALOGUE, self.settings)
        made = Accounts(catalog, writer, self.app.app_context, self.settings, self.redis_url, (), Metrics())
        made.start = lambda: None  # type: ignore[method-assign]
        writer.tell(made.committed)
        self.made.append((made, writer))
        return made

    def flush(self) -> None:
        for _, writer in self.made:
            assert writer.flush(5)

    def rows(self) -> list[dict[str, Any]]:
        self.flush()
        with self.app.app_context():
            return [dict(row) for row in requests.recent(limit=100)]

    def expire(self) -> None:
        """As if every lease had run out. The clock of the ledger was seen to go on."""
        for name in self.redis.zrange("{llm}:leases", 0, -1):
            self.redis.zadd("{llm}:leases", {name: 1})

    def balances(self) -> tuple[int, int]:
        spent, held = self.redis.hmget("{llm}:money:total|key:k", "spent", "held")
        return int(spent or 0), int(held or 0)

    def call(self, **values: Any) -> Call:
        caller = Caller("k", org="o", user="u", budgets=(self.budget,))
        body = {"model": "one/m", "max_tokens": 50, "messages": [{"role": "user", "content": MARKER}]}
        fields: dict[str, Any] = {"stream": True, "body": body, "caller": caller, "body_bytes": 80, **values}
        return Call(ids.new_id(), "rq", "/v1/chat/completions", "chat", "one/m", **fields)

    def close(self) -> None:
        for accounts, writer in self.made:
            accounts.close()
            writer.close(2)
            accounts.hang_up()
        self.redis.close()


@contextmanager
def rig_on(folder: Path, valkey: Valkey, database_url: str | None) -> Iterator[Rig]:
    rig = Rig(folder, valkey.fresh_url(), database_url)
    try:
        yield rig
    finally:
        rig.close()
        with rig.app.app_context():
            db.engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def rig(request: pytest.FixtureRequest, tmp_path: Path, valkey: Valkey) -> Iterator[Rig]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    with rig_on(tmp_path, valkey, url) as made:
        yield made


def record(of: Call, cost: int) -> Record:
    return Record(
        id=of.id,
        created_at=datetime.now(UTC),
        key_id="k",
        route=of.route,
        dialect=of.dialect,
        provider="one",
        model_served="m",
        status=200,
        outcome="ok",
        input_tokens=3,
        output_tokens=4,
        cost_nanousd=cost,
        latency_ms=1,
    )


def test_a_call_of_a_dead_worker_becomes_one_aborted_row_at_its_last_known_tokens(rig: Rig) -> None:
    dead, alive, third = rig.worker(), rig.worker(), rig.worker()
    assert dead.rebuild(at_once=True) == 1
    call, entry = rig.call(), Entry(seen=12)
    dead.admit(call, entry)
    assert rig.balances()[1] > 50 * 10_000
    dead.tick()  # renews, with what was seen; then it is killed
    alive.tick()
    assert rig.balances()[1] > 0  # its lease has not run out
    rig.expire()
    alive.tick()
    third.tick()
    (row,) = rig.rows()
    assert (row["id"], row["outcome"], row["status"], row["error_type"]) == (call.id, "aborted", 500, "worker_lost")
    assert (row["input_tokens"], row["output_tokens"], row["usage_exact"]) == (20, 12, False)
    assert (row["key_id"], row["org"], row["user"], row["stream"]) == ("k", "o", "u", True)
    assert (row["provider"], row["model_served"], row["attempts"]) == ("one", "m", row["attempts"])
    assert row["cost_nanousd"] == 20 * 1_000 + 12 * 10_000
    assert rig.balances() == (row["cost_nanousd"], 0)
    assert MARKER not in repr(row)
    # It was only slow: what it says now counts no more, and its row is not written a second time.
    assert entry.settle is not None and entry.settle(record(call, 999)) is None
    assert rig.balances() == (row["cost_nanousd"], 0) and len(rig.rows()) == 1


def test_a_row_lost_between_its_settlement_and_its_commit_is_written_by_another_worker(rig: Rig) -> None:
    dead, alive = rig.worker(), rig.worker()
    dead.rebuild(at_once=True)
    call, entry = rig.call(), Entry()
    dead.admit(call, entry)
    assert entry.settle is not None
    ours = entry.settle(record(call, 70_000))
    assert ours is not None and rig.balances() == (70_000, 0)  # and here it dies, with its row
    alive.tick()
    assert rig.rows() == []  # its worker may still be writing it
    for name in rig.redis.zrange("{llm}:settled_at", 0, -1):
        rig.redis.zadd("{llm}:settled_at", {name: int(time.time() * 1000) - 11_000})
    alive.tick()
    (row,) = rig.rows()
    assert (row["id"], row["cost_nanousd"], row["outcome"]) == (call.id, 70_000, "ok")
    assert row["created_at"] == ours.created_at
    alive.tick()
    assert rig.redis.hlen("{llm}:unwritten") == 0
    assert len(rig.rows()) == 1 and rig.balances() == (70_000, 0)


def test_a_call_that_holds_nothing_is_settled_with_its_row(rig: Rig) -> None:
    worker = rig.worker()
    call, entry = rig.call(caller=Caller("k")), Entry()
    worker.admit(call, entry)
    assert rig.redis.zcard("{llm}:leases") == 1
    assert entry.settle is not None
    ours = entry.settle(record(call, 5))
    assert ours is not None and rig.redis.zcard("{llm}:leases") == 1  # no round trip before the caller has its answer
    rig.made[0][1].put(ours.row())
    rig.flush()
    wait_until(lambda: rig.redis.zcard("{llm}:leases") == 0, 5, "the call is settled")
    assert [row["id"] for row in rig.rows()] == [call.id]


def test_a_worker_that_dies_before_such_a_row_is_durable_leaves_it_to_the_reaper(rig: Rig) -> None:
    dead, alive = rig.worker(), rig.worker()
    call, entry = rig.call(caller=Caller("k")), Entry(seen=2)
    dead.admit(call, entry)
    assert entry.settle is not None and entry.settle(record(call, 5)) is not None  # and here it dies, with its row
    rig.expire()
    alive.tick()
    (row,) = rig.rows()
    assert (row["id"], row["outcome"]) == (call.id, "aborted")
    assert rig.redis.zcard("{llm}:leases") == 0


def test_a_call_whose_row_the_writer_did_not_take_is_settled_all_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_service.accounting.LATE_SECONDS", 0.0)
    worker = rig.worker()
    call, entry = rig.call(caller=Caller("k")), Entry()
    worker.admit(call, entry)
    assert entry.settle is not None and entry.settle(record(call, 5)) is not None
    worker.tick()
    assert rig.redis.zcard("{llm}:leases") == 0


def test_a_row_that_the_log_has_already_wins_over_a_reaper(rig: Rig) -> None:
    dead, alive = rig.worker(), rig.worker()
    dead.rebuild(at_once=True)
    call, entry = rig.call(), Entry()
    dead.admit(call, entry)
    # It died between the commit of its row and nothing: Redis had been away when it settled.
    rig.made[0][1].put(record(call, 30_000).row())
    rig.flush()
    rig.expire()
    alive.tick()
    (row,) = rig.rows()
    assert (row["outcome"], row["cost_nanousd"]) == ("ok", 30_000)
    assert rig.balances() == (30_000, 0)


def test_counters_that_redis_lost_are_built_again_from_the_log(rig: Rig) -> None:
    worker = rig.worker()
    worker.rebuild(at_once=True)
    for cost in (100, 20, 3):
        call, entry = rig.call(), Entry()
        worker.admit(call, entry)
        assert entry.settle is not None
        rig.made[0][1].put(replace(entry.settle(record(call, cost)) or record(call, 0)).row())
    rig.flush()
    live = rig.call()
    worker.admit(live, Entry())
    held = rig.balances()[1]
    rig.redis.flushdb()
    assert worker.state == "closed"
    with pytest.raises(Unavailable):
        worker.admit(rig.call(), Entry())
    worker.tick()
    assert worker.state == "ok"
    assert rig.balances() == (123, held)  # what runs is held again
    assert worker.balances(rig.budget) == (123, held)


def test_what_is_rebuilt_counts_every_period_and_the_tier_s_budgets(rig: Rig) -> None:
    worker = rig.worker()
    with rig.app.app_context():
        weekly = budgets.put("org", "o", 10**9, "week")
        model = budgets.put("service", "", 10**9, "day", "one/*")
    rows = [record(rig.call(), 5).row() | {"org": "o"}, record(rig.call(), 6).row() | {"provider": "two"}]
    for row in rows:
        rig.made[0][1].put(row)
    rig.flush()
    assert worker.rebuild(at_once=True) == 3
    assert [worker.balances(item) for item in (rig.budget, weekly, model)] == [(11, 0), (5, 0), (5, 0)]


def test_a_lowered_budget_refuses_with_nothing_left(rig: Rig) -> None:
    worker = rig.worker()
    rig.made[0][1].put(record(rig.call(), 5_000).row())
    rig.flush()
    worker.rebuild(at_once=True)
    lowered: Budget = replace(rig.budget, amount_nanousd=10)
    with pytest.raises(BudgetExceeded) as refused:
        worker.admit(rig.call(caller=Caller("k", budgets=(lowered,))), Entry())
    assert refused.value.limit is not None and refused.value.limit.remaining == 0
    assert rig.balances() == (5_000, 0)


def test_an_intent_whose_model_has_lost_its_price_costs_what_was_held(rig: Rig) -> None:
    dead = rig.worker()
    dead.rebuild(at_once=True)
    dead.admit(rig.call(), Entry())
    held = rig.balances()[1]
    rig.expire()
    later = rig.worker()
    later._catalog = Catalog({"providers": {}}, rig.settings)
    later.tick()
    (row,) = rig.rows()
    assert row["cost_nanousd"] == held and rig.balances() == (held, 0)
    assert held < ledger.MOST


def test_a_hold_that_cannot_be_read_does_not_keep_the_others_from_being_settled(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    dead, alive = rig.worker(), rig.worker()
    dead.rebuild(at_once=True)
    strange, sound = rig.call(), rig.call()
    for call in (strange, sound):
        dead.admit(call, Entry())
    rig.redis.hset(f"{{llm}}:hold:{strange.id}", "record", b'{"of": "another version"}')
    rig.expire()
    alive.tick()
    assert [row["id"] for row in rig.rows()] == [sound.id]
    assert f"call {strange.id} of a dead worker cannot be settled (KeyError)" in caplog.text


def test_after_the_end_no_call_starts_the_books_again(rig: Rig) -> None:
    worker = rig.worker()
    del worker.start  # the rig's, which does nothing
    worker.close()
    worker.admit(rig.call(caller=Caller("k")), Entry())
    assert worker._loop is None
