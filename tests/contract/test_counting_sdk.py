"""Counting tokens with both official clients and both vendors' models. Counting costs nothing."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import MessageCountTokensParams
from openai.types.responses.input_token_count_params import InputTokenCountParams

from llm_service.formats.small import count_tokens, input_tokens
from tests.contract.cases import AWKWARD, CLAUDE, ECHO, GPT, failing
from tests.support.server import Server
from tests.upstream import Step, Upstream

HELLO: Any = [{"role": "user", "content": "Hello, how are you?"}]
TOOL: Any = {"name": "look", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}}
PATHS = {CLAUDE: "/v1/messages/count_tokens", GPT: "/v1/responses/input_tokens"}


def test_the_routes_accept_every_field_of_the_sdks() -> None:
    # These two are sent as headers, so they are not fields of the body.
    headers = {"user_profile_id", "workspace_id"}
    assert set(MessageCountTokensParams.__annotations__) - headers == count_tokens.FIELDS
    assert set(InputTokenCountParams.__annotations__) == input_tokens.FIELDS


@pytest.mark.parametrize("model", [CLAUDE, GPT])
def test_anthropic_s_client_counts_tokens(
    anthropic_client: anthropic.Anthropic, service: Server, upstream: Upstream, model: str
) -> None:
    upstream.script(Step(input_tokens=77))
    raw = anthropic_client.messages.with_raw_response.count_tokens(
        model=model, messages=HELLO, system="Be kind.", tools=[TOOL]
    )
    assert raw.parse().input_tokens == 77
    assert upstream.last.path == PATHS[model]
    assert "max_tokens" not in upstream.last.body and "store" not in upstream.last.body
    row = service.row(raw.headers["x-request-id"])
    assert (row["route"], row["dialect"]) == ("/v1/messages/count_tokens", "count_tokens")
    assert (row["input_tokens"], row["cost_nanousd"], row["outcome"], row["attempts"]) == (0, 0, "ok", 1)


@pytest.mark.parametrize("model", [CLAUDE, GPT])
def test_openai_s_client_counts_tokens(
    openai_client: openai.OpenAI, service: Server, upstream: Upstream, model: str
) -> None:
    upstream.script(Step(input_tokens=78))
    raw = openai_client.responses.input_tokens.with_raw_response.count(
        model=model, input="Hello, how are you?", instructions="Be kind."
    )
    reply = raw.parse()
    assert (reply.input_tokens, reply.object) == (78, "response.input_tokens")
    assert upstream.last.path == PATHS[model]
    assert "max_tokens" not in upstream.last.body and "store" not in upstream.last.body
    row = service.row(raw.headers["x-request-id"])
    assert (row["dialect"], row["input_tokens"], row["cost_nanousd"]) == ("input_tokens", 0, 0)


def test_a_request_reaches_its_vendor_unchanged(service: Server, upstream: Upstream) -> None:
    body = {"messages": HELLO, "field_of_tomorrow": AWKWARD, "thinking": {"type": "enabled", "budget_tokens": 2048}}
    upstream.script(Step(lenient=True), Step(lenient=True))
    service.anthropic().post("/v1/messages/count_tokens", body={**body, "model": CLAUDE}, cast_to=object)
    assert upstream.last.body == {**body, "model": "claude-haiku-4-5"}
    body = {"input": [{"role": "user", "content": "Hi"}], "field_of_tomorrow": AWKWARD}
    service.openai().post("/responses/input_tokens", body={**body, "model": GPT}, cast_to=object)
    assert upstream.last.body == {**body, "model": "gpt-4o-mini"}


def test_a_longer_message_has_a_higher_count(anthropic_client: anthropic.Anthropic, upstream: Upstream) -> None:
    for model in (CLAUDE, GPT):
        counts = [
            anthropic_client.messages.count_tokens(model=model, messages=[{"role": "user", "content": text}])
            for text in ("short", "long " * 100)
        ]
        assert counts[0].input_tokens + 50 < counts[1].input_tokens


def test_echo_counts_words(anthropic_client: anthropic.Anthropic, openai_client: openai.OpenAI) -> None:
    assert anthropic_client.messages.count_tokens(model=ECHO, messages=HELLO).input_tokens == 4
    assert openai_client.responses.input_tokens.count(model=ECHO, input="one two").input_tokens == 2
    for field in ("tools_of_mine", "input"):  # one that no format knows, and one that belongs to another route
        with pytest.raises(anthropic.BadRequestError) as caught:
            anthropic_client.messages.count_tokens(model=ECHO, messages=HELLO, extra_body={field: "x"})
        assert field in str(caught.value)


@pytest.mark.parametrize("model", [CLAUDE, GPT])
def test_a_failed_count_costs_nothing(
    anthropic_client: anthropic.Anthropic, service: Server, upstream: Upstream, model: str
) -> None:
    upstream.always(failing(429))
    with pytest.raises(anthropic.RateLimitError) as limited:
        anthropic_client.messages.count_tokens(model=model, messages=HELLO)
    upstream.always(Step(body='{"input_tokens": "many"}'))
    with pytest.raises(anthropic.InternalServerError) as malformed:
        anthropic_client.messages.count_tokens(model=model, messages=HELLO)
    for caught in (limited.value, malformed.value):
        row = service.row(caught.response.headers["x-request-id"])
        assert (row["input_tokens"], row["cost_nanousd"], row["usage_exact"]) == (0, 0, True)


def test_bad_input_is_rejected_by_its_field(anthropic_client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropic_client.post("/v1/messages/count_tokens", body={"model": ECHO}, cast_to=object)
    assert "messages is required" in caught.value.message
