"""Budgets while Redis is unreachable, empty or back: closed or open as configured, and nothing is counted twice."""

from __future__ import annotations

import time

from tests.api.budget_helpers import CATALOGUE, Counters, body, key_with_budget, wait_for_counters
from tests.conftest import MakeService
from tests.support.server import Server
from tests.support.valkey import Valkey
from tests.support.wait import wait_until
from tests.upstream import Upstream

MAX_WAIT = 1.0  # seconds: enough for a busy machine, and shorter than a time-out of Redis


def budgets_are(service: Server, state: str) -> bool:
    return bool(service.http(key="").get("/ready").json()["budgets"] == state)


def sum_of(service: Server, key_id: str) -> int:
    return sum(row["cost_nanousd"] for row in service.rows(key_id=key_id))


def test_closed_mode_rejects_only_keys_with_budgets(
    make_service: MakeService, own_valkey: Valkey, upstream: Upstream
) -> None:
    service = make_service(models=CATALOGUE, redis=own_valkey.fresh_url())
    wait_for_counters(service)
    with_budget, without_budget = key_with_budget(service, 10**12), service.create_key()
    assert service.http(with_budget.text).post("/v1/complete", json=body()).status_code == 200
    own_valkey.stop()
    service.http(with_budget.text).post("/v1/complete", json=body())  # this call notices that Redis is gone
    asked = len(upstream.requests)
    for path in ("/v1/complete", "/v1/stream", "/v1/chat/completions", "/v1/messages"):
        began = time.monotonic()
        rejected = service.http(with_budget.text).post(path, json=body())
        assert (rejected.status_code, time.monotonic() - began < MAX_WAIT) == (503, True)
        assert "budget" in rejected.text and int(rejected.headers["retry-after"]) >= 1
    assert len(upstream.requests) == asked
    assert service.http(without_budget.text).post("/v1/complete", json=body()).status_code == 200
    assert budgets_are(service, "closed")
    assert service.http(key="").get("/ready").status_code == 200

    own_valkey.start()  # it is empty, because it saves nothing
    wait_until(lambda: budgets_are(service, "ok"), 15, "the counters are built again", 0.1)
    assert service.http(with_budget.text).post("/v1/complete", json=body()).status_code == 200
    service.wait_rows(2, key_id=with_budget.stored.id, outcome="ok")
    spent = Counters(service).settled(f"key:{with_budget.stored.id}")
    assert spent == sum_of(service, with_budget.stored.id) > 0

    # A call that is rejected because the counters are missing does not count as a request either.
    limited_client = service.http(key_with_budget(service, 10**12, rpm=2).text)
    Counters(service).redis.delete("{llm}:epoch")
    assert [limited_client.post("/v1/complete", json=body()).status_code for _ in range(4)] == [503] * 4
    assert limited_client.get("/v1/key").json()["requests_per_minute"]["remaining"] == 2


def test_open_mode_serves_and_counts_every_call_once_when_redis_is_back(
    make_service: MakeService, own_valkey: Valkey, upstream: Upstream
) -> None:
    service = make_service(
        models=CATALOGUE, redis=own_valkey.fresh_url(), LLM_SERVICE_MONEY_WITHOUT_REDIS="open", WEB_CONCURRENCY="2"
    )
    wait_for_counters(service)
    issued = key_with_budget(service, 10**12)
    client, scope = service.http(issued.text), f"key:{issued.stored.id}"
    assert client.post("/v1/complete", json=body()).status_code == 200
    own_valkey.freeze()  # it keeps its data
    try:
        for _ in range(4):
            assert client.post("/v1/complete", json=body()).status_code == 200
        assert budgets_are(service, "open")
    finally:
        own_valkey.thaw()
    service.wait_rows(5, key_id=issued.stored.id)
    total = sum_of(service, issued.stored.id)
    counters = Counters(service)
    wait_until(lambda: counters.money(scope) == (total, 0), 15, "the calls made without Redis are counted", 0.1)
    assert client.post("/v1/complete", json=body()).status_code == 200
    service.wait_rows(6, key_id=issued.stored.id)
    total = sum_of(service, issued.stored.id)
    wait_until(lambda: counters.money(scope) == (total, 0), 5, "the next call is counted once", 0.1)
    time.sleep(2.5)  # long enough for one round of the reconciler
    assert counters.money(scope) == (total, 0)

    # If Redis is emptied while it runs, the counters are built again: by the service itself, and by the command.
    counters.redis.flushdb()
    wait_until(lambda: counters.money(scope) == (total, 0), 15, "the counters are built from the log", 0.1)
    counters.redis.hset(f"{{llm}}:money:total|{scope}", "spent", "1")
    service.cli("budgets", "rebuild")
    assert counters.money(scope) == (total, 0)
    assert not service.log_lines(level="ERROR")
