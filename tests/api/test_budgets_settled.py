"""The cost of a call: the row, the counter in Redis and the vendor's bill agree, whatever the vendor reports."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.budget_helpers import ANTHROPIC, CHAT, MESSAGES, OPENAI, PRICES, Counters, body, cost_of, key_with_budget
from tests.support.server import Server
from tests.upstream import Step, Upstream

AMPLE = 10**13


def bill_of(upstream: Upstream) -> int:
    """The amount that the vendors would bill, in nano-dollars."""
    total = 0
    for seen in upstream.requests:
        if seen.billed is not None:
            per_input, per_output = PRICES[ANTHROPIC if (seen.model or "").startswith("claude") else OPENAI]
            total += seen.billed.input_tokens * per_input + seen.billed.output_tokens * per_output
    return total


@pytest.mark.parametrize(
    ("path", "model"), [("/v1/complete", ANTHROPIC), ("/v1/stream", OPENAI), (CHAT, OPENAI), (MESSAGES, ANTHROPIC)]
)
def test_a_retried_call_settles_once_with_the_amount_that_the_vendor_bills(
    any_priced: Server, upstream: Upstream, path: str, model: str
) -> None:
    issued = key_with_budget(any_priced, AMPLE)
    upstream.script(Step(status=500), Step(text="one two three"))
    reply = any_priced.http(issued.text).post(path, json=body(model, stream=path != "/v1/complete"))
    assert reply.status_code == 200
    row = any_priced.row(reply.headers["x-request-id"])
    assert (row["attempts"], row["usage_exact"]) == (2, True)
    assert Counters(any_priced).settled(f"key:{issued.stored.id}") == row["cost_nanousd"] == bill_of(upstream) > 0


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 529])
def test_a_call_that_the_vendor_rejected_costs_nothing(priced: Server, upstream: Upstream, status: int) -> None:
    issued = key_with_budget(priced, AMPLE)
    for path in (CHAT, "/v1/stream"):
        upstream.script(*[Step(status=status, headers={"retry-after": "0"})] * (2 if status >= 429 else 1))
        reply = priced.http(issued.text).post(path, json=body())
        assert reply.status_code >= 400
        row = priced.row(reply.headers["x-request-id"])
        assert (row["cost_nanousd"], row["input_tokens"], row["usage_exact"]) == (0, 0, True)
    assert upstream.unused_steps == []
    assert Counters(priced).settled(f"key:{issued.stored.id}") == 0


@pytest.mark.parametrize(("path", "model"), [(CHAT, OPENAI), ("/v1/stream", ANTHROPIC)])
def test_a_failed_stream_costs_what_was_relayed(priced: Server, upstream: Upstream, path: str, model: str) -> None:
    issued = key_with_budget(priced, AMPLE)
    upstream.script(Step(words=40, fault="reset", after=20))
    with priced.http(issued.text).stream("POST", path, json=body(model, stream=True, max_tokens=60)) as reply:
        list(reply.iter_raw())
    row = priced.row(reply.headers["x-request-id"])
    assert row["usage_exact"] is False and row["output_tokens"] > 0
    assert Counters(priced).settled(f"key:{issued.stored.id}") == row["cost_nanousd"] == cost_of(row, model)


HOSTILE: list[Any] = [-(2**62), 2**62, 10**30, 1.5, "12", True, None, "absent"]


@pytest.mark.parametrize(
    ("path", "model", "names"),
    [
        (CHAT, OPENAI, ("prompt_tokens", "completion_tokens")),
        (MESSAGES, ANTHROPIC, ("input_tokens", "output_tokens")),
        ("/v1/stream", OPENAI, ("prompt_tokens", "completion_tokens")),
    ],
)
def test_no_usage_value_of_a_vendor_corrupts_the_counters(
    priced: Server, upstream: Upstream, path: str, model: str, names: tuple[str, str]
) -> None:
    issued = key_with_budget(priced, AMPLE)
    client, before = priced.http(issued.text), 0
    for usage in (None, *(dict.fromkeys(names, value) for value in HOSTILE)):
        upstream.script(Step(text="one two three", usage=usage))
        reply = client.post(path, json=body(model))
        assert reply.status_code == 200, (usage, reply.text)
        row = priced.row(reply.headers["x-request-id"])
        spent = Counters(priced).settled(f"key:{issued.stored.id}")
        # Usage that cannot be true is estimated. Zero would be wrong too, because the vendor produced an answer.
        assert (row["usage_exact"], spent - before) == (False, row["cost_nanousd"]), usage
        assert row["input_tokens"] > 0 and row["output_tokens"] > 0, usage
        # Text is read as its number; without a number the call costs what was held for it.
        assert row["cost_nanousd"] >= cost_of(row, model), usage
        before = spent
    assert client.get("/v1/usage").json()["today"]["cost_usd"] == before / 1e9


def test_usage_above_the_upper_bound_is_charged_in_full_and_logged(any_priced: Server, upstream: Upstream) -> None:
    issued = key_with_budget(any_priced, 10**9)
    client = any_priced.http(issued.text)
    upstream.script(Step(usage={"completion_tokens": 10**6}))
    reply = client.post("/v1/complete", json=body())
    row = any_priced.row(reply.headers["x-request-id"])
    assert Counters(any_priced).settled(f"key:{issued.stored.id}") == row["cost_nanousd"] > 10**10
    rejected = client.post("/v1/complete", json=body())
    assert rejected.status_code == 402 and "$0.00 of $1.00 is left" in rejected.json()["detail"]
    assert [item["left_usd"] for item in client.get("/v1/key").json()["budgets"]] == [0]
    assert [
        line for line in any_priced.log_lines(level="WARNING") if "cost more than its worst case" in line["message"]
    ]
