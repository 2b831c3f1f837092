"""A vendor's failure reaches every client in the words of the client's own vendor, as a status and inside a stream."""

from __future__ import annotations

import json
import time
from typing import Any

import anthropic
import openai
import pytest

from tests.contract.cases import CLAUDE, GPT, HELLO, VENDORS, failing, messages_request
from tests.support.server import Server
from tests.support.sse import read_sse
from tests.upstream import Step, Upstream

TOO_LONG = {
    GPT: "This model's maximum context length is 128000 tokens. However, your messages resulted in 130011 tokens.",
    CLAUDE: "prompt is too long: 130011 tokens > 128000 maximum",
}
OPENAI_SENTENCE = (
    "This model's maximum context length is 128000 tokens. However, your messages resulted in 130011 tokens. Please "
    "reduce the length of the messages."
)
CLAUDE_SENTENCE = "prompt is too long: 130011 tokens > 128000 maximum"
# Every route that generates, with a body for it.
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/responses": {"input": "Hi"},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 100},
}


def described(reply: Any) -> tuple[str, str]:
    """The code and the sentence of an error in any format."""
    reply = reply.get("response", reply)  # the last event of a stream of Responses
    error = reply.get("error", reply)
    if "details" in error:
        return error["details"]["error_code"], error["message"]
    return error["code"], error.get("message") or error["detail"]


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_is_too_long_is_reported_in_the_caller_s_words(
    service: Server, upstream: Upstream, model: str, route: str, stream: bool
) -> None:
    upstream.script(Step(status=400, message=TOO_LONG[model]))
    reply = service.http().post(route, json={"model": model, "stream": stream, **ROUTES[route]})
    expected = CLAUDE_SENTENCE if route == "/v1/messages" else OPENAI_SENTENCE
    assert (reply.status_code, described(reply.json())) == (400, ("context_length_exceeded", expected))
    assert reply.headers["x-should-retry"] == "false"
    row = service.row(reply.headers["x-request-id"])
    assert (row["outcome"], row["error_type"]) == ("upstream_error", "context_length_exceeded")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("after", [0, 3])
def test_a_request_that_is_too_long_is_reported_inside_a_stream_too(
    service: Server, upstream: Upstream, model: str, route: str, after: int
) -> None:
    upstream.script(Step(words=9, fault="error", after=after, status=400, message=TOO_LONG[model]))
    with service.http().stream("POST", route, json={"model": model, "stream": True, **ROUTES[route]}) as reply:
        if reply.status_code == 200:
            last = list(read_sse(reply))[-1]
            said = json.loads(last.data or "")
        else:
            said = json.loads(reply.read())
    expected = CLAUDE_SENTENCE if route == "/v1/messages" else OPENAI_SENTENCE
    assert described(said) == ("context_length_exceeded", expected)


def test_the_simple_api_and_embeddings_report_it_by_the_same_code(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(status=400, message=TOO_LONG[CLAUDE]))
    reply = service.http().post("/v1/complete", json={"model": CLAUDE, "prompt": "Hi"})
    assert (reply.status_code, reply.json()["code"]) == (400, "context_length_exceeded")
    assert reply.json()["detail"].startswith("The request has 130011 tokens, more than the model's context window of")
    upstream.script(
        Step(
            status=400,
            message="This model's maximum context length is 8192 tokens, however you requested 9000 tokens (9000 in "
            "your prompt; 0 for the completion). Please reduce your prompt; or completion length.",
        )
    )
    with pytest.raises(openai.BadRequestError) as caught:
        service.openai().embeddings.create(model="openai/text-embedding-3-small", input="Hi")
    assert caught.value.code == "context_length_exceeded"
    assert "8192 tokens" in caught.value.message and "9000 tokens" in caught.value.message


