"""Budgets over real sockets: a call that does not fit is rejected and never shortened; unused money comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from llm_service.store import budgets
from tests.api.budget_helpers import (
    ANTHROPIC,
    CHAT,
    MESSAGES,
    OPENAI,
    UNPRICED,
    Counters,
    body,
    cost_of,
    key_with_budget,
    set_budget,
    store_context,
    upper_bound_of,
)
from tests.api.error_shapes import ROUTES, read_error, shape_of
from tests.support.server import Server
from tests.support.sse import read_sse
from tests.support.wait import wait_until
from tests.upstream import Step, Upstream

HELLO: Any = [{"role": "user", "content": "Say something."}]


@pytest.fixture(autouse=True)
def all_steps_are_used(upstream: Upstream) -> Iterator[None]:
    """Every step that a test has scripted must have been used."""
    yield
    assert upstream.unused_steps == []


# ---- rejected calls


def test_a_call_is_admitted_to_the_nanodollar_and_what_it_did_not_use_can_be_spent(
    any_priced: Server, upstream: Upstream
) -> None:
    upper_bound = upper_bound_of(any_priced)
    assert upstream.requests == []
    short = any_priced.http(key_with_budget(any_priced, upper_bound - 1).text).post("/v1/complete", json=body())
    assert (short.status_code, upstream.requests) == (402, [])

    issued = key_with_budget(any_priced, upper_bound + 20_000)
    client, scope = any_priced.http(issued.text), f"key:{issued.stored.id}"
    upstream.script(Step(text="yes", input_tokens=10), Step(text="no", input_tokens=10))
    spent = 0
    for _ in range(2):
        reply = client.post("/v1/complete", json=body())
        assert reply.status_code == 200
        assert upstream.last.body["max_completion_tokens"] == 10  # the limit is never lowered
        row = any_priced.row(reply.headers["x-request-id"])
        assert row["cost_nanousd"] == cost_of(row) == 20_000
        spent += row["cost_nanousd"]
        assert Counters(any_priced).settled(scope) == spent
    rejected = client.post("/v1/complete", json=body())
    assert read_error("simple", rejected)[0] == "budget_exceeded" and len(upstream.requests) == 2
    row = any_priced.row(rejected.headers["x-request-id"])
    assert (row["status"], row["outcome"], row["cost_nanousd"]) == (402, "refused", 0)
    assert (row["error_type"], row["attempts"]) == ("budget_exceeded", 0)
    shown = client.get("/v1/key").json()["budgets"]
    assert [(item["spent_usd"], item["scope"], item["per"]) for item in shown] == [(40_000 / 1e9, "key", "total")]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_rejection_has_its_status_before_the_first_byte_and_the_shape_of_its_format(
    priced: Server, upstream: Upstream, path: str, stream: bool
) -> None:
    reply = priced.http(key_with_budget(priced, 1_000, "day").text).post(path, json=body(stream=stream))
    shape = shape_of(path)
    code, message, _ = read_error(shape, reply)
    assert reply.status_code == (429 if shape == "chat" else 402)
    assert code == ("insufficient_quota" if shape == "chat" else "budget_exceeded")
    assert message.startswith(
        "The daily budget of this API key does not cover this call: $0.000001 of $0.000001 is left,"
    )
    assert "the call may cost up to $0.000" in message and "It renews at 20" in message
    # The budget of a whole day is too small for the call, so waiting does not help.
    assert "retry-after" not in reply.headers
    policy, state = reply.headers["ratelimit-policy"], reply.headers["ratelimit"]
    assert policy == '"budget";q=1000' and state.startswith('"budget";r=1000;t=')
    assert 0 < int(state.rpartition("=")[2]) <= 25 * 3600
    assert not [name for name in reply.headers if name.startswith(("x-ratelimit", "anthropic-ratelimit"))]
    assert upstream.requests == []


def test_retry_after_is_the_time_until_the_renewal_where_waiting_helps(priced: Server) -> None:
    upper_bound = upper_bound_of(priced)
    issued = key_with_budget(priced, upper_bound, "day")
    client = priced.http(issued.text)
    assert client.post("/v1/complete", json=body()).status_code == 200
    rejected = client.post("/v1/complete", json=body())
    assert rejected.status_code == 402
    assert 0 < int(rejected.headers["retry-after"]) <= 25 * 3600
    assert rejected.headers["ratelimit"].endswith(f"t={rejected.headers['retry-after']}")
    never = priced.http(key_with_budget(priced, 0).text).post("/v1/complete", json=body())
    assert "It does not renew by itself." in never.json()["detail"]
    assert "retry-after" not in never.headers and never.headers["ratelimit"] == '"budget";r=0'


def test_the_official_clients_raise_their_own_errors_for_budgets(priced: Server) -> None:
    key = key_with_budget(priced, 1).text
    for stream in (False, True):
        with pytest.raises(openai.RateLimitError) as openai_error:
            priced.openai(key).chat.completions.create(model=OPENAI, max_tokens=5, messages=HELLO, stream=stream)
        assert (openai_error.value.code, openai_error.value.type) == ("insufficient_quota", "insufficient_quota")
        with pytest.raises(anthropic.PaymentRequiredError) as anthropic_error:
            priced.anthropic(key).messages.create(model=ANTHROPIC, max_tokens=5, messages=HELLO, stream=stream)
        assert anthropic_error.value.type == "billing_error"
        assert anthropic_error.value.status_code == 402


@pytest.mark.parametrize("kind", ["user", "org", "service"])
def test_a_rejection_names_the_scope_of_the_budget(any_priced: Server, upstream: Upstream, kind: str) -> None:
    name = "" if kind == "service" else f"a {kind}: 100%"
    issued = key_with_budget(any_priced, 10**12, user="a user: 100%", org="an org: 100%")
    name = {"user": "a user: 100%", "org": "an org: 100%"}.get(kind, "")
    budget = set_budget(any_priced, kind, name, 5, "week")
    try:
        rejected = any_priced.http(issued.text).post("/v1/complete", json=body())
    finally:
        with store_context(any_priced):
            budgets.remove(budget)
    scope = {"user": "this key's user", "org": "this key's organisation", "service": "the whole service"}[kind]
    start = f"The weekly budget of {scope} does not cover this call: $0.000000005 of"
    assert rejected.json()["detail"].startswith(start)
    (line,) = any_priced.log_lines(request_id=rejected.headers["x-request-id"], message="call")
    assert line["limit"] == f"budget/{kind}"
    # All or nothing: the key's own budget had room, but it holds nothing.
    assert Counters(any_priced).money(f"key:{issued.stored.id}") == (0, 0)
    assert upstream.requests == []


def test_a_call_rejected_by_the_ledger_does_not_count_as_a_request(any_priced: Server) -> None:
    issued = key_with_budget(any_priced, 10, rpm=3)
    client = any_priced.http(issued.text)
    for _ in range(8):
        assert client.post("/v1/complete", json=body()).status_code == 402
    assert client.get("/v1/key").json()["requests_per_minute"]["remaining"] == 3


def test_a_model_s_budget_counts_only_calls_that_this_model_served(any_priced: Server, upstream: Upstream) -> None:
    issued = key_with_budget(any_priced, 10**12)
    key, counters = issued.stored.id, Counters(any_priced)
    set_budget(any_priced, "key", key, 10**11, model=f"openai/{OPENAI}*")
    upstream.script(Step(status=500, path="completions"), Step(status=500, path="completions"), Step(text="fallback"))
    reply = any_priced.http(issued.text).post("/v1/complete", json=body("both"))
    row = any_priced.row(reply.headers["x-request-id"])
    assert (row["provider"], row["attempts"]) == ("anthropic", 3)
    assert counters.settled(f"model:{key}:openai/{OPENAI}*") == 0
    assert counters.settled(f"key:{key}") == row["cost_nanousd"] == cost_of(row, ANTHROPIC)
    reply = any_priced.http(issued.text).post("/v1/complete", json=body("both"))
    second = any_priced.row(reply.headers["x-request-id"])
    assert second["provider"] == "openai" and second["model_served"] != OPENAI  # the vendor adds a date
    assert counters.settled(f"model:{key}:openai/{OPENAI}*") == second["cost_nanousd"]
    assert counters.settled(f"key:{key}") == row["cost_nanousd"] + second["cost_nanousd"]


# ---- the upper bound of a call


@pytest.mark.parametrize(
    ("path", "model", "field", "limit"),
    [
        (CHAT, OPENAI, "max_completion_tokens", 100),
        (MESSAGES, ANTHROPIC, "max_tokens", 50),
        ("/v1/complete", OPENAI, "max_completion_tokens", 100),
        ("/v1/complete", ANTHROPIC, "max_tokens", 50),
        (CHAT, ANTHROPIC, "max_tokens", 50),
        (CHAT, "both", "max_completion_tokens", 50),  # the same body may be sent to either target
    ],
)
def test_a_call_without_an_output_limit_gets_the_model_s_and_is_otherwise_unchanged(
    priced: Server, upstream: Upstream, path: str, model: str, field: str, limit: int
) -> None:
    request = body(model, max_tokens=50 if path == MESSAGES else ...)
    free, paid = priced.create_key(), key_with_budget(priced, 10**12)
    rows = []
    for key in (free, paid):
        reply = priced.http(key.text).post(path, json=request)
        assert reply.status_code == 200
        rows.append(priced.row(reply.headers["x-request-id"]))
    before, after = (json.loads(seen.raw) for seen in upstream.requests)
    assert after.pop(field) == limit
    before.pop(field, None)
    assert before == after
    assert rows[0]["prompt_hmac"] == rows[1]["prompt_hmac"]


def test_the_client_s_own_output_limit_is_sent_unchanged(priced: Server, upstream: Upstream) -> None:
    client = priced.http(key_with_budget(priced, 10**12).text)
    assert client.post(CHAT, json=body(max_tokens=7)).status_code == 200
    assert {name: upstream.last.body.get(name) for name in ("max_tokens", "max_completion_tokens")} == {
        "max_tokens": 7,
        "max_completion_tokens": None,
    }


def test_a_key_with_a_budget_may_not_use_a_model_without_a_price(priced: Server, upstream: Upstream) -> None:
    for path in (CHAT, "/v1/complete"):
        reply = priced.http(key_with_budget(priced, 10**12).text).post(path, json=body(UNPRICED))
        assert reply.status_code == 403
        code, message, field = read_error(shape_of(path), reply)
        assert (code, field) == ("model_without_price", "model") and UNPRICED in message
    assert upstream.requests == []
    assert priced.http(priced.create_key().text).post(CHAT, json=body(UNPRICED)).status_code == 200


@pytest.mark.parametrize(
    ("path", "model", "fields", "param"),
    [
        (CHAT, OPENAI, {"web_search_options": {}}, "web_search_options"),
        (MESSAGES, ANTHROPIC, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    ],
)
def test_a_field_whose_cost_has_no_upper_bound_is_rejected_by_its_name(
    priced: Server, upstream: Upstream, path: str, model: str, fields: dict[str, Any], param: str
) -> None:
    reply = priced.http(key_with_budget(priced, 10**12).text).post(path, json=body(model, **fields))
    assert reply.status_code == 400
    assert upstream.requests == []
    assert read_error(shape_of(path), reply)[2] == param


# ---- budgets that change while the service runs


def rejected_within(seconds: float, client: Any) -> Any:
    """The first rejected reply, which must come within this time."""
    replies: list[Any] = []

    def is_rejected() -> bool:
        replies.append(client.post("/v1/complete", json=body()))
        return bool(replies[-1].status_code == 402)

    wait_until(is_rejected, seconds, "the new amount applies", 0.1)
    return replies[-1]


def test_a_budget_below_what_is_spent_rejects_calls_and_shows_zero_left(any_priced: Server) -> None:
    issued = key_with_budget(any_priced, 10**12)
    client = any_priced.http(issued.text)
    assert client.post("/v1/complete", json=body()).status_code == 200
    set_budget(any_priced, "key", issued.stored.id, 100)
    rejected = rejected_within(3.0, client)
    assert "$0.00 of $0.0000001 is left" in rejected.json()["detail"]
    assert rejected.headers["ratelimit"] == '"budget";r=0'
    assert client.get("/v1/key").json()["budgets"][0]["left_usd"] == 0
    assert Counters(any_priced).money(f"key:{issued.stored.id}")[0] > 100


def test_a_new_budget_applies_within_seconds_and_counts_what_was_spent_before(any_priced: Server) -> None:
    issued = any_priced.create_key()
    client = any_priced.http(issued.text)
    reply = client.post("/v1/complete", json=body())
    cost = any_priced.row(reply.headers["x-request-id"])["cost_nanousd"]
    assert cost > 0
    any_priced.cli("budgets", "set", "--key", issued.stored.id, "--amount", "0.000001")
    assert "$0.00 of $0.000001 is left" in rejected_within(4.0, client).text


def test_the_budget_of_a_new_tier_counts_what_was_spent_before(priced: Server) -> None:
    issued = priced.create_key()
    scope = f"key:{issued.stored.id}"
    reply = priced.http(issued.text).post("/v1/complete", json=body())
    cost = priced.row(reply.headers["x-request-id"])["cost_nanousd"]
    assert cost > 0 and Counters(priced).money(scope) == (0, 0)
    priced.cli("keys", "update", issued.stored.id, "--tier", "capped")
    assert Counters(priced).money(scope) == (cost, 0)
    # The key's own budget replaces the tier's. Without it the tier's applies again, with everything that was spent.
    priced.cli("keys", "update", issued.stored.id, "--budget", "5", "--per", "month")
    time.sleep(1.5)
    reply = priced.http(issued.text).post("/v1/complete", json=body())
    cost += priced.row(reply.headers["x-request-id"])["cost_nanousd"]
    priced.cli("keys", "update", issued.stored.id, "--budget", "none")
    assert Counters(priced).money(scope) == (cost, 0)


# ---- callers that disconnect


@pytest.mark.parametrize(("path", "model"), [("/v1/stream", OPENAI), (CHAT, OPENAI), (MESSAGES, ANTHROPIC)])
def test_a_caller_that_disconnects_from_a_stream_pays_for_what_was_produced(
    priced: Server, upstream: Upstream, path: str, model: str
) -> None:
    fields: Any = {"model": model, "max_tokens": 1_000, "stream": path != "/v1/stream" or ...}
    upper_bound = upper_bound_of(priced, path, **fields)
    issued = key_with_budget(priced, upper_bound)
    upstream.script(Step(words=400, between=0.02))
    with priced.http(issued.text).stream("POST", path, json=body(**fields)) as reply:
        assert reply.status_code == 200
        frames = read_sse(reply)
        for _ in range(12):
            next(frames)
        assert Counters(priced).money(f"key:{issued.stored.id}") == (0, upper_bound)
    row = priced.row(reply.headers["x-request-id"])
    assert (row["outcome"], row["usage_exact"]) == ("client_closed", False)
    assert row["output_tokens"] > 0 and row["input_tokens"] > 0
    assert Counters(priced).settled(f"key:{issued.stored.id}") == row["cost_nanousd"] == cost_of(row, model)
    assert 0 < row["cost_nanousd"] < upper_bound // 2
    (seen,) = upstream.wait_closed()
    assert seen.events_sent < 200
