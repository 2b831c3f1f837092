"""Responses on one side only: for servers that know only chat, after a fallback, and for Anthropic's client."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.conftest import MakeService
from tests.contract.cases import (
    GPT,
    PIXEL,
)
from tests.upstream import Step, Upstream

GPT5 = "openai/gpt-5"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "name": "look", "parameters": SCHEMA, "strict": False}]
CLAUDE_TOOLS: Any = [{"name": "look", "input_schema": SCHEMA}]
LOOK_CALL = {"name": "look", "input": {"city": "Paris"}}


# ---- servers that know only chat, and turns of another vendor


COMPATIBLE = """
[tiers.default]
[providers.local]
kind = "openai"
base_url = "{url}"
keyless = true
max_tokens_field = "max_tokens"
[providers.anthropic]
kind = "anthropic"
key_env = "ANTHROPIC_API_KEY"
base_url_env = "ANTHROPIC_BASE_URL"
[providers.openai]
kind = "openai"
key_env = "OPENAI_API_KEY"
base_url_env = "OPENAI_BASE_URL"
[aliases.any]
targets = ["anthropic/claude-haiku-4-5", "openai/gpt-5"]
[models."anthropic/*"]
thinking = "budget"
[models."openai/*"]
thinking = "effort"
sampling = false
"""


def test_a_server_that_knows_only_chat_gets_a_chat_request(make_service: MakeService, upstream: Upstream) -> None:
    client = make_service(models=COMPATIBLE.format(url=upstream.compatible_url)).openai()
    upstream.script(Step(text="Hi there"), Step(tools=[LOOK_CALL]))
    assert client.responses.create(model="local/llama", input="Hello", max_output_tokens=9).output_text == "Hi there"
    assert upstream.last.path == "/compatible/v1/chat/completions"
    assert upstream.last.body["max_tokens"] == 9
    with client.responses.stream(model="local/llama", input="Hello", tools=TOOLS) as stream:
        assert stream.get_final_response().output[0].type == "function_call"


def test_claude_s_thinking_does_not_stop_a_fallback_to_openai(make_service: MakeService, upstream: Upstream) -> None:
    client = make_service(models=COMPATIBLE.format(url=upstream.compatible_url)).openai()
    upstream.script(Step(thinking="Hm", tools=[LOOK_CALL]), Step(status=529, times=3), Step(text="All done"))
    items: list[Any] = [{"role": "user", "content": "Go"}]
    first = client.responses.create(model="any", input=items, tools=TOOLS)
    assert first.output[0].type == "reasoning"
    items += [item.to_dict() for item in first.output]
    items += [{"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "x"}]  # type: ignore[union-attr]
    raw = client.responses.with_raw_response.create(model="any", input=items, tools=TOOLS)
    assert raw.parse().output_text == "All done"
    assert raw.headers["x-dropped-parameters"] == "input[].reasoning"
    assert upstream.last.path == "/v1/responses"
    assert [item.get("type") for item in upstream.last.body["input"]] == [None, "function_call", "function_call_output"]


def test_openai_s_reasoning_does_not_stop_a_fallback_to_claude(make_service: MakeService, upstream: Upstream) -> None:
    catalogue = COMPATIBLE.replace(
        '["anthropic/claude-haiku-4-5", "openai/gpt-5"]', '["openai/gpt-5", "anthropic/claude-haiku-4-5"]'
    )
    client = make_service(models=catalogue.format(url=upstream.compatible_url)).anthropic()
    upstream.script(Step(thinking="Hm", tools=[LOOK_CALL]), Step(status=503, times=3), Step(text="All done"))
    turns: list[Any] = [{"role": "user", "content": "Go"}]
    asked: Any = {"model": "any", "max_tokens": 2000, "tools": CLAUDE_TOOLS}
    first = client.messages.create(**asked, messages=turns, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block.type for block in first.content] == ["thinking", "tool_use"]
    result = {"type": "tool_result", "tool_use_id": first.content[1].id, "content": "x"}
    turns += [
        {"role": "assistant", "content": [block.to_dict() for block in first.content]},
        {"role": "user", "content": [result]},
    ]
    raw = client.messages.with_raw_response.create(**asked, messages=turns)
    assert raw.headers["x-dropped-parameters"] == "messages[].thinking"
    assert upstream.last.path == "/v1/messages"
    assert [block["type"] for block in upstream.last.body["messages"][1]["content"]] == ["tool_use"]


# ---- Anthropic's client with an OpenAI model


@pytest.mark.parametrize("stream", [False, True])
def test_an_anthropic_client_has_tools_and_thinking_with_an_openai_model(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Step(thinking="Hm, so", text="Let me see", tools=[LOOK_CALL]), Step(text="All done"))
    turns: list[Any] = [{"role": "user", "content": "Go"}]

    def ask() -> Any:
        asked: Any = {"model": GPT5, "max_tokens": 2000, "messages": turns, "tools": CLAUDE_TOOLS}
        asked |= {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "high"}}
        if not stream:
            return anthropic_client.messages.create(**asked)
        with anthropic_client.messages.stream(**asked) as events:
            return events.get_final_message()

    first = ask()
    assert upstream.last.path == "/v1/responses"
    assert upstream.last.body["reasoning"] == {"effort": "high", "summary": "auto"}
    assert upstream.last.body["tools"][0]["strict"] is False
    assert upstream.last.body["store"] is False
    assert [block.type for block in first.content] == ["thinking", "text", "tool_use"]
    assert (first.stop_reason, first.content[0].thinking) == ("tool_use", "Hm, so")
    shown = [
        {"type": "text", "text": "see"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
    ]
    result = {"type": "tool_result", "tool_use_id": first.content[2].id, "content": shown}
    turns += [
        {"role": "assistant", "content": [block.to_dict() for block in first.content]},
        {"role": "user", "content": [result]},
    ]
    assert ask().content[0].text == "All done"
    items = upstream.last.body["input"]
    assert [item.get("type") for item in items] == [None, "reasoning", None, "function_call", "function_call_output"]
    assert items[1]["summary"] == [{"type": "summary_text", "text": "Hm, so"}]
    assert [part["type"] for part in items[4]["output"]] == ["input_text", "input_image"]


def test_images_from_a_tool_are_sent_as_a_responses_request(
    anthropic_client: anthropic.Anthropic, upstream: Upstream
) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    turns: list[Any] = [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [image]}]},
    ]
    anthropic_client.messages.create(model=GPT, max_tokens=50, messages=turns, tools=CLAUDE_TOOLS)
    assert upstream.last.path == "/v1/responses"
    anthropic_client.messages.create(model=GPT, max_tokens=50, messages=turns[:1], tools=CLAUDE_TOOLS)
    assert upstream.last.path == "/v1/chat/completions"