def test_claude_code_can_lower_its_output_limit_for_another_vendor_s_model(
    anthropic_client: anthropic.Anthropic, upstream: Upstream
) -> None:
    upstream.script(
        Step(
            status=400,
            message="This model's maximum context length is 8192 tokens. However, you requested 10000 tokens (6000 in "
            "the messages, 4000 in the completion). Please reduce the length of the messages or completion.",
        )
    )
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropic_client.messages.create(**messages_request(model=GPT))
    assert caught.value.api_message is not None
    assert "input length and `max_tokens` exceed context limit: 6000 + 4000 > 8192" in caught.value.api_message


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize("route", ROUTES)
def test_a_content_policy_is_reported_in_the_caller_s_words(
    service: Server, upstream: Upstream, model: str, route: str
) -> None:
    if model == GPT:
        upstream.script(Step(status=400, message="Your request was rejected.", error_code="content_policy_violation"))
    else:
        upstream.script(Step(status=400, message="Output blocked by content filtering policy"))
    reply = service.http().post(route, json={"model": model, **ROUTES[route]})
    code, sentence = described(reply.json())
    assert (reply.status_code, reply.headers["x-should-retry"]) == (400, "false")
    assert code == ("invalid_prompt" if route == "/v1/responses" else "content_policy_violation")
    assert ("content filtering policy" if route == "/v1/messages" else "content policy") in sentence


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("status", "openai_codes", "claude_type", "statuses"),
    [
        (429, {"rate_limit_exceeded"}, "rate_limit_error", (429, 429)),
        (529, {"server_is_overloaded"}, "overloaded_error", (503, 529)),
        (503, {"server_is_overloaded", "slow_down"}, "overloaded_error", (503, 529)),
        (413, {"request_too_large"}, "request_too_large", (413, 413)),
    ],
)
def test_other_failures_have_the_status_and_the_code_of_the_caller_s_vendor(
    service: Server,
    upstream: Upstream,
    model: str,
    route: str,
    status: int,
    openai_codes: set[str],
    claude_type: str,
    statuses: tuple[int, int],
) -> None:
    upstream.script(failing(status))
    reply = service.http().post(route, json={"model": model, **ROUTES[route]})
    error = reply.json()["error"]
    if route == "/v1/messages":
        assert (reply.status_code, error["type"]) == (statuses[1], claude_type)
    else:
        assert reply.status_code == statuses[0]
        assert error["code"] in openai_codes
    assert reply.headers["retry-after"] == "30"


def test_nothing_of_the_prompt_comes_back_in_a_sentence_about_its_length(service: Server, upstream: Upstream) -> None:
    secret = "the launch code is quartz-hummingbird"
    upstream.script(Step(status=400, message="prompt is too long: {prompt} has 130011 tokens > 128000 maximum"))
    body = {"model": CLAUDE, "messages": [{"role": "user", "content": secret}]}
    reply = service.http().post("/v1/chat/completions", json=body)
    assert "quartz" not in reply.text and "launch" not in reply.text
    assert described(reply.json())[0] == "context_length_exceeded"


# Refusals of this service that no repetition changes, on each route.
@pytest.mark.parametrize("route", ROUTES)
def test_a_final_refusal_tells_the_sdks_not_to_retry(service: Server, route: str) -> None:
    body = {"model": CLAUDE, **ROUTES[route]}
    only_echo = service.create_key(models=("echo",)).text
    replies = {
        401: service.http(key="lsk_wrong").post(route, json=body),
        403: service.http(key=only_echo).post(route, json=body),
        404: service.http().post(route, json={**body, "model": "no/such-model"}),
        400: service.http().post(route, json={"model": CLAUDE}),
        415: service.http().post(route, content=b"x", headers={"content-type": "text/plain"}),
    }
    for status, reply in replies.items():
        assert reply.status_code == status, reply.text
        assert reply.headers["x-should-retry"] == "false", status


def test_a_wrong_key_is_not_tried_again_by_the_official_sdks(service: Server) -> None:
    began = time.monotonic()
    with pytest.raises(anthropic.AuthenticationError) as claude:
        service.anthropic("lsk_wrong", max_retries=8).messages.create(**messages_request())
    with pytest.raises(openai.AuthenticationError) as gpt:
        service.openai("lsk_wrong", max_retries=8).chat.completions.create(model=GPT, messages=HELLO)
    requests = [claude.value.response.request, gpt.value.response.request]
    assert [request.headers["x-stainless-retry-count"] for request in requests] == ["0", "0"]
    assert time.monotonic() - began < 30
