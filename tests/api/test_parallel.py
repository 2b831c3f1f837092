"""Parallel calls of every scope: a place is free when the call has ended, and not a moment later."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest

from tests.api.books import ANTHROPIC, CHAT, OPENAI, Counters, body, limited
from tests.api.shapes import read_error, shape_of
from tests.api.test_token_limits import FROM, SCOPES, at_once, limited_key
from tests.support.server import Server
from tests.support.wait import wait_until
from tests.upstream import Step, Upstream

HELLO: Any = [{"role": "user", "content": "Say something."}]


@pytest.mark.parametrize("kind", SCOPES)
def test_parallel_calls_of_a_scope_are_exact_across_workers(books: Server, upstream: Upstream, kind: str) -> None:
    upstream.always(Step(before_headers=1.5))
    with ExitStack() as stack:
        key = limited_key(stack, books, kind, parallel=3)
        assert Counter(at_once(books, key, 10)) == {200: 3, 429: 7}
        upstream.always(Step())
        assert [books.http(key).post("/v1/complete", json=body(), headers=FROM).status_code for _ in range(4)] == [
            200
        ] * 4
    refused = [line for line in books.log_lines(message="call") if line.get("limit") == f"parallel/{kind}"]
    assert len(refused) == 7


@pytest.mark.parametrize("path", ["/v1/complete", "/v1/stream", CHAT, "/v1/messages"])
def test_a_refusal_says_which_limit_and_when_to_ask_again(books: Server, upstream: Upstream, path: str) -> None:
    key = books.create_key(parallel=1).text
    upstream.script(Step(words=50, between=0.1))
    with books.http(key).stream("POST", "/v1/stream", json=body(max_tokens=60)) as running:
        assert running.status_code == 200
        reply = books.http(key).post(path, json=body())
        code, told, _ = read_error(shape_of(path), reply)
    assert (reply.status_code, code) == (429, "rate_limit_exceeded")
    assert told == ("Rate limit reached: 0 of 1 is left of the limit of parallel calls of this API key. Retry in 1 s.")
    assert reply.headers["retry-after"] == "1"
    assert (reply.headers["ratelimit-policy"], reply.headers["ratelimit"]) == ('"parallel";q=1', '"parallel";r=0;t=1')
    wait_until(lambda: books.http(key).post(path, json=body()).status_code == 200, 5, "the place is free", 0.05)


def test_one_at_a_time_is_never_refused_after_the_end_of_the_one_before(books: Server) -> None:
    key = books.create_key(parallel=1).text
    ours, theirs = books.openai(key), books.anthropic(key)
    for model in (OPENAI, ANTHROPIC) * 10:
        stream = ours.chat.completions.create(model=model, max_tokens=20, messages=HELLO, stream=True)
        reasons = [chunk.choices[0].finish_reason for chunk in stream if chunk.choices]  # to the end of the call
        assert reasons[-1]
        with theirs.messages.stream(model=model, max_tokens=20, messages=HELLO) as told:
            assert told.get_final_text()
        assert ours.chat.completions.create(model=model, max_tokens=20, messages=HELLO).choices
        assert theirs.messages.create(model=model, max_tokens=20, messages=HELLO).content


@pytest.mark.parametrize("fault", ["reset", "end", "error", "malformed"])
def test_one_at_a_time_is_never_refused_after_a_stream_that_broke(
    books: Server, upstream: Upstream, fault: str
) -> None:
    key = books.create_key(parallel=1).text
    for _ in range(3):
        upstream.script(Step(words=20, fault=fault, after=8))
        with books.http(key).stream("POST", CHAT, json=body(stream=True, max_tokens=30)) as reply:
            assert reply.status_code == 200
            assert b'"error"' in reply.read()
    assert books.http(key).post(CHAT, json=body()).status_code == 200


def test_a_caller_that_left_gives_its_place_back(books: Server, upstream: Upstream) -> None:
    issued = books.create_key(parallel=1)
    for path, stream in (("/v1/stream", True), ("/v1/complete", False), (CHAT, True)):
        upstream.script(Step(fault="hang", after=-1))
        with books.raw() as raw:
            raw.request("POST", path, body(stream=stream), issued.text)
            upstream.ledger.wait(lambda seen: [s for s in seen if s.outcome == "open"], 1, 5, "open requests")
        upstream.wait_closed(1)
        wait_until(
            lambda: books.http(issued.text).post("/v1/complete", json=body()).status_code == 200, 5, "a place", 0.05
        )
        upstream.ledger.clear()


def test_places_are_all_or_nothing_with_money_and_tokens(books: Server) -> None:
    with limited(books, "user", "u-nothing", parallel=1):
        key = books.create_key(user="u-nothing", tpm=1).text
        for _ in range(3):
            assert books.http(key).post("/v1/complete", json=body()).status_code == 429
        free = books.create_key(user="u-nothing", parallel=1).text
        assert books.http(free).post("/v1/complete", json=body()).status_code == 200
    assert Counters(books).held_calls() == 0
