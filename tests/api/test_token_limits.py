"""Requests and tokens per minute of every scope: exact across workers, all or nothing, told by the tightest."""

from __future__ import annotations

import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import anthropic
import openai
import pytest

from tests.api.books import ANTHROPIC, CHAT, MESSAGES, OPENAI, Counters, body, key_with, limited
from tests.api.shapes import read_error
from tests.support.raw import Raw
from tests.support.server import Server
from tests.upstream import Step, Upstream

HELLO: Any = [{"role": "user", "content": "Say something."}]
ADDRESS = "203.0.113.77"
FROM = {"X-Forwarded-For": ADDRESS}
# Scope, its name, and the words a refusal has for it. A key's own limits are its options.
SCOPES = {
    "key": ("", "this API key"),
    "user": ("u-limits", "this key's user"),
    "org": ("o-limits", "this key's organisation"),
    "service": ("", "the whole service"),
    "network": ("203.0.113.0/24", "this network"),
    "model": (f"openai/{OPENAI}", "this model"),
}


def limited_key(stack: ExitStack, service: Server, kind: str, **values: int) -> str:
    """A key that is subject to these limits of ``kind`` until the end of ``stack``."""
    if kind == "key":
        options: dict[str, Any] = dict(values)
        return service.create_key(**options).text
    stack.enter_context(limited(service, kind, SCOPES[kind][0], **values))
    return service.create_key(user="u-limits", org="o-limits").text


def at_once(service: Server, key: str, count: int, **more: Any) -> list[int]:
    """The statuses of ``count`` calls, each on a connection of its own, sent together."""
    with ExitStack() as stack:
        connections = [stack.enter_context(service.raw(20)) for _ in range(count)]
        ready = threading.Barrier(count)

        def ask(raw: Raw) -> int:
            ready.wait(20)
            raw.request("POST", "/v1/complete", body(**more), key, FROM)
            return raw.read_answer().status

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(ask, connections))


def tokens_of(service: Server, path: str = "/v1/complete", **more: Any) -> int:
    """What a call takes of tokens per minute, as it is told to a key that has none."""
    refused = service.http(service.create_key(tpm=1).text).post(path, json=body(**more))
    told = re.search(r"this call alone may take (\d+)", refused.text)
    assert refused.status_code == 429 and told is not None, refused.text
    assert "retry-after" not in refused.headers  # waiting does not help
    return int(told[1])


# ---- requests per minute


@pytest.mark.parametrize("kind", [kind for kind in SCOPES if kind != "key"])
def test_requests_per_minute_of_a_scope_are_exact_across_workers(books: Server, kind: str) -> None:
    Counters(books).redis.delete(*Counters(books).redis.keys("LIMITS*") or ["none"])
    with ExitStack() as stack:
        key = limited_key(stack, books, kind, rpm=5)
        assert Counter(at_once(books, key, 16)) == {200: 5, 429: 11}
        refused = books.http(key).post("/v1/complete", json=body(), headers=FROM)
    code, told, _ = read_error("simple", refused)
    assert code == "rate_limit_exceeded"
    assert told.startswith(f"Rate limit reached: 5 requests per minute for {SCOPES[kind][1]}.")
    assert refused.headers["ratelimit-policy"] == '"requests";q=5;w=60'
    (line,) = books.log_lines(request_id=refused.headers["x-request-id"], message="call")
    assert line["limit"] == f"requests/{kind}"


@pytest.mark.parametrize("kind", ["user", "service", "network", "model"])
def test_a_refusal_by_a_later_scope_does_not_use_up_an_earlier_one(books: Server, kind: str) -> None:
    Counters(books).redis.delete(*Counters(books).redis.keys("LIMITS*") or ["none"])
    with ExitStack() as stack:
        stack.enter_context(limited(books, kind, SCOPES[kind][0], rpm=2))
        key = books.create_key(user="u-limits", rpm=6).text
        statuses = [books.http(key).post("/v1/complete", json=body(), headers=FROM).status_code for _ in range(6)]
        assert statuses == [200] * 2 + [429] * 4
        assert books.http(key).get("/v1/key").json()["requests_per_minute"]["remaining"] == 4


def test_a_call_refused_by_the_ledger_gives_back_every_scope_s_request(books: Server) -> None:
    Counters(books).redis.delete(*Counters(books).redis.keys("LIMITS*") or ["none"])
    with ExitStack() as stack:
        for kind in ("user", "service", "network", "model"):
            stack.enter_context(limited(books, kind, SCOPES[kind][0], rpm=3))
        poor = key_with(books, 0, user="u-limits", rpm=3)
        for path in ("/v1/complete", "/v1/stream", CHAT, MESSAGES) * 2:
            assert books.http(poor.text).post(path, json=body(), headers=FROM).status_code in (402, 429)
        rich = books.create_key(user="u-limits", rpm=3).text
        statuses = [books.http(rich).post("/v1/complete", json=body(), headers=FROM).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]


