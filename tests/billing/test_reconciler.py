"""What dies with a worker is settled by another worker, once, with one row."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from llm_service import store
from llm_service.billing import ledger
from llm_service.billing.admission import Admission
from llm_service.billing.ledger.of_process import ProcessLedger
from llm_service.billing.reconciler import Reconciler
from llm_service.billing.settlement import AdmittedCall, Settler
from llm_service.catalog.catalog import Catalog
from llm_service.core import ids
from llm_service.core.call import Call, Caller
from llm_service.core.errors import BudgetExceeded, Unavailable
from llm_service.core.limits import Budget
from llm_service.extensions import db
from llm_service.observability.record import Record
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


class Recorder:
    """A call that has had some output. A test says how it ends."""

    def __init__(self, seen: int = 0) -> None:
        self.created_at = datetime.now(UTC)
        self.seen = seen
        self.record: Record | None = None

    def output_tokens_seen(self) -> int:
        return self.seen

    def end(self, error: BaseException | None = None) -> Record | None:
        return self.record

    def settled(self, record: Record | None) -> None:
        self.record = record

    def failed(self, failure: BaseException) -> None:
        raise failure


class Worker:
    """One process. Its loop is not started: a test runs each round by ``reconcile``."""

    def __init__(self, rig: Rig) -> None:
        self.writer = Writer(store.database_url(rig.settings))
        catalog = Catalog(CATALOGUE, rig.settings)
        ledger = ProcessLedger(rig.redis_url, rig.settings.workers, rig.settings.money_without_redis)
        self.admission = Admission(catalog, ledger.get, Settler(ledger.get), rig.settings.time_zone)
        self.reconciler = Reconciler(
            catalog, self.admission, ledger, self.writer, rig.app.app_context, rig.settings, (), Metrics()
        )
        self.writer.subscribe(self.admission.settler.committed)

    def admit(self, call: Call, seen: int = 0) -> AdmittedCall:
        return self.admission.admit(call, Recorder(seen))

    @staticmethod
    def settle(admitted: AdmittedCall, ended: Record) -> Record | None:
        """The record as its row must say it; None if the row is another worker's."""
        recorder = admitted._recorder
        assert isinstance(recorder, Recorder)
        recorder.record = ended
        admitted.settle()
        return recorder.record

    def close(self) -> None:
        self.reconciler.close()
        self.writer.close(2)
        self.reconciler.disconnect()


class Rig:
    """Workers that share one database and one Redis."""

    def __init__(self, folder: Path, redis_url: str, database_url: str | None) -> None:
        values = {"LLM_SERVICE_INSTANCE": str(folder), **({"DATABASE_URL": database_url} if database_url else {})}
        self.settings, self.redis_url = Settings.load(values), redis_url
        self.app = Flask("tests")
        store.configure(self.app, self.settings)
        store.upgrade(self.app)
        self.redis: Any = Redis.from_url(redis_url)
        self.workers: list[Worker] = []
        with self.app.app_context():
            self.budget = budgets.put("key", "k", 10**9, "total")

    def worker(self) -> Worker:
        self.workers.append(Worker(self))
        return self.workers[-1]

    def flush(self) -> None:
        for worker in self.workers:
            assert worker.writer.flush(5)

    def rows(self) -> list[dict[str, Any]]:
        self.flush()
        with self.app.app_context():
            return [dict(row) for row in requests.recent(limit=100)]

    def expire(self) -> None:
        """Make every lease expire."""
        for name in self.redis.zrange("{llm}:leases", 0, -1):
            self.redis.zadd("{llm}:leases", {name: 1})

    def balances(self) -> tuple[int, int]:
        spent, held = self.redis.hmget("{llm}:money:total|key:k", "spent", "held")
        return int(spent or 0), int(held or 0)

    def call(self, **values: Any) -> Call:
        caller = Caller("k", org="o", user="u", budgets=(self.budget,))
        body = {"model": "one/m", "max_tokens": 50, "messages": [{"role": "user", "content": MARKER}]}
        fields: dict[str, Any] = {"stream": True, "body": body, "caller": caller, "body_bytes": 80, **values}
        fields["targets"] = Catalog(CATALOGUE, self.settings).resolve("one/m", fields["caller"])
        return Call(ids.new_id(), "rq", "/v1/chat/completions", "chat", "one/m", **fields)

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
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
        dialect=of.format,
        provider="one",
        model_served="m",
        status=200,
        outcome="ok",
        input_tokens=3,
        output_tokens=4,
        cost_nanousd=cost,
        latency_ms=1,
    )


