"""The official Anthropic client with an OpenAI model: tools, media, JSON, refusals and usage in both directions."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

from tests.contract.cases import PIXEL
from tests.upstream import Step, Upstream

GPT = "openai/gpt-4o-mini"
HELLO: Any = [{"role": "user", "content": "Hi"}]
WEATHER: Any = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CLOCK: Any = {"name": "clock", "input_schema": {"type": "object", "properties": {}}}
AWKWARD_INPUT = {"city": 'Zürich "\\\n\u2028🦓', "number": 12345678901234567, "none": None, "deep": [{"a": []}]}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}


def create(client: anthropic.Anthropic, stream: bool, **asked: Any) -> Any:
    """The message. The SDK's own accumulator assembles a streamed one."""
    asked = {"model": GPT, "max_tokens": 500, "messages": HELLO, **asked}
    if not stream:
        return client.messages.create(**asked)
    with client.messages.stream(**asked) as events:
        return events.get_final_message()


both = pytest.mark.parametrize("stream", [False, True])


@both
def test_a_loop_of_three_turns_with_tools_works(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, stream: bool
) -> None:
    upstream.script(
        Step(text="Let me look", tools=[{"name": "weather", "input": AWKWARD_INPUT}, {"name": "clock"}]),
        Step(tools=[{"name": "clock", "arguments": ""}]),
        Step(text="It is sunny"),
    )
    turns: list[Any] = [*HELLO]
    asked: dict[str, Any] = {"system": "Be kind.", "tools": [WEATHER, CLOCK]}

    message = create(anthropic_client, stream, messages=turns, **asked)
    assert message.stop_reason == "tool_use"
    assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
    calls = message.content[1:]
    assert [(call.name, call.input) for call in calls] == [("weather", AWKWARD_INPUT), ("clock", {})]
    assert len({call.id for call in calls}) == 2 and all(call.id.startswith("call_") for call in calls)

    results = [
        {"type": "tool_result", "tool_use_id": calls[0].id, "content": "no such city", "is_error": True},
        {"type": "tool_result", "tool_use_id": calls[1].id, "content": [{"type": "text", "text": "12"}]},
    ]
    turns += [
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [*results, {"type": "text", "text": "And then?"}]},
    ]
    message = create(anthropic_client, stream, messages=turns, **asked)
    sent = upstream.last.body["messages"]
    assert [turn["role"] for turn in sent] == ["system", "user", "assistant", "tool", "tool", "user"]
    functions = [call["function"] for call in sent[2]["tool_calls"]]
    assert [json.loads(function["arguments"]) for function in functions] == [AWKWARD_INPUT, {}]
    assert [call["id"] for call in sent[2]["tool_calls"]] == [call.id for call in calls]
    assert sent[3] == {"role": "tool", "tool_call_id": calls[0].id, "content": "Error: no such city"}
    assert sent[4] == {"role": "tool", "tool_call_id": calls[1].id, "content": "12"}
    assert sent[5] == {"role": "user", "content": "And then?"}
    assert (message.content[0].name, message.content[0].input) == ("clock", {})

    result = {"type": "tool_result", "tool_use_id": message.content[0].id}
    turns += [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    message = create(anthropic_client, stream, messages=turns, **asked)
    assert (message.stop_reason, message.content[0].text) == ("end_turn", "It is sunny")
    assert upstream.last.body["tools"][0]["function"] == {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": WEATHER["input_schema"],
    }


@pytest.mark.parametrize(
    ("choice", "sent", "parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "any"}, "required", None),
        ({"type": "none"}, "none", None),
        ({"type": "tool", "name": "clock"}, {"type": "function", "function": {"name": "clock"}}, None),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto", False),
        ({"type": "any", "disable_parallel_tool_use": False}, "required", True),
    ],
)
def test_tool_choice_is_translated(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, choice: Any, sent: Any, parallel: bool | None
) -> None:
    upstream.script(Step(text="ok"))
    create(anthropic_client, False, tools=[WEATHER, CLOCK], tool_choice=choice)
    assert upstream.last.body["tool_choice"] == sent
    assert upstream.last.body.get("parallel_tool_calls") == parallel


def test_images_and_documents_are_translated(anthropic_client: anthropic.Anthropic, upstream: Upstream) -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    content = [
        {"type": "text", "text": "Look"},
        IMAGE,
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "document", "source": pdf, "title": "a.pdf"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Body"}, "title": "Title"},
    ]
    create(anthropic_client, False, messages=[{"role": "user", "content": content}])
    assert upstream.last.body["messages"][0]["content"] == [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "text", "text": "Title\nBody"},
    ]


class City(BaseModel):
    name: str
    people: int | None = None


