"""What a call pays: the row's cost, Redis' count and the vendor's bill are one number, whatever the vendor says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.books import ANTHROPIC, CHAT, MESSAGES, OPENAI, PRICES, Counters, body, cost_of, key_with
from tests.support.server import Server
from tests.upstream import Step, Upstream

RICH = 10**13


def bill_of(upstream: Upstream) -> int:
    """What the vendors would ask for, in nano-dollars."""
    total = 0
    for seen in upstream.requests:
        if seen.billed is not None:
            per_input, per_output = PRICES[ANTHROPIC if (seen.model or "").startswith("claude") else OPENAI]
            total += seen.billed.input_tokens * per_input + seen.billed.output_tokens * per_output
    return total


@pytest.mark.parametrize(
    ("path", "model"), [("/v1/complete", ANTHROPIC), ("/v1/stream", OPENAI), (CHAT, OPENAI), (MESSAGES, ANTHROPIC)]
)
def test_retries_and_fallbacks_settle_once_at_what_the_vendor_bills(
    any_books: Server, upstream: Upstream, path: str, model: str
) -> None:
    issued = key_with(any_books, RICH)
    upstream.script(Step(status=500), Step(text="one two three"))
    reply = any_books.http(issued.text).post(path, json=body(model, stream=path != "/v1/complete"))
    assert reply.status_code == 200
    row = any_books.row(reply.headers["x-request-id"])
    assert (row["attempts"], row["usage_exact"]) == (2, True)
    assert Counters(any_books).settled(f"key:{issued.stored.id}") == row["cost_nanousd"] == bill_of(upstream) > 0


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 529])
def test_a_call_that_the_vendor_refused_costs_nothing(books: Server, upstream: Upstream, status: int) -> None:
    issued = key_with(books, RICH)
    for path in (CHAT, "/v1/stream"):
        upstream.script(*[Step(status=status, headers={"retry-after": "0"})] * (2 if status >= 429 else 1))
        reply = books.http(issued.text).post(path, json=body())
        assert reply.status_code >= 400
        row = books.row(reply.headers["x-request-id"])
        assert (row["cost_nanousd"], row["input_tokens"], row["usage_exact"]) == (0, 0, True)
    assert upstream.unused_steps == []
    assert Counters(books).settled(f"key:{issued.stored.id}") == 0


@pytest.mark.parametrize(("path", "model"), [(CHAT, OPENAI), ("/v1/stream", ANTHROPIC)])
def test_a_stream_that_broke_is_paid_as_far_as_it_was_relayed(
    books: Server, upstream: Upstream, path: str, model: str
) -> None:
    issued = key_with(books, RICH)
    upstream.script(Step(words=40, fault="reset", after=20))
    with books.http(issued.text).stream("POST", path, json=body(model, stream=True, max_tokens=60)) as reply:
        list(reply.iter_raw())
    row = books.row(reply.headers["x-request-id"])
    assert row["usage_exact"] is False and row["output_tokens"] > 0
    assert Counters(books).settled(f"key:{issued.stored.id}") == row["cost_nanousd"] == cost_of(row, model)


HOSTILE: list[Any] = [-(2**62), 2**62, 10**30, 1.5, "12", True, None, "absent"]


@pytest.mark.parametrize(
    ("path", "model", "names"),
    [
        (CHAT, OPENAI, ("prompt_tokens", "completion_tokens")),
        (MESSAGES, ANTHROPIC, ("input_tokens", "output_tokens")),
        ("/v1/stream", OPENAI, ("prompt_tokens", "completion_tokens")),
    ],
)
def test_no_number_of_a_vendor_breaks_the_books(
    books: Server, upstream: Upstream, path: str, model: str, names: tuple[str, str]
) -> None:
    issued = key_with(books, RICH)
    client, before = books.http(issued.text), 0
    for usage in (None, *(dict.fromkeys(names, value) for value in HOSTILE)):
        upstream.script(Step(text="one two three", usage=usage))
        reply = client.post(path, json=body(model))
        assert reply.status_code == 200, (usage, reply.text)
        row = books.row(reply.headers["x-request-id"])
        spent = Counters(books).settled(f"key:{issued.stored.id}")
        # What cannot be believed is estimated: an answer was made, so nothing would be wrong as well.
        assert (row["usage_exact"], spent - before) == (False, row["cost_nanousd"]), usage
        assert row["input_tokens"] > 0 and row["output_tokens"] > 0, usage
        assert row["cost_nanousd"] == cost_of(row, model) < 10**6, usage
        before = spent
    assert client.get("/v1/usage").json()["today"]["cost_usd"] == before / 1e9


def test_a_claim_beyond_the_worst_case_is_paid_told_and_leaves_nothing(any_books: Server, upstream: Upstream) -> None:
    issued = key_with(any_books, 10**9)
    client = any_books.http(issued.text)
    upstream.script(Step(usage={"completion_tokens": 10**6}))
    reply = client.post("/v1/complete", json=body())
    row = any_books.row(reply.headers["x-request-id"])
    assert Counters(any_books).settled(f"key:{issued.stored.id}") == row["cost_nanousd"] > 10**10
    refused = client.post("/v1/complete", json=body())
    assert refused.status_code == 402 and "$0.00 of $1.00 is left" in refused.json()["detail"]
    assert [item["left_usd"] for item in client.get("/v1/key").json()["budgets"]] == [0]
    assert [line for line in any_books.log_lines(level="WARNING") if "cost more than its worst case" in line["message"]]