def test_a_call_of_a_dead_worker_gets_one_aborted_row_with_its_last_known_tokens(rig: Rig) -> None:
    dead, alive, third = rig.worker(), rig.worker(), rig.worker()
    assert dead.reconciler.rebuild(at_once=True) == 1
    call = rig.call()
    admitted = dead.admit(call, seen=12)
    assert rig.balances()[1] > 50 * 10_000
    dead.reconciler.reconcile()  # renews the lease with what was seen; then the worker is killed
    alive.reconciler.reconcile()
    assert rig.balances()[1] > 0  # its lease has not expired
    rig.expire()
    alive.reconciler.reconcile()
    third.reconciler.reconcile()
    (row,) = rig.rows()
    assert (row["id"], row["outcome"], row["status"], row["error_type"]) == (call.id, "aborted", 500, "worker_lost")
    assert (row["input_tokens"], row["output_tokens"], row["usage_exact"]) == (20, 12, False)
    assert (row["key_id"], row["org"], row["user"], row["stream"]) == ("k", "o", "u", True)
    assert (row["provider"], row["model_served"], row["attempts"]) == ("one", "m", row["attempts"])
    assert row["cost_nanousd"] == 20 * 1_000 + 12 * 10_000
    assert rig.balances() == (row["cost_nanousd"], 0)
    assert MARKER not in repr(row)
    # If the worker was only slow, its own settlement has no effect, and its row is not written a second time.
    assert dead.settle(admitted, record(call, 999)) is None
    assert rig.balances() == (row["cost_nanousd"], 0) and len(rig.rows()) == 1


def test_a_row_lost_between_its_settlement_and_its_commit_is_written_by_another_worker(rig: Rig) -> None:
    dead, alive = rig.worker(), rig.worker()
    dead.reconciler.rebuild(at_once=True)
    call = rig.call()
    ours = dead.settle(dead.admit(call), record(call, 70_000))
    assert ours is not None and rig.balances() == (70_000, 0)  # then the worker dies, with its row
    alive.reconciler.reconcile()
    assert rig.rows() == []  # its worker may still be writing it
    for name in rig.redis.zrange("{llm}:settled_at", 0, -1):
        rig.redis.zadd("{llm}:settled_at", {name: int(time.time() * 1000) - 11_000})
    alive.reconciler.reconcile()
    (row,) = rig.rows()
    assert (row["id"], row["cost_nanousd"], row["outcome"]) == (call.id, 70_000, "ok")
    assert row["created_at"] == ours.created_at
    alive.reconciler.reconcile()
    assert rig.redis.hlen("{llm}:unwritten") == 0
    assert len(rig.rows()) == 1 and rig.balances() == (70_000, 0)


def test_a_call_that_holds_nothing_is_settled_with_its_row(rig: Rig) -> None:
    worker = rig.worker()
    call = rig.call(caller=Caller("k"))
    admitted = worker.admit(call)
    assert rig.redis.zcard("{llm}:leases") == 1
    ours = worker.settle(admitted, record(call, 5))
    assert ours is not None and rig.redis.zcard("{llm}:leases") == 1  # the caller gets its answer without a round trip
    rig.workers[0].writer.put(ours.row())
    rig.flush()
    wait_until(lambda: rig.redis.zcard("{llm}:leases") == 0, 5, "the call is settled")
    assert [row["id"] for row in rig.rows()] == [call.id]


def test_if_its_worker_dies_before_the_row_is_durable_the_reaper_writes_one(rig: Rig) -> None:
    dead, alive = rig.worker(), rig.worker()
    call = rig.call(caller=Caller("k"))
    # It dies after the settlement, with its row.
    assert dead.settle(dead.admit(call, seen=2), record(call, 5)) is not None
    rig.expire()
    alive.reconciler.reconcile()
    (row,) = rig.rows()
    assert (row["id"], row["outcome"]) == (call.id, "aborted")
    assert rig.redis.zcard("{llm}:leases") == 0