def test_structured_output_is_parsed(anthropic_client: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.script(Step(text='{"name": "Paris", "people": 3}'))
    message = anthropic_client.messages.parse(model=GPT, max_tokens=50, messages=HELLO, output_format=City)
    assert message.parsed_output == City(name="Paris", people=3)
    sent = upstream.last.body["response_format"]["json_schema"]
    assert sent["name"] == "answer"
    assert sent["strict"] is False  # OpenAI's strict mode demands that all properties are required
    assert set(sent["schema"]["properties"]) == {"name", "people"}


@both
def test_a_refusal_has_its_stop_reason_and_explanation(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Step(refusal="I will not do that"))
    message = create(anthropic_client, stream)
    assert (message.stop_reason, [block.text for block in message.content]) == ("refusal", ["I will not do that"])
    assert message.stop_details.explanation == "I will not do that"


@both
def test_usage_has_every_kind_of_token(anthropic_client: anthropic.Anthropic, upstream: Upstream, stream: bool) -> None:
    upstream.script(
        Step(text="d", input_tokens=100, cached_tokens=40, cache_write_tokens=20, output_tokens=9, reasoning_tokens=3)
    )
    usage = create(anthropic_client, stream).usage
    counts = (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens)
    assert counts == (40, 40, 20)
    assert (usage.output_tokens, usage.output_tokens_details.thinking_tokens) == (9, 3)


def test_a_tool_call_that_was_cut_is_left_out(anthropic_client: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.script(Step(text="I", tools=[{"name": "weather", "arguments": '{"city": "Par'}], stop_reason="length"))
    message = create(anthropic_client, False, tools=[WEATHER])
    assert (message.stop_reason, [block.type for block in message.content]) == ("max_tokens", ["text"])


@both
def test_arguments_that_are_not_json_are_an_error(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Step(tools=[{"name": "weather", "arguments": '{"city": '}], times=1 if stream else 3))
    with pytest.raises((anthropic.APIStatusError, ValueError), match=r"arguments are not a JSON object|JSON"):
        create(anthropic_client, stream, tools=[WEATHER])


PDF_URL = {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}
CALL: Any = {"type": "tool_use", "id": "t1", "name": "clock", "input": {}}
RESULT: Any = {"type": "tool_result", "tool_use_id": "t1", "content": "12"}


def called(*results: Any, **change: Any) -> list[Any]:
    turns = [*HELLO, {"role": "assistant", "content": [{**CALL, **change}]}]
    return [*turns, {"role": "user", "content": list(results)}] if results else turns


def said(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"messages": called(RESULT, input="{}")}, "messages[1].content[0].input"),
        ({"messages": called(RESULT, id="")}, "messages[1].content[0].id"),
        ({"messages": called()}, "messages[1].content[0]"),
        ({"messages": called({"type": "text", "text": "x"})}, "messages[1].content[0]"),
        ({"messages": called({**RESULT, "tool_use_id": "t2"})}, "messages[2].content[0].tool_use_id"),
        ({"messages": called(RESULT, RESULT)}, "messages[2].content[1].tool_use_id"),
        ({"messages": called({"type": "text", "text": "x"}, RESULT)}, "messages[2].content[1]"),
        ({"messages": called({**RESULT, "content": [{"type": "video"}]})}, "messages[2].content[0].content[0]"),
        ({"messages": called({**RESULT, "content": [3]})}, "messages[2].content[0].content[0]"),
        ({"messages": called({**RESULT, "is_error": "yes"})}, "messages[2].content[0].is_error"),
        (said(RESULT), "messages[0].content[0].tool_use_id"),
        (said({"type": "image"}), "messages[0].content[0].source"),
        (said({"type": "image", "source": {"type": "base64", "media_type": "image/tiff", "data": "x"}}),
         "messages[0].content[0].source.media_type"),
        (said({"type": "image", "source": {"type": "file", "file_id": "f"}}), "messages[0].content[0].source"),
        (said({"type": "image", "source": {"type": "url", "url": "file:///x"}}), "messages[0].content[0].source.url"),
        (said({"type": "image", "source": {"type": "strange"}}), "messages[0].content[0].source.type"),
        (said({"type": "document", "source": {"type": "text"}}), "messages[0].content[0].source.data"),
        (said({**PDF_URL, "citations": {"enabled": True}}), "messages[0].content[0].citations"),
        ({"tools": [CLOCK, CLOCK]}, "tools[1].name"),
        ({"tools": [CLOCK], "tool_choice": {"type": "tool", "name": "no"}}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_rejected_by_its_path(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, asked: dict[str, Any], param: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        create(anthropic_client, False, **asked)
    body: Any = caught.value.body
    assert body["error"]["details"]["param"] == param
    assert upstream.requests == []
