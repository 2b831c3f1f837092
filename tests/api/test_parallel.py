"""Limits of parallel calls for every scope: a slot is free as soon as its call has ended."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest

from tests.api.budget_helpers import ANTHROPIC, CHAT, OPENAI, Counters, body, set_limits
from tests.api.error_shapes import read_error, shape_of
from tests.api.test_token_limits import FROM, SCOPES, at_once, limited_key
from tests.support.server import Server
from tests.support.wait import wait_until
from tests.upstream import Step, Upstream

HELLO: Any = [{"role": "user", "content": "Say something."}]


@pytest.mark.parametrize("kind", SCOPES)
def test_the_limit_of_parallel_calls_of_a_scope_is_exact_across_workers(
    priced: Server, upstream: Upstream, kind: str
) -> None:
    upstream.always(Step(before_headers=1.5))
    with ExitStack() as stack:
        key = limited_key(stack, priced, kind, parallel=3)
        assert Counter(at_once(priced, key, 10)) == {200: 3, 429: 7}
        upstream.always(Step())
        assert [priced.http(key).post("/v1/complete", json=body(), headers=FROM).status_code for _ in range(4)] == [
            200
        ] * 4
    rejected = [line for line in priced.log_lines(message="call") if line.get("limit") == f"parallel/{kind}"]
    assert len(rejected) == 7


@pytest.mark.parametrize("path", ["/v1/complete", "/v1/stream", CHAT, "/v1/messages"])
def test_a_rejection_names_the_limit_and_the_time_to_wait(priced: Server, upstream: Upstream, path: str) -> None:
    key = priced.create_key(parallel=1).text
    upstream.script(Step(words=50, fault="hang", after=5))
    with priced.http(key).stream("POST", "/v1/stream", json=body(max_tokens=60)) as running:
        assert running.status_code == 200
        reply = priced.http(key).post(path, json=body())
        code, message, _ = read_error(shape_of(path), reply)
    assert (reply.status_code, code) == (429, "rate_limit_exceeded")
    assert message == (
        "Rate limit reached: 0 of 1 is left of the limit of parallel calls of this API key. Retry in 1 s."
    )
    assert reply.headers["retry-after"] == "1"
    assert (reply.headers["ratelimit-policy"], reply.headers["ratelimit"]) == ('"parallel";q=1', '"parallel";r=0;t=1')
    wait_until(lambda: priced.http(key).post(path, json=body()).status_code == 200, 5, "the slot is free", 0.05)


def test_with_one_slot_the_next_call_is_accepted_as_soon_as_the_last_one_ended(priced: Server) -> None:
    key = priced.create_key(parallel=1).text
    openai_client, anthropic_client = priced.openai(key), priced.anthropic(key)
    for model in (OPENAI, ANTHROPIC) * 10:
        stream = openai_client.chat.completions.create(model=model, max_tokens=20, messages=HELLO, stream=True)
        reasons = [chunk.choices[0].finish_reason for chunk in stream if chunk.choices]  # to the end of the call
        assert reasons[-1]
        with anthropic_client.messages.stream(model=model, max_tokens=20, messages=HELLO) as events:
            assert events.get_final_text()
        assert openai_client.chat.completions.create(model=model, max_tokens=20, messages=HELLO).choices
        assert anthropic_client.messages.create(model=model, max_tokens=20, messages=HELLO).content


@pytest.mark.parametrize("fault", ["reset", "end", "error", "malformed"])
def test_with_one_slot_the_next_call_is_accepted_after_a_failed_stream(
    priced: Server, upstream: Upstream, fault: str
) -> None:
    key = priced.create_key(parallel=1).text
    for _ in range(3):
        upstream.script(Step(words=20, fault=fault, after=8))
        with priced.http(key).stream("POST", CHAT, json=body(stream=True, max_tokens=30)) as reply:
            assert reply.status_code == 200
            assert b'"error"' in reply.read()
    assert priced.http(key).post(CHAT, json=body()).status_code == 200


def test_a_caller_that_disconnects_frees_its_slot(priced: Server, upstream: Upstream) -> None:
    issued = priced.create_key(parallel=1)
    for path, stream in (("/v1/stream", True), ("/v1/complete", False), (CHAT, True)):
        upstream.script(Step(fault="hang", after=-1))
        with priced.raw() as raw:
            raw.request("POST", path, body(stream=stream), issued.text)
            upstream.ledger.wait(lambda seen: [s for s in seen if s.outcome == "open"], 1, 5, "open requests")
        upstream.wait_closed(1)
        wait_until(
            lambda: priced.http(issued.text).post("/v1/complete", json=body()).status_code == 200,
            5,
            "the slot is free",
            0.05,
        )
        upstream.ledger.clear()


def test_no_slot_is_taken_when_money_or_tokens_reject_the_call(priced: Server) -> None:
    with set_limits(priced, "user", "u-nothing", parallel=1):
        key = priced.create_key(user="u-nothing", tpm=1).text
        for _ in range(3):
            assert priced.http(key).post("/v1/complete", json=body()).status_code == 429
        free = priced.create_key(user="u-nothing", parallel=1).text
        assert priced.http(free).post("/v1/complete", json=body()).status_code == 200
    assert Counters(priced).held_calls() == 0
