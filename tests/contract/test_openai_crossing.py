"""The official OpenAI client with an Anthropic model: tools, media, JSON, thinking and usage in both directions."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.contract.cases import PIXEL
from tests.upstream import Step, Upstream

CLAUDE, ADAPTIVE, NEWEST = "anthropic/claude-haiku-4-5", "anthropic/claude-opus-4-6", "anthropic/claude-fable-5"
HELLO: Any = [{"role": "user", "content": "Hi"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "clock"}}
AWKWARD_ARGUMENTS = {"city": 'Zürich "\\\n\u2028🦓', "number": 12345678901234567, "none": None, "deep": [{"a": []}]}


def complete(client: openai.OpenAI, stream: bool, **asked: Any) -> Any:
    """The completion. The SDK's own accumulator assembles a streamed one."""
    if not stream:
        return client.chat.completions.create(**asked)
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
        for _ in events:
            pass
        return events.current_completion_snapshot


both = pytest.mark.parametrize("stream", [False, True])


@both
def test_a_loop_of_three_turns_with_tools_works(openai_client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    upstream.script(
        Step(text="Let me look", tools=[{"name": "weather", "input": AWKWARD_ARGUMENTS}, {"name": "clock"}]),
        Step(tools=[{"name": "clock", "arguments": ""}]),
        Step(text="It is sunny"),
    )
    turns: list[Any] = [{"role": "system", "content": "Be kind."}, *HELLO]
    asked: dict[str, Any] = {"model": CLAUDE, "tools": [WEATHER, CLOCK]}

    choice = complete(openai_client, stream, messages=turns, **asked).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me look")
    assert [call.function.name for call in choice.message.tool_calls] == ["weather", "clock"]
    assert json.loads(choice.message.tool_calls[0].function.arguments) == AWKWARD_ARGUMENTS
    assert json.loads(choice.message.tool_calls[1].function.arguments) == {}
    ids = [call.id for call in choice.message.tool_calls]
    assert len(set(ids)) == 2 and all(id.startswith("toolu_") for id in ids)

    turns.append(choice.message.to_dict())
    turns += [{"role": "tool", "tool_call_id": id, "content": f"{id} says 3"} for id in ids]
    turns.append({"role": "user", "content": "And then?"})
    choice = complete(openai_client, stream, messages=turns, **asked).choices[0]
    sent = upstream.last.body["messages"]
    assert [block["type"] for block in sent[1]["content"]] == ["text", "tool_use", "tool_use"]
    assert [block.get("input") for block in sent[1]["content"]] == [None, AWKWARD_ARGUMENTS, {}]
    assert sent[2] == {
        "role": "user",
        "content": [
            *({"type": "tool_result", "tool_use_id": id, "content": f"{id} says 3"} for id in ids),
            {"type": "text", "text": "And then?"},
        ],
    }
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {}

    turns.append(choice.message.to_dict())
    turns.append({"role": "tool", "tool_call_id": choice.message.tool_calls[0].id, "content": ""})
    choice = complete(openai_client, stream, messages=turns, **asked).choices[0]
    assert (choice.finish_reason, choice.message.content, choice.message.tool_calls) == ("stop", "It is sunny", None)
    assert upstream.last.body["tools"] == [
        {"name": "weather", "description": "Tells the weather.", "input_schema": WEATHER["function"]["parameters"]},
        {"name": "clock", "input_schema": {"type": "object", "properties": {}}},
    ]


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "clock"}}}, {"type": "tool", "name": "clock"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"parallel_tool_calls": False, "tool_choice": "required"},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
        ({"parallel_tool_calls": False, "tool_choice": "none"}, {"type": "none"}),
        ({"parallel_tool_calls": True}, None),
        ({}, None),
    ],
)
def test_tool_choice_and_parallel_tool_calls_are_translated(
    openai_client: openai.OpenAI, upstream: Upstream, asked: dict[str, Any], sent: Any
) -> None:
    upstream.script(Step(text="ok"))
    openai_client.chat.completions.create(model=CLAUDE, messages=HELLO, tools=[WEATHER, CLOCK], **asked)
    assert upstream.last.body.get("tool_choice") == sent


