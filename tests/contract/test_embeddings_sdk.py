"""Embeddings with the official OpenAI client: from the vendor, from ``echo``, and batches of many callers."""

from __future__ import annotations

import base64
import math
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.conftest import MakeService
from tests.contract.cases import CLAUDE, ECHO, GPT
from tests.support.server import Server
from tests.upstream import Step, Upstream
from tests.upstream.embeddings import LAST_TOKEN, count, inputs_of, vector

MODEL = "text-embedding-3-small"
INPUTS: list[Any] = ["Hello", ["Hello", "wörld", "🦓"], [1, 2, 3], [[1, 2], [3]]]


def inputs_per_request(upstream: Upstream) -> list[Any]:
    """The inputs of each request that the vendor saw."""
    return [inputs_of(seen.body) for seen in upstream.requests]


# ---- one caller


@pytest.mark.parametrize("given", INPUTS, ids=str)
@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_every_input_and_encoding_reaches_openai_unchanged(
    openai_client: openai.OpenAI, service: Server, upstream: Upstream, given: Any, encoding: Any
) -> None:
    more = {} if encoding is None else {"encoding_format": encoding}
    raw = openai_client.embeddings.with_raw_response.create(
        model=f"openai/{MODEL}", input=given, dimensions=4, user="u", **more
    )
    reply = raw.parse()
    sent = encoding or "base64"  # the SDK's default
    assert upstream.last.path == "/v1/embeddings"
    request = {"model": MODEL, "input": given, "dimensions": 4, "user": "u", "encoding_format": sent}
    assert upstream.last.body == request
    data = sorted(reply.data, key=lambda item: item.index)
    for item, one in zip(data, inputs_of({"input": given}), strict=True):
        values: Any = item.embedding
        if encoding == "base64":
            values = list(struct.unpack("<4f", base64.b64decode(values)))
        assert values == vector(one, 4)
    assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (count(request), count(request))
    assert reply.usage.model_extra is not None and reply.usage.model_extra["cost_usd"] > 0
    row = service.row(raw.headers["x-request-id"])
    assert (row["route"], row["dialect"], row["outcome"]) == ("/v1/embeddings", "embeddings", "ok")
    assert (row["input_tokens"], row["output_tokens"], row["usage_exact"]) == (count(request), 0, True)
    assert row["upstream_request_id"] == raw.headers["x-upstream-request-id"] == upstream.last.request_id
    assert row["cost_nanousd"] > 0 and row["attempts"] == 1 and row["prompt_hmac"]