def test_a_network_s_limit_is_for_that_network_only(books: Server) -> None:
    Counters(books).redis.delete(*Counters(books).redis.keys("LIMITS*") or ["none"])
    with limited(books, "network", "203.0.113.0/24", rpm=1):
        client = books.http(books.create_key().text)
        inside = [client.post("/v1/complete", json=body(), headers=FROM).status_code for _ in range(2)]
        outside = client.post("/v1/complete", json=body(), headers={"X-Forwarded-For": "203.0.114.1"})
    assert (inside, outside.status_code) == ([200, 429], 200)


# ---- tokens per minute


@pytest.mark.parametrize("kind", SCOPES)
def test_tokens_per_minute_of_a_scope_admit_what_fits_and_no_more(books: Server, upstream: Upstream, kind: str) -> None:
    redis = Counters(books).redis
    redis.delete(*redis.keys("{llm}:tokens:*") or ["none"])
    worst = tokens_of(books)
    # What is held comes back with the settlement: calls of which none ends before all were asked for.
    upstream.always(Step(before_headers=1.5, input_tokens=5, text="yes"))
    with ExitStack() as stack:
        key = limited_key(stack, books, kind, tpm=3 * worst + worst // 2)
        assert Counter(at_once(books, key, 8)) == {200: 3, 429: 5}
        upstream.always(Step())
        # 18 tokens were used: there is room again, but not for a call that is larger than the limit.
        after = books.http(key).post("/v1/complete", json=body(), headers=FROM)
        assert after.status_code == 200
        large = books.http(key).post("/v1/complete", json=body(max_tokens=10_000), headers=FROM)
    assert large.status_code == 429 and "retry-after" not in large.headers
    told = large.json()["detail"]
    assert told.startswith(f"The limit of tokens per minute of {SCOPES[kind][1]} is {3 * worst + worst // 2}, and")
    assert large.headers["ratelimit-policy"] == f'"tokens";q={3 * worst + worst // 2};w=60'


def test_a_refusal_for_tokens_tells_every_dialect_when_to_come_back(books: Server, upstream: Upstream) -> None:
    worst = tokens_of(books, MESSAGES, model=ANTHROPIC)
    upstream.always(Step(input_tokens=worst, output_tokens=10))
    key = books.create_key(tpm=worst + 40).text
    assert books.http(key).post(MESSAGES, json=body(ANTHROPIC)).status_code == 200
    with pytest.raises(openai.RateLimitError) as ours:
        books.openai(key).chat.completions.create(model=OPENAI, max_tokens=10, messages=HELLO)
    headers = ours.value.response.headers
    assert (ours.value.code, ours.value.type) == ("rate_limit_exceeded", "tokens")
    assert 1 <= int(headers["retry-after"]) <= 120
    assert headers["x-ratelimit-limit-tokens"] == str(worst + 40)
    assert 0 <= int(headers["x-ratelimit-remaining-tokens"]) <= 40
    with pytest.raises(anthropic.RateLimitError) as theirs:
        books.anthropic(key).messages.create(model=ANTHROPIC, max_tokens=10, messages=HELLO)
    assert theirs.value.response.headers["anthropic-ratelimit-tokens-limit"] == str(worst + 40)


def test_a_limit_of_tokens_writes_the_model_s_own_limit_into_the_call(books: Server, upstream: Upstream) -> None:
    key = books.create_key(tpm=10_000).text
    assert books.http(key).post(CHAT, json=body(max_tokens=...)).status_code == 200
    assert upstream.last.body["max_completion_tokens"] == 100
    assert "max_tokens" not in upstream.last.body


def test_tokens_of_a_call_that_failed_come_back(books: Server, upstream: Upstream) -> None:
    key = books.create_key(tpm=tokens_of(books) + 10).text
    upstream.script(*[Step(status=400)] * 4)
    assert [books.http(key).post("/v1/complete", json=body()).status_code for _ in range(4)] == [400] * 4
    assert books.http(key).post("/v1/complete", json=body()).status_code == 200


# ---- headers


def test_an_answer_s_headers_name_the_tightest_scope(books: Server) -> None:
    with limited(books, "org", "o-tight", tpm=1_000):
        key = books.create_key(tpm=1_000_000, parallel=50, org="o-tight").text
        for path in ("/v1/complete", "/v1/stream", CHAT, MESSAGES):
            headers = books.http(key).post(path, json=body()).headers
            assert headers["ratelimit-policy"] == '"tokens";q=1000;w=60'
            left = re.fullmatch(r'"tokens";r=(\d+);t=60', headers["ratelimit"])
            assert left is not None and 500 < int(left[1]) < 1_000
    one = books.http(books.create_key(parallel=1, tpm=10**9).text).post("/v1/complete", json=body())
    assert (one.headers["ratelimit-policy"], one.headers["ratelimit"]) == ('"parallel";q=1', '"parallel";r=0;t=1')
