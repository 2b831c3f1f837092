"""Budgets while Redis is away, empty or back: closed or open as the operator said, and nothing counted twice."""

from __future__ import annotations

import time

from tests.api.books import CATALOGUE, Counters, body, key_with, wait_built
from tests.conftest import MakeService
from tests.support.server import Server
from tests.support.valkey import Valkey
from tests.support.wait import wait_until
from tests.upstream import Upstream

SLOW = 1.0  # seconds; a machine with other work, and not a time-out of Redis


def budgets_are(service: Server, word: str) -> bool:
    return bool(service.http(key="").get("/ready").json()["budgets"] == word)


def sum_of(service: Server, key_id: str) -> int:
    return sum(row["cost_nanousd"] for row in service.rows(key_id=key_id))


def test_closed_refuses_who_has_a_budget_and_serves_all_others(
    make_service: MakeService, own_valkey: Valkey, upstream: Upstream
) -> None:
    service = make_service(models=CATALOGUE, redis=own_valkey.fresh_url())
    wait_built(service)
    paying, free = key_with(service, 10**12), service.create_key()
    assert service.http(paying.text).post("/v1/complete", json=body()).status_code == 200
    own_valkey.stop()
    service.http(paying.text).post("/v1/complete", json=body())  # finds out
    asked = len(upstream.requests)
    for path in ("/v1/complete", "/v1/stream", "/v1/chat/completions", "/v1/messages"):
        began = time.monotonic()
        refused = service.http(paying.text).post(path, json=body())
        assert (refused.status_code, time.monotonic() - began < SLOW) == (503, True)
        assert "budget" in refused.text and int(refused.headers["retry-after"]) >= 1
    assert len(upstream.requests) == asked
    assert service.http(free.text).post("/v1/complete", json=body()).status_code == 200
    assert budgets_are(service, "closed")
    assert service.http(key="").get("/ready").status_code == 200

    own_valkey.start()  # empty: it kept nothing
    wait_until(lambda: budgets_are(service, "ok"), 15, "the budgets are counted again", 0.1)
    assert service.http(paying.text).post("/v1/complete", json=body()).status_code == 200
    service.wait_rows(2, key_id=paying.stored.id, outcome="ok")
    spent = Counters(service).settled(f"key:{paying.stored.id}")
    assert spent == sum_of(service, paying.stored.id) > 0

    # A refusal for want of counters is no request either.
    few = service.http(key_with(service, 10**12, rpm=2).text)
    Counters(service).redis.delete("{llm}:epoch")
    assert [few.post("/v1/complete", json=body()).status_code for _ in range(4)] == [503] * 4
    assert few.get("/v1/key").json()["requests_per_minute"]["remaining"] == 2


def test_open_serves_and_counts_when_redis_is_back_and_only_once(
    make_service: MakeService, own_valkey: Valkey, upstream: Upstream
) -> None:
    service = make_service(
        models=CATALOGUE, redis=own_valkey.fresh_url(), LLM_SERVICE_MONEY_WITHOUT_REDIS="open", WEB_CONCURRENCY="2"
    )
    wait_built(service)
    issued = key_with(service, 10**12)
    client, scope = service.http(issued.text), f"key:{issued.stored.id}"
    assert client.post("/v1/complete", json=body()).status_code == 200
    own_valkey.freeze()  # it comes back with what it had
    try:
        for _ in range(4):
            assert client.post("/v1/complete", json=body()).status_code == 200
        assert budgets_are(service, "open")
    finally:
        own_valkey.thaw()
    service.wait_rows(5, key_id=issued.stored.id)
    total = sum_of(service, issued.stored.id)
    counters = Counters(service)
    wait_until(lambda: counters.money(scope) == (total, 0), 15, "what was made without Redis is counted", 0.1)
    assert client.post("/v1/complete", json=body()).status_code == 200
    service.wait_rows(6, key_id=issued.stored.id)
    total = sum_of(service, issued.stored.id)
    wait_until(lambda: counters.money(scope) == (total, 0), 5, "and the next one once", 0.1)
    time.sleep(2.5)  # a round of the books
    assert counters.money(scope) == (total, 0)

    # Emptied while it runs: built again by itself, and by hand.
    counters.redis.flushdb()
    wait_until(lambda: counters.money(scope) == (total, 0), 15, "the counters are built from the log", 0.1)
    counters.redis.hset(f"{{llm}}:money:total|{scope}", "spent", "1")
    service.cli("budgets", "rebuild")
    assert counters.money(scope) == (total, 0)
    assert not service.log_lines(level="ERROR")