def test_an_unknown_field_is_passed_on(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.allow("shiny")
    openai_client.embeddings.create(model=MODEL, input="a", extra_body={"shiny": [1]})
    assert upstream.last.body["shiny"] == [1]


def test_missing_usage_is_estimated_and_marked_as_not_exact(
    openai_client: openai.OpenAI, service: Server, upstream: Upstream
) -> None:
    upstream.script(Step(usage=None))
    raw = openai_client.embeddings.with_raw_response.create(model=MODEL, input="word " * 100)
    row = service.row(raw.headers["x-request-id"])
    assert row["input_tokens"] > 50 and row["usage_exact"] is False


def test_the_vendor_s_rejection_reaches_the_caller(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.embeddings.create(model=MODEL, input=[LAST_TOKEN + 1])
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", "input")
    with pytest.raises(openai.NotFoundError):
        openai_client.embeddings.create(model="openai/gpt-4o", input="a")
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.embeddings.create(model=MODEL, input=[])
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", "input")


def test_a_model_without_embeddings_is_rejected_by_its_name(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.embeddings.create(model=CLAUDE, input="a")
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "model")
    assert upstream.requests == []


def test_embeddings_are_never_streamed(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(lenient=True))
    reply = service.http().post("/v1/embeddings", json={"model": MODEL, "input": "a", "stream": True})
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["object"] == "list"


@pytest.mark.parametrize("status", [429, 500])
def test_a_failed_request_is_tried_again(openai_client: openai.OpenAI, upstream: Upstream, status: int) -> None:
    upstream.script(Step(status=status))
    assert openai_client.embeddings.create(model=MODEL, input="a").data[0].embedding == vector("a")
    assert len(upstream.requests) == 2


# ---- echo


def test_echo_embeds_without_a_vendor(openai_client: openai.OpenAI, service: Server) -> None:
    raw = openai_client.embeddings.with_raw_response.create(
        model=ECHO, input=["red apple", "red pear", "blue sky", "x"]
    )
    reply = raw.parse()
    apple, pear, sky, _ = [item.embedding for item in reply.data]
    assert len(apple) == 64 and math.isclose(math.hypot(*apple), 1, rel_tol=1e-6)
    # "red apple" and "red pear" share a word, so they are more similar.
    assert sum(map(float.__mul__, apple, pear)) > sum(map(float.__mul__, apple, sky)) + 0.2
    assert reply.usage.prompt_tokens == 7
    row = service.row(raw.headers["x-request-id"])
    assert (row["provider"], row["input_tokens"], row["cost_nanousd"]) == ("echo", 7, 0)
    again = openai_client.embeddings.create(model=ECHO, input="red apple", encoding_format="float")
    assert again.data[0].embedding == pytest.approx(apple, abs=1e-6)


def test_echo_s_vectors_have_the_requested_length(openai_client: openai.OpenAI) -> None:
    reply = openai_client.embeddings.create(model=ECHO, input=[[5, 6]], dimensions=3)
    assert len(reply.data[0].embedding) == 3
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.embeddings.create(model=ECHO, input="a", dimensions=100_000)
    assert caught.value.param == "dimensions"


# ---- many callers at once


@pytest.fixture
def batching(shared_service: MakeService) -> Server:
    """A service with one worker that waits one second for a batch, which is enough for a slow test machine."""
    return shared_service(LLM_SERVICE_EMBEDDINGS_GATHER_MS="1000")


def at_once(service: Server, requests: list[dict[str, Any]]) -> Iterator[Any]:
    """The replies, in order, to requests that are sent at the same time."""
    client = service.http()

    def ask(body: dict[str, Any]) -> Any:
        return client.post("/v1/embeddings", json=body)

    with ThreadPoolExecutor(len(requests)) as pool:
        yield from pool.map(ask, requests)


def test_simultaneous_callers_share_one_request(batching: Server, upstream: Upstream) -> None:
    texts = [f"text {'long ' * number}" for number in range(8)]
    requests = [{"model": MODEL, "input": text if number % 2 else [text, "x"]} for number, text in enumerate(texts)]
    replies = list(at_once(batching, requests))
    assert len(upstream.requests) == 1
    whole = count(upstream.last.body)
    tokens = []
    for reply, request in zip(replies, requests, strict=True):
        body = reply.json()
        given = inputs_of(request)
        assert [item["embedding"] for item in body["data"]] == [vector(one) for one in given]
        assert [item["index"] for item in body["data"]] == list(range(len(given)))
        assert body["usage"]["exact"] is False
        tokens.append(body["usage"]["prompt_tokens"])
        row = batching.row(reply.headers["x-request-id"])
        assert (row["input_tokens"], row["usage_exact"], row["outcome"]) == (tokens[-1], False, "ok")
        assert row["attempts"] == 1 and row["cost_nanousd"] >= 0
        assert row["upstream_request_id"] == upstream.last.request_id
    assert sum(tokens) == whole
    assert tokens[-1] > tokens[1]


def test_only_requests_with_equal_options_are_batched(batching: Server, upstream: Upstream) -> None:
    kinds: list[dict[str, Any]] = [
        {},
        {"dimensions": 3},
        {"encoding_format": "base64"},
        {"user": "ann"},
        {"model": "text-embedding-3-large"},
        {"input": [1, 2]},
        {"shiny": 1},
    ]
    upstream.allow("shiny")
    requests = [{"model": MODEL, "input": "a", **kind} for kind in kinds for _ in range(2)]
    assert [reply.status_code for reply in at_once(batching, requests)] == [200] * 14
    assert len(upstream.requests) == len(kinds) + 1  # the two requests with the unknown field are sent alone


def test_a_request_that_is_sent_alone_has_the_vendor_s_exact_usage(batching: Server, upstream: Upstream) -> None:
    reply = batching.http().post("/v1/embeddings", json={"model": MODEL, "input": "alone"})
    assert "exact" not in reply.json()["usage"]
    assert batching.row(reply.headers["x-request-id"])["usage_exact"] is True


def test_a_large_request_does_not_wait_for_others(batching: Server, upstream: Upstream) -> None:
    started = time.monotonic()
    batching.http().post("/v1/embeddings", json={"model": MODEL, "input": ["a"] * 65})
    assert time.monotonic() - started < 1


def test_a_wrong_request_does_not_fail_the_others_of_its_batch(batching: Server, upstream: Upstream) -> None:
    wrong = {"model": MODEL, "input": [LAST_TOKEN + 1]}
    replies = list(at_once(batching, [{"model": MODEL, "input": [7]}, wrong, {"model": MODEL, "input": [8, 9]}]))
    assert [reply.status_code for reply in replies] == [200, 400, 200]
    assert replies[1].json()["error"]["param"] == "input"
    assert replies[2].json()["data"][0]["embedding"] == vector([8, 9])
    assert sorted(len(given) for given in inputs_per_request(upstream)) == [1, 1, 1, 3]
    rows = [batching.row(reply.headers["x-request-id"]) for reply in replies]
    assert [(row["attempts"], row["usage_exact"], row["input_tokens"]) for row in rows] == [
        (2, True, 1),
        (2, True, 0),
        (2, True, 2),
    ]
    assert [row["error_type"] for row in rows] == [None, "upstream_rejected", None]


def test_a_failed_batch_is_tried_again_by_each_request(batching: Server, upstream: Upstream) -> None:
    upstream.script(Step(status=500))
    replies = list(at_once(batching, [{"model": MODEL, "input": f"text {number}"} for number in range(3)]))
    assert [reply.status_code for reply in replies] == [200] * 3
    assert 2 <= len(upstream.requests) <= 4


def test_a_caller_that_disconnects_does_not_disturb_the_others(batching: Server, upstream: Upstream) -> None:
    upstream.script(Step(before_headers=0.3))
    caller = batching.raw()
    caller.request("POST", "/v1/embeddings", {"model": MODEL, "input": "disconnecting"}, batching.key)
    replies = list(at_once(batching, [{"model": MODEL, "input": text} for text in ("one", "two")]))
    caller.close()
    assert [reply.json()["data"][0]["embedding"] for reply in replies] == [vector("one"), vector("two")]
    assert inputs_of(upstream.last.body).count("disconnecting") == 1


def test_a_caller_that_disconnects_during_a_batch_has_its_row(batching: Server, upstream: Upstream) -> None:
    upstream.script(Step(fault="hang", after=-1))
    callers = [batching.raw() for _ in range(2)]
    for number, raw in enumerate(callers):
        body = {"model": MODEL, "input": f"disconnecting {number}"}
        raw.request("POST", "/v1/embeddings", body, batching.key, headers={"X-Request-Id": f"caller-{number}"})
    upstream.wait_requests(1)
    time.sleep(0.1)
    callers[0].close()
    row = batching.row("caller-0")
    assert (row["outcome"], row["status"], row["usage_exact"]) == ("client_closed", 499, False)
    assert upstream.last.outcome == "open"  # the other caller still waits
    callers[1].close()
    assert batching.row("caller-1")["outcome"] == "client_closed"
    upstream.wait_closed(1)  # no caller waits any more, so the request to the vendor is ended


def test_batching_can_be_turned_off(make_service: MakeService, upstream: Upstream) -> None:
    service = make_service(LLM_SERVICE_EMBEDDINGS_GATHER_MS="0")
    assert [reply.status_code for reply in at_once(service, [{"model": MODEL, "input": "a"}] * 6)] == [200] * 6
    assert len(upstream.requests) == 6


def test_an_unknown_embedding_model_is_not_found_and_not_asked_again(service: Server, upstream: Upstream) -> None:
    """A 404 for the model is not the fault of one request, so the batch is not sent again one by one."""
    replies = list(at_once(service, [{"model": GPT, "input": f"text {number}"} for number in range(4)]))
    assert {reply.status_code for reply in replies} == {404}
    assert len(upstream.requests) <= 4
