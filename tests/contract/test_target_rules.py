"""What the vendor of another format checks: names, ids and schemas of tools, limits of the output, white space.

The scripted vendors reject what the real ones reject, so each answer here also says that the request fitted.
"""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from tests.conftest import MakeService
from tests.contract.test_openai_crossing import complete
from tests.upstream import Step, Upstream

NAMES = ["files.read", f"mcp__{'server_' * 12}__read file", "plain-name"]
SCHEMAS: list[Any] = [
    {"type": "object"},
    {
        "anyOf": [{"properties": {"a": {"type": "array"}}, "required": ["a"]}, {"$ref": "#/definitions/B"}],
        "definitions": {"B": {"type": "object", "properties": {"b": {"type": "str", "pattern": r"\p{L}"}}}},
    },
    {"type": "object", "properties": {"c": {"type": "object"}}, "required": None},
]
HAIKU, SONNET, GPT4, GPT5 = (
    "anthropic/claude-haiku-4-5",
    "anthropic/claude-sonnet-4-6",
    "openai/gpt-4o-mini",
    "openai/gpt-5",
)
COMPATIBLE = """
[tiers.default]
[providers.local]
kind = "openai"
base_url = "{url}"
keyless = true
max_tokens_field = "max_tokens"
[models."local/*"]
max_output = 8192
tool_ids = "[a-zA-Z0-9]{{9}}"
"""
both = pytest.mark.parametrize("stream", [False, True])


def script(upstream: Upstream) -> None:
    upstream.script(Step(call_tools=3), Step(text="Done"))


def sent_names(upstream: Upstream) -> list[str]:
    """The names of the tools that the vendor got."""
    return [tool.get("function", tool)["name"] for tool in upstream.last.body["tools"]]


def forced_name(upstream: Upstream) -> str:
    choice = upstream.last.body["tool_choice"]
    name: str = choice.get("function", choice)["name"]
    return name


@both
def test_a_chat_client_keeps_its_names_with_claude(
    openai_client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    script(upstream)
    tools: Any = [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name, schema in zip(NAMES, SCHEMAS, strict=True)
    ]
    turns: list[Any] = [{"role": "user", "content": "Hi"}]
    asked: Any = {"model": HAIKU, "tools": tools}
    message = complete(openai_client, stream, messages=turns, **asked).choices[0].message
    assert [call.function.name for call in message.tool_calls] == NAMES
    first = sent_names(upstream)
    # Some servers give the same id twice, or ids with other letters.
    history = message.to_dict()
    for call in history["tool_calls"]:
        call["id"] = "functions.read:0"
    turns += [history, *({"role": "tool", "tool_call_id": "functions.read:0", "content": f"{n}"} for n in range(3))]
    choice: Any = {"type": "function", "function": {"name": NAMES[0]}}
    assert (
        complete(openai_client, stream, messages=turns, tool_choice=choice, **asked).choices[0].message.content
        == "Done"
    )
    assert sent_names(upstream) == first
    assert forced_name(upstream) == first[0]
    calls, results = (turn["content"] for turn in upstream.last.body["messages"][1:3])
    assert [block["name"] for block in calls] == first
    assert [block["tool_use_id"] for block in results] == [block["id"] for block in calls]
    assert [block["content"] for block in results] == ["0", "1", "2"]


@both
@pytest.mark.parametrize("model", [GPT4, GPT5])
def test_a_messages_client_keeps_its_names_with_openai(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, stream: bool, model: str
) -> None:
    script(upstream)
    tools: Any = [
        {"name": name, "input_schema": {"type": "object", **schema}}
        for name, schema in zip(NAMES, SCHEMAS, strict=True)
    ]
    turns: list[Any] = [{"role": "user", "content": "Hi"}]

    def ask(**more: Any) -> Any:
        asked: Any = {"model": model, "max_tokens": 2000, "messages": turns, "tools": tools, **more}
        if not stream:
            return anthropic_client.messages.create(**asked)
        with anthropic_client.messages.stream(**asked) as events:
            return events.get_final_message()

    answer = ask()
    assert [block.name for block in answer.content] == NAMES
    first = sent_names(upstream)
    content = [{**block.to_dict(), "id": f"toolu_{number}_{'x' * 70}"} for number, block in enumerate(answer.content)]
    turns += [
        {"role": "assistant", "content": content},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": b["id"], "content": "ok"} for b in content],
        },
    ]
    assert ask(tool_choice={"type": "tool", "name": NAMES[1]}).content[0].text == "Done"
    assert sent_names(upstream) == first
    assert forced_name(upstream) == first[1]


