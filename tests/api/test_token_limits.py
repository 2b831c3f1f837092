"""Requests and tokens per minute of every scope: exact across workers, all or nothing, and the tightest is reported."""

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

from tests.api.budget_helpers import ANTHROPIC, CHAT, MESSAGES, OPENAI, Counters, body, key_with_budget, set_limits
from tests.api.error_shapes import read_error
from tests.support.raw import Raw
from tests.support.server import Server
from tests.upstream import Step, Upstream

HELLO: Any = [{"role": "user", "content": "Say something."}]
ADDRESS = "203.0.113.77"
FROM = {"X-Forwarded-For": ADDRESS}
# scope -> (its name, the words for it in an error). A key's own limits are options of the key.
SCOPES = {
    "key": ("", "this API key"),
    "user": ("u-limits", "this key's user"),
    "org": ("o-limits", "this key's organisation"),
    "service": ("", "the whole service"),
    "network": ("203.0.113.0/24", "this network"),
    "model": (f"openai/{OPENAI}", "this model"),
}


def limited_key(stack: ExitStack, service: Server, kind: str, **values: int) -> str:
    """A key to which these limits of the scope ``kind`` apply until the end of ``stack``."""
    if kind == "key":
        options: dict[str, Any] = dict(values)
        return service.create_key(**options).text
    stack.enter_context(set_limits(service, kind, SCOPES[kind][0], **values))
    return service.create_key(user="u-limits", org="o-limits").text


def at_once(service: Server, key: str, count: int, **more: Any) -> list[int]:
    """The statuses of ``count`` calls that are sent at the same time, each over its own connection."""
    with ExitStack() as stack:
        connections = [stack.enter_context(service.raw(20)) for _ in range(count)]
        ready = threading.Barrier(count)

        def ask(raw: Raw) -> int:
            ready.wait(20)
            raw.request("POST", "/v1/complete", body(**more), key, FROM)
            return raw.read_reply().status

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(ask, connections))


def tokens_of(service: Server, path: str = "/v1/complete", **more: Any) -> int:
    """The upper bound of a call's tokens per minute, as it is reported to a key whose limit is one token."""
    rejected = service.http(service.create_key(tpm=1).text).post(path, json=body(**more))
    match = re.search(r"this call alone may take (\d+)", rejected.text)
    assert rejected.status_code == 429 and match is not None, rejected.text
    assert "retry-after" not in rejected.headers  # waiting does not help
    return int(match[1])


# ---- requests per minute


@pytest.mark.parametrize("kind", [kind for kind in SCOPES if kind != "key"])
def test_requests_per_minute_of_a_scope_are_exact_across_workers(priced: Server, kind: str) -> None:
    Counters(priced).redis.delete(*Counters(priced).redis.keys("LIMITS*") or ["none"])
    with ExitStack() as stack:
        key = limited_key(stack, priced, kind, rpm=5)
        assert Counter(at_once(priced, key, 16)) == {200: 5, 429: 11}
        rejected = priced.http(key).post("/v1/complete", json=body(), headers=FROM)
    code, message, _ = read_error("simple", rejected)
    assert code == "rate_limit_exceeded"
    assert message.startswith(f"Rate limit reached: 5 requests per minute for {SCOPES[kind][1]}.")
    assert rejected.headers["ratelimit-policy"] == '"requests";q=5;w=60'
    (line,) = priced.log_lines(request_id=rejected.headers["x-request-id"], message="call")
    assert line["limit"] == f"requests/{kind}"


@pytest.mark.parametrize("kind", ["user", "service", "network", "model"])
def test_a_rejection_by_a_later_scope_does_not_use_up_an_earlier_one(priced: Server, kind: str) -> None:
    Counters(priced).redis.delete(*Counters(priced).redis.keys("LIMITS*") or ["none"])
    with ExitStack() as stack:
        stack.enter_context(set_limits(priced, kind, SCOPES[kind][0], rpm=2))
        key = priced.create_key(user="u-limits", rpm=6).text
        statuses = [priced.http(key).post("/v1/complete", json=body(), headers=FROM).status_code for _ in range(6)]
        assert statuses == [200] * 2 + [429] * 4
        assert priced.http(key).get("/v1/key").json()["requests_per_minute"]["remaining"] == 4


def test_a_call_rejected_by_the_ledger_gives_back_its_request_in_every_scope(priced: Server) -> None:
    Counters(priced).redis.delete(*Counters(priced).redis.keys("LIMITS*") or ["none"])
    with ExitStack() as stack:
        for kind in ("user", "service", "network", "model"):
            stack.enter_context(set_limits(priced, kind, SCOPES[kind][0], rpm=3))
        empty_budget_key = key_with_budget(priced, 0, user="u-limits", rpm=3)
        for path in ("/v1/complete", "/v1/stream", CHAT, MESSAGES) * 2:
            assert priced.http(empty_budget_key.text).post(path, json=body(), headers=FROM).status_code in (402, 429)
        other = priced.http(priced.create_key(user="u-limits", rpm=3).text)
        statuses = [other.post("/v1/complete", json=body(), headers=FROM).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]


