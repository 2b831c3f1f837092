"""Requests per minute: exact across workers, reported in each format's own headers, and limited without Redis too."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from llm_service import create_app
from llm_service.settings import Settings
from llm_service.store import keys
from tests.api.budget_helpers import store_context
from tests.api.conftest import ANONYMOUS_RPM
from tests.api.error_shapes import read_error, valid_body
from tests.conftest import MakeService
from tests.support.raw import Raw
from tests.support.server import HIGH_RPM, Server
from tests.support.valkey import Valkey
from tests.support.wait import wait_until
from tests.upstream import Upstream

CHANGE_SEEN_WITHIN = 2.0  # seconds until every worker uses a changed key


def at_once(service: Server, key: str, count: int) -> list[int]:
    """The statuses of ``count`` requests that are sent at the same time, each over its own connection."""
    with ExitStack() as stack:
        connections = [stack.enter_context(service.raw()) for _ in range(count)]
        ready = threading.Barrier(count)

        def ask(raw: Raw) -> int:
            ready.wait(10)
            raw.request("POST", "/v1/complete", valid_body(), key)
            return raw.read_reply().status

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(ask, connections))


def ask(service: Server, key: str, path: str = "/v1/complete", **headers: str) -> Any:
    return service.http(key).post(path, json=valid_body(), headers=headers)


# ---- exactness


def test_exactly_the_allowed_number_of_forty_requests_is_answered_by_two_workers(service: Server) -> None:
    issued = service.create_key(rpm=7)
    statuses = at_once(service, issued.text, 40)
    assert sorted(statuses) == [200] * 7 + [429] * 33
    rows = service.wait_rows(40, key_id=issued.stored.id)
    assert len(rows) == 40
    assert sorted(row["outcome"] for row in rows) == ["ok"] * 7 + ["refused"] * 33
    assert {row["error_type"] for row in rows if row["status"] == 429} == {"rate_limit_exceeded"}
    # The test proves something only if both workers served. 40 connections never all go to the same one of two.
    assert len(service.workers()) == 2


def test_the_window_slides_with_each_request(service: Server) -> None:
    issued = service.create_key(rpm=3)
    assert [ask(service, issued.text).status_code for _ in range(2)] == [200, 200]
    first = time.monotonic()
    time.sleep(1.1)
    assert ask(service, issued.text).status_code == 200
    rejected = ask(service, issued.text)
    assert rejected.status_code == 429
    # The next request is allowed when the first one is a minute old: not a minute from now, nor at a full minute.
    left = 60 - (time.monotonic() - first)
    assert abs(int(rejected.headers["retry-after"]) - left) <= 1
    account = service.http(issued.text).get("/v1/key").json()["requests_per_minute"]
    assert (account["limit"], account["remaining"]) == (3, 0)
    assert abs(account["reset_seconds"] - left) <= 1


def test_an_answer_reports_what_is_left_of_the_tightest_limit(service: Server) -> None:
    issued = service.create_key(rpm=4)
    answers = [ask(service, issued.text).headers for _ in range(4)]
    assert [headers["ratelimit-policy"] for headers in answers] == ['"requests";q=4;w=60'] * 4
    matches = [re.fullmatch(r'"requests";r=(\d);t=(\d+)', headers["ratelimit"]) for headers in answers]
    assert [int(match[1]) for match in matches if match] == [3, 2, 1, 0]
    assert all(50 <= int(match[2]) <= 60 for match in matches if match)
    with service.http(issued.text).stream("POST", "/v1/stream", json=valid_body()) as rejected:
        assert rejected.headers["ratelimit"].startswith('"requests";r=0;t=')
    account = service.http(issued.text).get("/v1/key").json()["requests_per_minute"]
    assert (account["limit"], account["remaining"]) == (4, 0)


def test_rejected_requests_do_not_count(service: Server) -> None:
    issued = service.create_key(rpm=2)
    assert [ask(service, issued.text).status_code for _ in range(6)] == [200, 200, 429, 429, 429, 429]
    with store_context(service):
        keys.change(issued.stored.id, {"rpm": 5})
    wait_until(lambda: ask(service, issued.text).status_code == 200, CHANGE_SEEN_WITHIN, "the new limit applies", 0.1)


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({}, 60),
        ({"tier": "high"}, 1000),
        ({"tier": "gone"}, 60),
        ({"tier": "high", "rpm": 5}, 5),
        ({"rpm": HIGH_RPM}, HIGH_RPM),
    ],
)
def test_a_key_has_its_own_limit_or_that_of_its_tier(service: Server, options: dict[str, Any], limit: int) -> None:
    client = service.http(service.create_key(**options).text)
    assert client.post("/v1/complete", json=valid_body()).status_code == 200
    account = client.get("/v1/key").json()["requests_per_minute"]
    assert (account["limit"], account["remaining"]) == (limit, limit - 1)


def test_requests_for_one_s_own_account_do_not_count(service: Server) -> None:
    client = service.http(service.create_key(rpm=1).text)
    assert client.post("/v1/complete", json=valid_body()).status_code == 200
    for path in ("/v1/key", "/v1/usage", "/v1/models", "/v1/models/echo/echo") * 2:
        assert client.get(path).status_code == 200
    assert client.post("/v1/complete", json=valid_body()).status_code == 429


def test_requests_with_bad_input_count_too(service: Server) -> None:
    client = service.http(service.create_key(rpm=2).text)
    assert [client.post("/v1/complete", content=b"{").status_code for _ in range(3)] == [400, 400, 429]


# ---- how a rejection is reported


def test_a_rejection_has_every_header_of_its_format(service: Server) -> None:
    issued = service.create_key(rpm=1)
    assert ask(service, issued.text).status_code == 200
    for path, shape in [
        ("/v1/complete", "simple"),
        ("/v1/stream", "simple"),
        ("/v1/chat/completions", "chat"),
        ("/v1/messages", "messages"),
    ]:
        reply = ask(service, issued.text, path)
        assert reply.status_code == 429
        code, message, _ = read_error(shape, reply)
        assert code == "rate_limit_exceeded" and "1 requests per minute" in message
        headers = reply.headers
        seconds = int(headers["retry-after"])
        assert 55 <= seconds <= 60 and headers["retry-after"] == str(seconds)
        assert headers["ratelimit-policy"] == '"requests";q=1;w=60'
        assert headers["ratelimit"] == f'"requests";r=0;t={seconds}'
        own = {name: value for name, value in headers.items() if name.startswith(("x-ratelimit", "anthropic-"))}
        if shape == "chat":
            assert own.pop("x-ratelimit-reset-requests") == ("1m0s" if seconds == 60 else f"{seconds}s")
            assert own == {"x-ratelimit-limit-requests": "1", "x-ratelimit-remaining-requests": "0"}
            assert reply.json()["error"]["type"] == "requests"
        elif shape == "messages":
            reset = own.pop("anthropic-ratelimit-requests-reset")
            until = datetime.strptime(reset, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) - datetime.now(UTC)
            assert abs(until.total_seconds() - seconds) < 2
            assert own == {"anthropic-ratelimit-requests-limit": "1", "anthropic-ratelimit-requests-remaining": "0"}
            assert reply.json()["error"]["type"] == "rate_limit_error"
        else:
            assert own == {}
        assert "x-should-retry" not in headers  # waiting helps, and retry-after says how long


def test_the_official_clients_raise_their_rate_limit_error(service: Server) -> None:
    key = service.create_key(rpm=1).text
    hello: Any = [{"role": "user", "content": "Hi"}]
    ask(service, key)
    with pytest.raises(openai.RateLimitError) as openai_error:
        service.openai(key).chat.completions.create(model="echo", messages=hello)
    assert (openai_error.value.code, openai_error.value.type) == ("rate_limit_exceeded", "requests")
    with pytest.raises(anthropic.RateLimitError) as anthropic_error:
        service.anthropic(key).messages.create(model="echo", max_tokens=5, messages=hello)
    assert anthropic_error.value.type == "rate_limit_error"


def test_a_rejection_is_logged_with_its_key_and_limit(service: Server) -> None:
    issued = service.create_key(rpm=1, org="o", user="u")
    ask(service, issued.text)
    reply = ask(service, issued.text, "/v1/messages")
    row = service.row(reply.headers["x-request-id"])
    assert (row["key_id"], row["org"], row["user"]) == (issued.stored.id, "o", "u")
    assert (row["status"], row["outcome"], row["error_type"]) == (429, "refused", "rate_limit_exceeded")
    assert (row["route"], row["input_tokens"], row["cost_nanousd"]) == ("/v1/messages", 0, 0)
    (line,) = service.log_lines(request_id=reply.headers["x-request-id"], message="call")
    assert (line["key_id"], line["limit"]) == (issued.stored.id, "requests/key")


# ---- without a key


def test_an_address_without_a_valid_key_has_a_limit_of_its_own(strict: Server) -> None:
    def ask_from(address: str, key: str = "wrong") -> Any:
        return ask(strict, key, "/v1/chat/completions", **{"X-Forwarded-For": f"203.0.113.200, {address}"})

    good = strict.key
    statuses = [ask_from("203.0.113.1").status_code for _ in range(ANONYMOUS_RPM + 2)]
    assert statuses == [401] * ANONYMOUS_RPM + [429] * 2
    rejected = ask_from("203.0.113.1")
    assert read_error("chat", rejected)[0] == "rate_limit_exceeded"
    assert "without a valid API key" in rejected.json()["error"]["message"]
    assert rejected.headers["ratelimit-policy"] == f'"requests";q={ANONYMOUS_RPM};w=60'
    (line,) = strict.log_lines(request_id=rejected.headers["x-request-id"], message="call")
    assert (line["key_id"], line["limit"]) == (None, "requests/ip")
    assert strict.rows(request_id=rejected.headers["x-request-id"]) == []  # no row, or anybody could fill the database
    assert ask_from("203.0.113.1", good).status_code == 200  # a caller with a key is not limited
    assert ask_from("203.0.113.2").status_code == 401  # nor is another address
    assert strict.http(key="").get("/health", headers={"X-Forwarded-For": "203.0.113.1"}).status_code == 200


def test_only_the_trusted_proxy_s_address_counts(strict: Server) -> None:
    for number in range(ANONYMOUS_RPM):
        claimed = {"X-Forwarded-For": f"198.51.100.{number}, 203.0.113.3"}
        assert ask(strict, "wrong", **claimed).status_code == 401
    assert ask(strict, "wrong", **{"X-Forwarded-For": "198.51.100.99, 203.0.113.3"}).status_code == 429


def test_the_addresses_of_one_ipv6_network_have_one_limit_without_a_key(strict: Server) -> None:
    def ask_from(address: str) -> int:
        status: int = ask(strict, "wrong", **{"X-Forwarded-For": address}).status_code
        return status

    assert [ask_from(f"[2001:db8:5::{number}]:443") for number in range(ANONYMOUS_RPM)] == [401] * ANONYMOUS_RPM
    assert ask_from("2001:db8:5::ffff:1") == 429
    assert ask_from("2001:db8:5:1::1") == 401  # another network


# ---- without Redis


def test_without_redis_each_worker_answers_at_once_and_allows_a_share_of_the_limit(
    make_service: MakeService, own_valkey: Valkey, upstream: Upstream
) -> None:
    service = make_service(redis=own_valkey.fresh_url(), WEB_CONCURRENCY="2")
    key = service.create_key(rpm=HIGH_RPM).text
    limited_key = service.create_key(rpm=6)
    client = service.http(key)

    def answered_at_once(times: int = 6) -> None:
        for _ in range(times):
            began = time.monotonic()
            reply = service.http(key).post("/v1/complete", json=valid_body())
            assert (reply.status_code, time.monotonic() - began < 3) == (200, True)

    answered_at_once(2)
    own_valkey.stop()
    answered_at_once()
    assert client.get("/ready").json()["redis"] == "unreachable"
    assert client.get("/ready").status_code == 200  # limits work without Redis too
    assert client.get("/v1/key").json()["requests_per_minute"]["remaining"] is None
    statuses = at_once(service, limited_key.text, 24)
    assert 3 <= statuses.count(200) <= 6  # each worker allows half of the limit
    assert statuses.count(200) + statuses.count(429) == 24

    own_valkey.start()

    def counted_together() -> bool:
        """Whether every worker counts in Redis again: only then is the limit exact."""
        issued = service.create_key(rpm=8)
        return sorted(at_once(service, issued.text, 16)) == [200] * 8 + [429] * 8

    wait_until(counted_together, 8, "the limits are exact again", 0.3)
    assert client.get("/ready").json()["redis"] == "ok"

    own_valkey.freeze()  # connections stay open, but nothing is answered
    try:
        answered_at_once()
    finally:
        own_valkey.thaw()
    assert not [line for line in service.log_lines() if line.get("status") == 500]


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
def test_simultaneous_calls_that_are_the_first_to_find_redis_away_are_all_answered(
    make_service: MakeService, own_valkey: Valkey, upstream: Upstream, fault: str
) -> None:
    service = make_service(redis=own_valkey.fresh_url(), WEB_CONCURRENCY="1")
    key = service.create_key(rpm=HIGH_RPM).text
    assert ask(service, key).status_code == 200
    if fault == "stopped":
        own_valkey.stop()
    else:
        own_valkey.freeze()
    try:
        assert at_once(service, key, 24) == [200] * 24
    finally:
        if fault == "frozen":
            own_valkey.thaw()


# ---- start


def test_building_the_application_leaves_no_thread_behind(tmp_path: Path) -> None:
    """A thread would not survive the fork: gunicorn forks its workers from a process that has built the application."""
    before = threading.enumerate()
    create_app(Settings.load({"LLM_SERVICE_INSTANCE": str(tmp_path)}))
    assert threading.enumerate() == before


def test_the_start_is_logged_without_an_error(strict: Server) -> None:
    started = [line for line in strict.log_lines() if re.match("gunicorn", line["logger"])]
    assert started
    assert strict.log_lines(level="ERROR") == []