def test_only_allowed_tools_are_offered(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    only = {"mode": "required", "tools": [{"type": "function", "function": {"name": "clock"}}]}
    choice: Any = {"type": "allowed_tools", "allowed_tools": only}
    openai_client.chat.completions.create(model=CLAUDE, messages=HELLO, tools=[WEATHER, CLOCK], tool_choice=choice)
    assert [tool["name"] for tool in upstream.last.body["tools"]] == ["clock"]
    assert upstream.last.body["tool_choice"] == {"type": "any"}


def test_images_and_documents_are_translated(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    content = [
        {"type": "text", "text": "Look", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
    ]
    messages: Any = [{"role": "user", "content": content}]
    raw = openai_client.chat.completions.with_raw_response.create(model=CLAUDE, messages=messages)
    assert raw.headers["x-dropped-parameters"] == "image_url.detail"
    assert upstream.last.body["messages"][0]["content"] == [
        {"type": "text", "text": "Look", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            "title": "a.pdf",
        },
    ]


class City(BaseModel):
    name: str
    people: int | None = None


def test_structured_output_is_parsed(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(text='{"name": "Paris", "people": 3}'))
    completion = openai_client.chat.completions.parse(model=CLAUDE, messages=HELLO, response_format=City)
    assert completion.choices[0].message.parsed == City(name="Paris", people=3)
    schema = upstream.last.body["output_config"]["format"]["schema"]
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {"name", "people"}


@both
def test_json_without_a_schema_is_requested_in_words_and_checked(
    openai_client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    asked: dict[str, Any] = {
        "model": CLAUDE,
        "messages": [{"role": "system", "content": "Speak JSON."}, *HELLO],
        "response_format": {"type": "json_object"},
    }
    upstream.script(Step(text='{"a": 1}'))
    assert complete(openai_client, stream, **asked).choices[0].message.content == '{"a": 1}'
    system = upstream.last.body["system"]
    assert system[0] == {"type": "text", "text": "Speak JSON."}
    assert "JSON object" in system[1]["text"]
    upstream.script(Step(text="Sure: {}", times=1 if stream else 3))
    with pytest.raises(openai.APIError, match="asked for a JSON object") as caught:
        complete(openai_client, stream, **asked)
    assert getattr(caught.value, "status_code", None) == (None if stream else 502)
    upstream.script(Step(text='{"a": 1', stop_reason="max_tokens"))
    assert complete(openai_client, stream, **asked).choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("model", "effort", "more", "thinking", "config"),
    [
        (ADAPTIVE, "low", {}, {"type": "adaptive"}, {"effort": "low"}),
        (ADAPTIVE, "minimal", {}, {"type": "adaptive"}, {"effort": "low"}),
        (ADAPTIVE, "xhigh", {}, {"type": "adaptive"}, {"effort": "high"}),
        (ADAPTIVE, "none", {}, {"type": "disabled"}, None),
        (NEWEST, "none", {}, None, {"effort": "low"}),
        (CLAUDE, "low", {"max_completion_tokens": 8000}, {"type": "enabled", "budget_tokens": 2048}, None),
        (CLAUDE, "high", {"max_completion_tokens": 8000}, {"type": "enabled", "budget_tokens": 6000}, None),
        (CLAUDE, "none", {}, {"type": "disabled"}, None),
    ],
)
def test_effort_becomes_the_setting_that_the_model_supports(
    openai_client: openai.OpenAI,
    upstream: Upstream,
    model: str,
    effort: Any,
    more: dict[str, Any],
    thinking: Any,
    config: Any,
) -> None:
    openai_client.chat.completions.create(model=model, messages=HELLO, reasoning_effort=effort, **more)
    assert upstream.last.body.get("thinking") == thinking
    assert upstream.last.body.get("output_config") == config


@pytest.mark.parametrize(
    "more",
    [
        {"max_completion_tokens": 1000},
        {"tools": [CLOCK], "tool_choice": "required", "max_completion_tokens": 8000},
    ],
)
def test_thinking_that_the_vendor_would_reject_is_dropped_by_name(
    openai_client: openai.OpenAI, upstream: Upstream, more: dict[str, Any]
) -> None:
    raw = openai_client.chat.completions.with_raw_response.create(
        model=CLAUDE, messages=HELLO, reasoning_effort="high", **more
    )
    assert raw.headers["x-dropped-parameters"] == "reasoning_effort"
    assert "thinking" not in upstream.last.body


@both
def test_thinking_is_sent_back_with_its_signature(
    openai_client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Step(thinking="Let me think it over", tools=[{"name": "clock"}]), Step(text="Noon"))
    asked: dict[str, Any] = {
        "model": CLAUDE,
        "tools": [CLOCK],
        "reasoning_effort": "medium",
        "max_completion_tokens": 16_000,
    }
    message = complete(openai_client, stream, messages=HELLO, **asked).choices[0].message
    assert not message.content
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "12"}
    turns: list[Any] = [*HELLO, message.to_dict(), result]
    reply = complete(openai_client, stream, messages=turns, **asked)
    thought, call = upstream.last.body["messages"][1]["content"]
    assert (thought["type"], thought["thinking"]) == ("thinking", "Let me think it over")
    assert thought["signature"]
    assert call["type"] == "tool_use"
    assert upstream.last.body["thinking"]["type"] == "enabled"
    assert reply.usage.completion_tokens_details is not None

    # A client that drops the service's own fields still gets its answer. The thinking is dropped by name.
    plain = {name: value for name, value in message.to_dict().items() if name != "claude_thinking"}
    turns_without_thinking: Any = [*HELLO, plain, result]
    raw = openai_client.chat.completions.with_raw_response.create(messages=turns_without_thinking, **asked)
    assert raw.headers["x-dropped-parameters"] == "reasoning_effort"
    # The thinking is not sent to a model of another vendor.
    openai_client.chat.completions.create(model="openai/gpt-4o-mini", messages=turns, tools=[CLOCK])
    assert "claude_thinking" not in json.dumps(upstream.last.body)


@pytest.mark.parametrize("model", [CLAUDE, NEWEST])
def test_later_instructions_keep_their_position(openai_client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    messages: Any = [*HELLO, {"role": "developer", "content": "Be brief."}, *HELLO]
    raw = openai_client.chat.completions.with_raw_response.create(model=model, messages=messages)
    role, text = ("system", "Be brief.") if model == NEWEST else ("user", "System: Be brief.")
    assert upstream.last.body["messages"][1] == {"role": role, "content": text}
    assert raw.headers.get("x-dropped-parameters") == (None if model == NEWEST else "messages[1].role")


@both
@pytest.mark.parametrize("said", [None, "I would"])
def test_a_refusal_is_reported_as_a_refusal(
    openai_client: openai.OpenAI, upstream: Upstream, stream: bool, said: str | None
) -> None:
    upstream.script(Step(refusal="Not this") if said is None else Step(text=said, stop_reason="refusal"))
    choice = complete(openai_client, stream, model=CLAUDE, messages=HELLO).choices[0]
    if said is None:  # as OpenAI reports its own refusals
        assert (choice.finish_reason, choice.message.refusal) == ("stop", "Not this")
        assert not choice.message.content
    else:
        assert choice.finish_reason == "content_filter"


@both
def test_usage_has_every_kind_of_token(openai_client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    upstream.script(
        Step(thinking="a b c", text="d", input_tokens=100, cached_tokens=40, cache_write_tokens=20, output_tokens=9)
    )
    usage = complete(openai_client, stream, model=CLAUDE, messages=HELLO).usage
    details = usage.prompt_tokens_details
    assert (usage.prompt_tokens, details.cached_tokens, details.model_dump()["cache_write_tokens"]) == (100, 40, 20)
    assert (usage.completion_tokens, usage.completion_tokens_details.reasoning_tokens) == (9, 3)


SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {"name": "x", "schema": {"type": "object", "properties": {"a": {}}}},
}
CALL: Any = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}


def called(**change: Any) -> list[Any]:
    return [*HELLO, {"role": "assistant", "content": None, "tool_calls": [{**CALL, **change}]}]


def calling(function: dict[str, str]) -> dict[str, Any]:
    return {"messages": called(function=function)}


def said(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


NOBODY: Any = {"type": "function", "function": {"name": "no"}}
LISTED: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}
FUNCTION = "messages[1].tool_calls[0].function"
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "12"}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (calling({"name": "clock", "arguments": "[]"}), f"{FUNCTION}.arguments"),
        (calling({"name": "clock"}), f"{FUNCTION}.arguments"),
        (calling({"arguments": "{}"}), f"{FUNCTION}.name"),
        ({"messages": called(id="")}, "messages[1].tool_calls[0].id"),
        ({"messages": called(type="web_search")}, "messages[1].tool_calls[0].type"),
        ({"messages": called(type="custom")}, "messages[1].tool_calls[0].function"),
        ({"messages": called()}, "messages[1].tool_calls[0]"),
        ({"messages": [*called(), *HELLO]}, "messages[1].tool_calls[0]"),
        ({"messages": [*called(), {**RESULT, "tool_call_id": "c2"}]}, "messages[2].tool_call_id"),
        ({"messages": [*called(), RESULT, RESULT]}, "messages[3].tool_call_id"),
        ({"messages": [RESULT, *HELLO]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0]"),
        (
            said({"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AA"}}),
            "messages[0].content[0].image_url.url",
        ),
        (
            said({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}),
            "messages[0].content[0].image_url.url",
        ),
        (
            said({"type": "file", "file": {"file_data": "data:text/html;base64,AA"}}),
            "messages[0].content[0].file.file_data",
        ),
        ({"messages": HELLO, "response_format": SCHEMA}, "response_format.json_schema.schema.properties.a"),
        ({"messages": HELLO, "tools": [CLOCK, CLOCK]}, "tools[1].function.name"),
        ({"messages": HELLO, "tools": [CLOCK], "tool_choice": NOBODY}, "tool_choice"),
        ({"messages": HELLO, "tool_choice": "required"}, "tool_choice"),
        (
            {"messages": HELLO, "tools": [LISTED]},
            "tools[0].function.parameters.type",
        ),
    ],
)  # fmt: skip
def test_a_wrong_value_is_rejected_by_its_path(
    openai_client: openai.OpenAI, upstream: Upstream, asked: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(model=CLAUDE, **asked)
    assert caught.value.param == param
    assert upstream.requests == []