def test_a_network_s_limit_applies_to_that_network_only(priced: Server) -> None:
    Counters(priced).redis.delete(*Counters(priced).redis.keys("LIMITS*") or ["none"])
    with set_limits(priced, "network", "203.0.113.0/24", rpm=1):
        client = priced.http(priced.create_key().text)
        inside = [client.post("/v1/complete", json=body(), headers=FROM).status_code for _ in range(2)]
        outside = client.post("/v1/complete", json=body(), headers={"X-Forwarded-For": "203.0.114.1"})
    assert (inside, outside.status_code) == ([200, 429], 200)


# ---- tokens per minute


@pytest.mark.parametrize("kind", SCOPES)
def test_tokens_per_minute_of_a_scope_admit_exactly_what_fits(priced: Server, upstream: Upstream, kind: str) -> None:
    redis = Counters(priced).redis
    redis.delete(*redis.keys("{llm}:tokens:*") or ["none"])
    upper_bound = tokens_of(priced)
    limit = 3 * upper_bound + upper_bound // 2
    # A settlement gives back what was held, so no call may end before all of them have asked for their tokens.
    upstream.always(Step(before_headers=1.5, input_tokens=5, text="yes"))
    with ExitStack() as stack:
        key = limited_key(stack, priced, kind, tpm=limit)
        assert Counter(at_once(priced, key, 8)) == {200: 3, 429: 5}
        upstream.always(Step())
        # Only 18 tokens were used, so there is room again, but not for a call that is larger than the limit.
        after = priced.http(key).post("/v1/complete", json=body(), headers=FROM)
        assert after.status_code == 200
        large = priced.http(key).post("/v1/complete", json=body(max_tokens=10_000), headers=FROM)
    assert large.status_code == 429 and "retry-after" not in large.headers
    message = large.json()["detail"]
    assert message.startswith(f"The limit of tokens per minute of {SCOPES[kind][1]} is {limit}, and")
    assert large.headers["ratelimit-policy"] == f'"tokens";q={limit};w=60'


def test_a_rejection_for_tokens_tells_both_official_clients_how_long_to_wait(
    priced: Server, upstream: Upstream
) -> None:
    upper_bound = tokens_of(priced, MESSAGES, model=ANTHROPIC)
    upstream.always(Step(input_tokens=upper_bound, output_tokens=10))
    key = priced.create_key(tpm=upper_bound + 40).text
    assert priced.http(key).post(MESSAGES, json=body(ANTHROPIC)).status_code == 200
    with pytest.raises(openai.RateLimitError) as openai_error:
        priced.openai(key).chat.completions.create(model=OPENAI, max_tokens=10, messages=HELLO)
    headers = openai_error.value.response.headers
    assert (openai_error.value.code, openai_error.value.type) == ("rate_limit_exceeded", "tokens")
    assert 1 <= int(headers["retry-after"]) <= 120
    assert headers["x-ratelimit-limit-tokens"] == str(upper_bound + 40)
    assert 0 <= int(headers["x-ratelimit-remaining-tokens"]) <= 40
    with pytest.raises(anthropic.RateLimitError) as anthropic_error:
        priced.anthropic(key).messages.create(model=ANTHROPIC, max_tokens=10, messages=HELLO)
    assert anthropic_error.value.response.headers["anthropic-ratelimit-tokens-limit"] == str(upper_bound + 40)


def test_with_a_token_limit_the_model_s_own_output_limit_is_sent_to_the_vendor(
    priced: Server, upstream: Upstream
) -> None:
    key = priced.create_key(tpm=10_000).text
    assert priced.http(key).post(CHAT, json=body(max_tokens=...)).status_code == 200
    assert upstream.last.body["max_completion_tokens"] == 100
    assert "max_tokens" not in upstream.last.body


def test_the_tokens_of_a_failed_call_are_given_back(priced: Server, upstream: Upstream) -> None:
    key = priced.create_key(tpm=tokens_of(priced) + 10).text
    upstream.script(*[Step(status=400)] * 4)
    assert [priced.http(key).post("/v1/complete", json=body()).status_code for _ in range(4)] == [400] * 4
    assert priced.http(key).post("/v1/complete", json=body()).status_code == 200


# ---- headers


def test_an_answer_s_headers_name_the_tightest_scope(priced: Server) -> None:
    with set_limits(priced, "org", "o-tight", tpm=1_000):
        key = priced.create_key(tpm=1_000_000, parallel=50, org="o-tight").text
        for path in ("/v1/complete", "/v1/stream", CHAT, MESSAGES):
            headers = priced.http(key).post(path, json=body()).headers
            assert headers["ratelimit-policy"] == '"tokens";q=1000;w=60'
            left = re.fullmatch(r'"tokens";r=(\d+);t=60', headers["ratelimit"])
            assert left is not None and 500 < int(left[1]) < 1_000
    reply = priced.http(priced.create_key(parallel=1, tpm=10**9).text).post("/v1/complete", json=body())
    assert (reply.headers["ratelimit-policy"], reply.headers["ratelimit"]) == ('"parallel";q=1', '"parallel";r=0;t=1')
