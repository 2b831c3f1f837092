"""A budget over real sockets: what does not fit is refused and never shrunk, what was not used comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from llm_service.store import budgets
from tests.api.books import (
    ANTHROPIC,
    CHAT,
    MESSAGES,
    OPENAI,
    UNPRICED,
    Counters,
    body,
    cost_of,
    database,
    key_with,
    set_budget,
    worst_of,
)
from tests.api.shapes import ROUTES, read_error, shape_of
from tests.support.server import Server
from tests.support.sse import read_sse
from tests.support.wait import wait_until
from tests.upstream import Step, Upstream

HELLO: Any = [{"role": "user", "content": "Say something."}]


@pytest.fixture(autouse=True)
def nothing_is_left(upstream: Upstream) -> Iterator[None]:
    """Every test scripts the vendor."""
    yield
    assert upstream.unused_steps == []


# ---- refused


def test_a_call_is_admitted_up_to_the_nanodollar_and_what_it_did_not_use_is_spendable(
    any_books: Server, upstream: Upstream
) -> None:
    worst = worst_of(any_books)
    assert upstream.requests == []
    short = any_books.http(key_with(any_books, worst - 1).text).post("/v1/complete", json=body())
    assert (short.status_code, upstream.requests) == (402, [])

    issued = key_with(any_books, worst + 20_000)
    client, scope = any_books.http(issued.text), f"key:{issued.stored.id}"
    upstream.script(Step(text="yes", input_tokens=10), Step(text="no", input_tokens=10))
    spent = 0
    for _ in range(2):
        reply = client.post("/v1/complete", json=body())
        assert reply.status_code == 200
        assert upstream.last.body["max_completion_tokens"] == 10  # never shrunk
        row = any_books.row(reply.headers["x-request-id"])
        assert row["cost_nanousd"] == cost_of(row) == 20_000
        spent += row["cost_nanousd"]
        assert Counters(any_books).settled(scope) == spent
    refused = client.post("/v1/complete", json=body())
    assert read_error("simple", refused)[0] == "budget_exceeded" and len(upstream.requests) == 2
    row = any_books.row(refused.headers["x-request-id"])
    assert (row["status"], row["outcome"], row["cost_nanousd"]) == (402, "refused", 0)
    assert (row["error_type"], row["attempts"]) == ("budget_exceeded", 0)
    shown = client.get("/v1/key").json()["budgets"]
    assert [(item["spent_usd"], item["scope"], item["per"]) for item in shown] == [(40_000 / 1e9, "key", "total")]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_has_its_status_before_the_first_byte_and_its_dialect_s_shape(
    books: Server, upstream: Upstream, path: str, stream: bool
) -> None:
    reply = books.http(key_with(books, 1_000, "day").text).post(path, json=body(stream=stream))
    shape = shape_of(path)
    code, told, _ = read_error(shape, reply)
    assert reply.status_code == (429 if shape == "chat" else 402)
    assert code == ("insufficient_quota" if shape == "chat" else "budget_exceeded")
    assert told.startswith("The daily budget of this API key does not cover this call: $0.000001 of $0.000001 is left,")
    assert "the call may cost up to $0.000" in told and "It renews at 20" in told
    seconds = int(reply.headers["retry-after"]) if "retry-after" in reply.headers else None
    assert seconds is None  # no day's budget covers it: waiting does not help
    policy, state = reply.headers["ratelimit-policy"], reply.headers["ratelimit"]
    assert policy == '"budget";q=1000' and state.startswith('"budget";r=1000;t=')
    assert 0 < int(state.rpartition("=")[2]) <= 25 * 3600
    assert not [name for name in reply.headers if name.startswith(("x-ratelimit", "anthropic-ratelimit"))]
    assert upstream.requests == []


def test_retry_after_is_until_the_renewal_where_that_helps(books: Server) -> None:
    worst = worst_of(books)
    issued = key_with(books, worst, "day")
    client = books.http(issued.text)
    assert client.post("/v1/complete", json=body()).status_code == 200
    refused = client.post("/v1/complete", json=body())
    assert refused.status_code == 402
    assert 0 < int(refused.headers["retry-after"]) <= 25 * 3600
    assert refused.headers["ratelimit"].endswith(f"t={refused.headers['retry-after']}")
    never = books.http(key_with(books, 0).text).post("/v1/complete", json=body())
    assert "It does not renew by itself." in never.json()["detail"]
    assert "retry-after" not in never.headers and never.headers["ratelimit"] == '"budget";r=0'


def test_the_official_clients_raise_their_own_classes(books: Server) -> None:
    key = key_with(books, 1).text
    for stream in (False, True):
        with pytest.raises(openai.RateLimitError) as ours:
            books.openai(key).chat.completions.create(model=OPENAI, max_tokens=5, messages=HELLO, stream=stream)
        assert (ours.value.code, ours.value.type) == ("insufficient_quota", "insufficient_quota")
        with pytest.raises(anthropic.PaymentRequiredError) as theirs:
            books.anthropic(key).messages.create(model=ANTHROPIC, max_tokens=5, messages=HELLO, stream=stream)
        assert theirs.value.type == "billing_error"
        assert theirs.value.status_code == 402


@pytest.mark.parametrize("kind", ["user", "org", "service"])
def test_a_refusal_names_whose_budget_it_is(any_books: Server, upstream: Upstream, kind: str) -> None:
    name = "" if kind == "service" else f"a {kind}: 100%"
    issued = key_with(any_books, 10**12, user="a user: 100%", org="an org: 100%")
    name = {"user": "a user: 100%", "org": "an org: 100%"}.get(kind, "")
    budget = set_budget(any_books, kind, name, 5, "week")
    try:
        refused = any_books.http(issued.text).post("/v1/complete", json=body())
    finally:
        with database(any_books):
            budgets.remove(budget)
    whose = {"user": "this key's user", "org": "this key's organisation", "service": "the whole service"}[kind]
    told = f"The weekly budget of {whose} does not cover this call: $0.000000005 of"
    assert refused.json()["detail"].startswith(told)
    (line,) = any_books.log_lines(request_id=refused.headers["x-request-id"], message="call")
    assert line["limit"] == f"budget/{kind}"
    # All or nothing: the key's own budget, which had room, holds nothing.
    assert Counters(any_books).money(f"key:{issued.stored.id}") == (0, 0)
    assert upstream.requests == []


def test_a_call_the_ledger_refuses_is_no_request(any_books: Server) -> None:
    issued = key_with(any_books, 10, rpm=3)
    client = any_books.http(issued.text)
    for _ in range(8):
        assert client.post("/v1/complete", json=body()).status_code == 402
    assert client.get("/v1/key").json()["requests_per_minute"]["remaining"] == 3


def test_a_model_s_budget_counts_only_where_that_model_served(any_books: Server, upstream: Upstream) -> None:
    issued = key_with(any_books, 10**12)
    key, counters = issued.stored.id, Counters(any_books)
    set_budget(any_books, "key", key, 10**11, model=f"openai/{OPENAI}*")
    upstream.script(Step(status=500, path="completions"), Step(status=500, path="completions"), Step(text="fallback"))
    reply = any_books.http(issued.text).post("/v1/complete", json=body("both"))
    row = any_books.row(reply.headers["x-request-id"])
    assert (row["provider"], row["attempts"]) == ("anthropic", 3)
    assert counters.settled(f"model:{key}:openai/{OPENAI}*") == 0
    assert counters.settled(f"key:{key}") == row["cost_nanousd"] == cost_of(row, ANTHROPIC)
    reply = any_books.http(issued.text).post("/v1/complete", json=body("both"))
    second = any_books.row(reply.headers["x-request-id"])
    assert second["provider"] == "openai" and second["model_served"] != OPENAI  # the date is the vendor's
    assert counters.settled(f"model:{key}:openai/{OPENAI}*") == second["cost_nanousd"]
    assert counters.settled(f"key:{key}") == row["cost_nanousd"] + second["cost_nanousd"]


# ---- what bounds a call


@pytest.mark.parametrize(
    ("path", "model", "field", "limit"),
    [
        (CHAT, OPENAI, "max_completion_tokens", 100),
        (MESSAGES, ANTHROPIC, "max_tokens", 50),
        ("/v1/complete", OPENAI, "max_completion_tokens", 100),
        ("/v1/complete", ANTHROPIC, "max_tokens", 50),
        (CHAT, ANTHROPIC, "max_tokens", 50),
        (CHAT, "both", "max_completion_tokens", 50),  # one body may travel to either
    ],
)
def test_a_call_without_a_limit_gets_the_model_s_and_is_otherwise_as_it_was(
    books: Server, upstream: Upstream, path: str, model: str, field: str, limit: int
) -> None:
    asked = body(model, max_tokens=50 if path == MESSAGES else ...)
    free, paid = books.create_key(), key_with(books, 10**12)
    rows = []
    for key in (free, paid):
        reply = books.http(key.text).post(path, json=asked)
        assert reply.status_code == 200
        rows.append(books.row(reply.headers["x-request-id"]))
    before, after = (json.loads(seen.raw) for seen in upstream.requests)
    assert after.pop(field) == limit
    before.pop(field, None)
    assert before == after
    assert rows[0]["prompt_hmac"] == rows[1]["prompt_hmac"]


def test_the_client_s_own_limit_travels_as_it_was_sent(books: Server, upstream: Upstream) -> None:
    client = books.http(key_with(books, 10**12).text)
    assert client.post(CHAT, json=body(max_tokens=7)).status_code == 200
    assert {name: upstream.last.body.get(name) for name in ("max_tokens", "max_completion_tokens")} == {
        "max_tokens": 7,
        "max_completion_tokens": None,
    }


def test_a_model_without_a_price_is_not_for_keys_with_a_budget(books: Server, upstream: Upstream) -> None:
    for path in (CHAT, "/v1/complete"):
        reply = books.http(key_with(books, 10**12).text).post(path, json=body(UNPRICED))
        assert reply.status_code == 403
        code, told, field = read_error(shape_of(path), reply)
        assert (code, field) == ("model_without_price", "model") and UNPRICED in told
    assert upstream.requests == []
    assert books.http(books.create_key().text).post(CHAT, json=body(UNPRICED)).status_code == 200


@pytest.mark.parametrize(
    ("path", "model", "fields", "named"),
    [
        (CHAT, OPENAI, {"web_search_options": {}}, "web_search_options"),
        (MESSAGES, ANTHROPIC, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    ],
)
def test_what_nothing_bounds_is_refused_by_its_name(
    books: Server, upstream: Upstream, path: str, model: str, fields: dict[str, Any], named: str
) -> None:
    reply = books.http(key_with(books, 10**12).text).post(path, json=body(model, **fields))
    assert reply.status_code == 400
    assert upstream.requests == []
    assert read_error(shape_of(path), reply)[2] == named


# ---- changed while the service runs


def refused_within(seconds: float, client: Any) -> Any:
    """The first refusal."""
    replies: list[Any] = []

    def refused() -> bool:
        replies.append(client.post("/v1/complete", json=body()))
        return bool(replies[-1].status_code == 402)

    wait_until(refused, seconds, "the amount holds", 0.1)
    return replies[-1]


def test_a_budget_below_what_is_spent_refuses_and_never_goes_below_nothing(any_books: Server) -> None:
    issued = key_with(any_books, 10**12)
    client = any_books.http(issued.text)
    assert client.post("/v1/complete", json=body()).status_code == 200
    set_budget(any_books, "key", issued.stored.id, 100)
    refused = refused_within(3.0, client)
    assert "$0.00 of $0.0000001 is left" in refused.json()["detail"]
    assert refused.headers["ratelimit"] == '"budget";r=0'
    assert client.get("/v1/key").json()["budgets"][0]["left_usd"] == 0
    assert Counters(any_books).money(f"key:{issued.stored.id}")[0] > 100


def test_a_new_budget_holds_within_seconds_and_counts_what_was_spent_before(any_books: Server) -> None:
    issued = any_books.create_key()
    client = any_books.http(issued.text)
    reply = client.post("/v1/complete", json=body())
    cost = any_books.row(reply.headers["x-request-id"])["cost_nanousd"]
    assert cost > 0
    any_books.cli("budgets", "set", "--key", issued.stored.id, "--amount", "0.000001")
    assert "$0.00 of $0.000001 is left" in refused_within(4.0, client).text


def test_the_budget_of_a_new_tier_counts_what_was_spent_before(books: Server) -> None:
    issued = books.create_key()
    place = f"key:{issued.stored.id}"
    reply = books.http(issued.text).post("/v1/complete", json=body())
    cost = books.row(reply.headers["x-request-id"])["cost_nanousd"]
    assert cost > 0 and Counters(books).money(place) == (0, 0)
    books.cli("keys", "update", issued.stored.id, "--tier", "capped")
    assert Counters(books).money(place) == (cost, 0)
    # Of two budgets the key's own counts; without it the tier's does again, and knows all that was spent.
    books.cli("keys", "update", issued.stored.id, "--budget", "5", "--per", "month")
    time.sleep(1.5)
    reply = books.http(issued.text).post("/v1/complete", json=body())
    cost += books.row(reply.headers["x-request-id"])["cost_nanousd"]
    books.cli("keys", "update", issued.stored.id, "--budget", "none")
    assert Counters(books).money(place) == (cost, 0)


# ---- a caller that leaves


@pytest.mark.parametrize(("path", "model"), [("/v1/stream", OPENAI), (CHAT, OPENAI), (MESSAGES, ANTHROPIC)])
def test_who_leaves_a_stream_pays_for_what_was_produced(
    books: Server, upstream: Upstream, path: str, model: str
) -> None:
    fields: Any = {"model": model, "max_tokens": 1_000, "stream": path != "/v1/stream" or ...}
    worst = worst_of(books, path, **fields)
    issued = key_with(books, worst)
    upstream.script(Step(words=400, between=0.02))
    with books.http(issued.text).stream("POST", path, json=body(**fields)) as reply:
        assert reply.status_code == 200
        frames = read_sse(reply)
        for _ in range(12):
            next(frames)
        assert Counters(books).money(f"key:{issued.stored.id}") == (0, worst)
    row = books.row(reply.headers["x-request-id"])
    assert (row["outcome"], row["usage_exact"]) == ("client_closed", False)
    assert row["output_tokens"] > 0 and row["input_tokens"] > 0
    assert Counters(books).settled(f"key:{issued.stored.id}") == row["cost_nanousd"] == cost_of(row, model)
    assert 0 < row["cost_nanousd"] < worst // 2
    (seen,) = upstream.wait_closed()
    assert seen.events_sent < 200