@both
def test_a_responses_client_keeps_its_names_with_claude(
    openai_client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    script(upstream)
    tools: Any = [
        {"type": "function", "name": name, "parameters": schema, "strict": False}
        for name, schema in zip(NAMES, SCHEMAS, strict=True)
    ]
    items: list[Any] = [{"role": "user", "content": "Hi"}]

    def ask(**more: Any) -> Any:
        asked: Any = {"model": HAIKU, "input": items, "tools": tools, **more}
        if not stream:
            return openai_client.responses.create(**asked)
        with openai_client.responses.stream(**asked) as events:
            return events.get_final_response()

    answer = ask()
    assert [item.name for item in answer.output] == NAMES
    items += [item.to_dict() for item in answer.output]
    items += [{"type": "function_call_output", "call_id": item.call_id, "output": "ok"} for item in answer.output]
    assert ask(tool_choice={"type": "function", "name": NAMES[1]}).output_text == "Done"
    assert forced_name(upstream) == sent_names(upstream)[1]


def test_a_server_may_want_ids_of_its_own_form_and_has_its_own_limit(
    make_service: MakeService, upstream: Upstream
) -> None:
    client = make_service(models=COMPATIBLE.format(url=upstream.compatible_url)).anthropic()
    upstream.script(Step(text="Done"))
    turns: Any = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_01", "name": "a.b", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_01", "content": "ok"}]},
    ]
    tools: Any = [{"name": "a.b", "input_schema": {"type": "object"}}]
    raw = client.messages.with_raw_response.create(model="local/llama", max_tokens=32_000, messages=turns, tools=tools)
    assert raw.headers["x-dropped-parameters"] == "max_tokens"
    sent = upstream.last.body
    assert sent["max_tokens"] == 8192
    called, result = sent["messages"][1]["tool_calls"][0]["id"], sent["messages"][2]["tool_call_id"]
    assert called == result and len(called) == 9 and called.isalnum()


def test_a_limit_above_the_model_s_own_is_lowered_and_named(
    anthropic_client: anthropic.Anthropic, upstream: Upstream
) -> None:
    upstream.script(Step(text="Hi"))
    raw = anthropic_client.messages.with_raw_response.create(
        model=GPT4, max_tokens=32_000, messages=[{"role": "user", "content": "Hi"}]
    )
    assert upstream.last.body["max_completion_tokens"] == 16_384
    assert raw.headers["x-dropped-parameters"] == "max_tokens"


@both
def test_thinking_beside_a_forced_tool_is_left_out_and_named(
    openai_client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Step(call_tools=1))
    tools: Any = [{"type": "function", "function": {"name": "look"}}]
    asked: Any = {"model": SONNET, "messages": [{"role": "user", "content": "Hi"}], "tools": tools, "stream": stream}
    with openai_client.chat.completions.with_streaming_response.create(
        **asked, tool_choice="required", reasoning_effort="high"
    ) as raw:
        assert raw.headers["x-dropped-parameters"] == "reasoning_effort"
        raw.read()
    assert "thinking" not in upstream.last.body


@pytest.mark.parametrize(
    ("turns", "param"),
    [
        ([{"role": "user", "content": " "}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text", "text": " "}]}], "messages[0].content[0]"),
    ],
)
def test_a_blank_turn_of_the_user_is_rejected_by_its_path(openai_client: openai.OpenAI, turns: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(model=HAIKU, messages=turns)
    assert caught.value.param == param


def test_white_space_in_other_places_does_not_stop_a_request(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(text="Hi"))
    turns: Any = [
        {"role": "system", "content": "  "},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": " "}]},
        {"role": "assistant", "content": " "},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": ""},
    ]
    assert openai_client.chat.completions.create(model=HAIKU, messages=turns).choices[0].message.content == "Hi"
    assert [turn["role"] for turn in upstream.last.body["messages"]] == ["user", "user"]


COUNTS: Any = {"type": "object", "additionalProperties": {"type": "integer"}}


def test_a_schema_of_an_answer_with_names_of_the_model_s_own_is_rejected_by_its_path(
    openai_client: openai.OpenAI,
) -> None:
    schema = {"type": "object", "properties": {"counts": COUNTS}, "required": ["counts"], "additionalProperties": False}
    format: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match="list them all") as caught:
        openai_client.chat.completions.create(
            model=HAIKU, messages=[{"role": "user", "content": "Hi"}], response_format=format
        )
    assert caught.value.param == "response_format.json_schema.schema.properties.counts.additionalProperties"


def test_a_strict_tool_that_anthropic_cannot_take_as_strict_is_sent_without_it(
    openai_client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.script(Step(call_tools=1))
    parameters = {"type": "object", "properties": {"counts": COUNTS}}
    tools: Any = [{"type": "function", "function": {"name": "count", "strict": True, "parameters": parameters}}]
    raw = openai_client.chat.completions.with_raw_response.create(
        model=HAIKU, messages=[{"role": "user", "content": "Hi"}], tools=tools
    )
    assert raw.headers["x-dropped-parameters"] == "tools[].function.strict"
    assert upstream.last.body["tools"] == [{"name": "count", "input_schema": parameters, "strict": False}]