def test_a_call_is_settled_even_if_the_writer_did_not_accept_its_row(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_service.billing.reconciler.LATE_SECONDS", 0.0)
    worker = rig.worker()
    call = rig.call(caller=Caller("k"))
    assert worker.settle(worker.admit(call), record(call, 5)) is not None
    worker.reconciler.reconcile()
    assert rig.redis.zcard("{llm}:leases") == 0


def test_a_row_that_is_in_the_log_wins_over_the_reaper(rig: Rig) -> None:
    dead, alive = rig.worker(), rig.worker()
    dead.reconciler.rebuild(at_once=True)
    call = rig.call()
    dead.admit(call)
    # Redis was unavailable when the worker settled, and the worker died after the commit of its row.
    rig.workers[0].writer.put(record(call, 30_000).row())
    rig.flush()
    rig.expire()
    alive.reconciler.reconcile()
    (row,) = rig.rows()
    assert (row["outcome"], row["cost_nanousd"]) == ("ok", 30_000)
    assert rig.balances() == (30_000, 0)


def test_counters_that_redis_lost_are_rebuilt_from_the_log(rig: Rig) -> None:
    worker = rig.worker()
    worker.reconciler.rebuild(at_once=True)
    for cost in (100, 20, 3):
        call = rig.call()
        ours = worker.settle(worker.admit(call), record(call, cost))
        assert ours is not None
        worker.writer.put(ours.row())
    rig.flush()
    live = rig.call()
    worker.admit(live)
    held = rig.balances()[1]
    rig.redis.flushdb()
    assert worker.reconciler.state == "closed"
    with pytest.raises(Unavailable):
        worker.admit(rig.call())
    worker.reconciler.reconcile()
    assert worker.reconciler.state == "ok"
    assert rig.balances() == (123, held)  # the running call is held again
    assert worker.reconciler.balances(rig.budget) == (123, held)


def test_a_rebuild_counts_every_kind_of_budget_in_its_period(rig: Rig) -> None:
    worker = rig.worker()
    with rig.app.app_context():
        weekly = budgets.put("org", "o", 10**9, "week")
        model = budgets.put("service", "", 10**9, "day", "one/*")
    rows = [record(rig.call(), 5).row() | {"org": "o"}, record(rig.call(), 6).row() | {"provider": "two"}]
    for row in rows:
        rig.workers[0].writer.put(row)
    rig.flush()
    assert worker.reconciler.rebuild(at_once=True) == 3
    assert [worker.reconciler.balances(item) for item in (rig.budget, weekly, model)] == [(11, 0), (5, 0), (5, 0)]


def test_a_lowered_budget_rejects_calls_with_nothing_left(rig: Rig) -> None:
    worker = rig.worker()
    rig.workers[0].writer.put(record(rig.call(), 5_000).row())
    rig.flush()
    worker.reconciler.rebuild(at_once=True)
    lowered: Budget = replace(rig.budget, amount_nanousd=10)
    with pytest.raises(BudgetExceeded) as rejected:
        worker.admit(rig.call(caller=Caller("k", budgets=(lowered,))))
    assert rejected.value.limit is not None and rejected.value.limit.remaining == 0
    assert rig.balances() == (5_000, 0)


def test_a_lost_call_of_a_model_without_a_price_costs_what_was_held(rig: Rig) -> None:
    dead = rig.worker()
    dead.reconciler.rebuild(at_once=True)
    dead.admit(rig.call())
    held = rig.balances()[1]
    rig.expire()
    later = rig.worker()
    later.reconciler._catalog = Catalog({"providers": {}}, rig.settings)
    later.reconciler.reconcile()
    (row,) = rig.rows()
    assert row["cost_nanousd"] == held and rig.balances() == (held, 0)
    assert held < ledger.MAX_AMOUNT


def test_a_hold_that_cannot_be_read_does_not_stop_the_settlement_of_others(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    dead, alive = rig.worker(), rig.worker()
    dead.reconciler.rebuild(at_once=True)
    strange, sound = rig.call(), rig.call()
    for call in (strange, sound):
        dead.admit(call)
    rig.redis.hset(f"{{llm}}:hold:{strange.id}", "record", b'{"of": "another version"}')
    rig.expire()
    alive.reconciler.reconcile()
    assert [row["id"] for row in rig.rows()] == [sound.id]
    assert f"call {strange.id} of a dead worker cannot be settled (KeyError)" in caplog.text


def test_after_the_end_no_call_starts_the_reconciler_again(rig: Rig) -> None:
    worker = rig.worker()
    worker.admission.subscribe(worker.reconciler.start)
    worker.reconciler.close()
    worker.admit(rig.call(caller=Caller("k")))
    assert worker.reconciler._background.own() is None
