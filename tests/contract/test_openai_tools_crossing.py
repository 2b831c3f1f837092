"""The official OpenAI client with an Anthropic model: the older functions, and custom tools."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.contract.test_openai_crossing import AWKWARD_ARGUMENTS, CLAUDE, HELLO, both, complete
from tests.upstream import Step, Upstream

WEATHER: Any = {"name": "weather", "description": "Tells it.", "parameters": {"type": "object", "properties": {}}}
CLOCK: Any = {"name": "clock"}
PATCH: Any = {"type": "custom", "custom": {"name": "patch", "description": "Applies a patch."}}
TEXT = '*** Begin\n"quoted" \\ Zürich 🦓\u2028\tend'


def tool_call_deltas(client: openai.OpenAI, **asked: Any) -> tuple[list[dict[str, Any]], str]:
    """The tool call deltas of a stream, and its finish reason. The SDK's helper does not support custom tools."""
    deltas: list[dict[str, Any]] = []
    reason = ""
    for chunk in client.chat.completions.create(stream=True, **asked):
        [choice] = chunk.choices
        delta: Any = choice.to_dict()["delta"]
        deltas += delta.get("tool_calls", [])
        reason = choice.finish_reason or reason
    return deltas, reason


@both
def test_a_loop_of_the_older_functions_works(openai_client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    upstream.script(
        Step(text="Let me look", tools=[{"name": "weather", "input": AWKWARD_ARGUMENTS}]),
        Step(tools=[{"name": "clock", "arguments": ""}]),
        Step(text="It is sunny"),
    )
    asked: dict[str, Any] = {"model": CLAUDE, "functions": [WEATHER, CLOCK]}
    turns: list[Any] = list(HELLO)

    choice = complete(openai_client, stream, messages=turns, **asked).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("function_call", "Let me look")
    assert choice.message.tool_calls is None
    assert choice.message.function_call.name == "weather"
    assert json.loads(choice.message.function_call.arguments) == AWKWARD_ARGUMENTS
    assert upstream.last.body["tools"] == [
        {"name": "weather", "description": "Tells it.", "input_schema": WEATHER["parameters"]},
        {"name": "clock", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert upstream.last.body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}

    turns += [choice.message.to_dict(), {"role": "function", "name": "weather", "content": "3 degrees"}]
    choice = complete(openai_client, stream, messages=turns, **asked).choices[0]
    assert upstream.last.body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me look"},
                {"type": "tool_use", "id": "function_call_1", "name": "weather", "input": AWKWARD_ARGUMENTS},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "function_call_1", "content": "3 degrees"}],
        },
    ]
    assert (choice.message.function_call.name, choice.message.function_call.arguments) == ("clock", "{}")

    turns += [choice.message.to_dict(), {"role": "function", "name": "clock", "content": None}]
    choice = complete(openai_client, stream, messages=[*turns, *HELLO], **asked).choices[0]
    assert upstream.last.body["messages"][4]["content"] == [
        {"type": "tool_result", "tool_use_id": "function_call_3"},
        {"type": "text", "text": "Hi"},
    ]
    assert (choice.finish_reason, choice.message.content, choice.message.function_call) == ("stop", "It is sunny", None)


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", {"type": "auto", "disable_parallel_tool_use": True}),
        ("none", {"type": "none"}),
        ({"name": "clock"}, {"type": "tool", "name": "clock", "disable_parallel_tool_use": True}),
    ],
)
def test_function_call_is_translated_to_tool_choice(
    openai_client: openai.OpenAI, upstream: Upstream, choice: Any, sent: Any
) -> None:
    upstream.script(Step(text="ok"))
    openai_client.chat.completions.create(model=CLAUDE, messages=HELLO, functions=[CLOCK], function_call=choice)
    assert upstream.last.body["tool_choice"] == sent


@both
def test_two_functions_at_once_are_an_error_in_the_older_form(
    openai_client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Step(tools=[{"name": "clock"}, {"name": "weather"}], times=1 if stream else 3))
    with pytest.raises(openai.APIError, match="several functions at once"):
        complete(openai_client, stream, model=CLAUDE, messages=HELLO, functions=[CLOCK, WEATHER])


def test_a_custom_tool_has_text_as_input_and_output(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(
        Step(tools=[{"name": "patch", "input": {"input": TEXT}}, {"name": "clock", "input": {}}]), Step(text="Done")
    )
    tools: Any = [PATCH, {"type": "function", "function": CLOCK}]
    choice: Any = {"type": "custom", "custom": {"name": "patch"}}
    asked: dict[str, Any] = {"model": CLAUDE, "tools": tools}
    answer: Any = openai_client.chat.completions.create(messages=HELLO, tool_choice=choice, **asked)
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    patch, clock = message.tool_calls
    assert patch.type == "custom" and (patch.custom.name, patch.custom.input) == ("patch", TEXT)
    assert clock.type == "function" and clock.function.arguments == "{}"
    sent = upstream.last.body
    assert sent["tools"][0]["description"] == "Applies a patch."
    assert list(sent["tools"][0]["input_schema"]["properties"]) == ["input"]
    assert sent["tool_choice"] == {"type": "tool", "name": "patch"}

    results: Any = [{"role": "tool", "tool_call_id": call.id, "content": "ok"} for call in (patch, clock)]
    openai_client.chat.completions.create(messages=[*HELLO, message, *results], **asked)
    called = upstream.last.body["messages"][1]["content"]
    assert [(block["id"], block["name"], block["input"]) for block in called] == [
        (patch.id, "patch", {"input": TEXT}),
        (clock.id, "clock", {}),
    ]


def test_a_custom_tool_s_input_is_streamed(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(tools=[{"name": "patch", "input": {"input": TEXT}}, {"name": "clock", "input": {}}]))
    tools: Any = [PATCH, {"type": "function", "function": CLOCK}]
    deltas, reason = tool_call_deltas(openai_client, model=CLAUDE, messages=HELLO, tools=tools)
    assert reason == "tool_calls"
    first, *more = (piece for piece in deltas if piece["index"] == 0)
    assert (first["type"], first["custom"]) == ("custom", {"name": "patch", "input": ""})
    assert first["id"].startswith("toolu_")
    assert len(more) > 1
    assert "".join(piece["custom"]["input"] for piece in more) == TEXT
    other = [piece["function"] for piece in deltas if piece["index"] == 1]
    assert other[0]["name"] == "clock"
    assert "".join(piece["arguments"] for piece in other) == "{}"


def test_only_allowed_custom_tools_are_offered(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    only = {"mode": "auto", "tools": [{"type": "custom", "custom": {"name": "patch"}}]}
    choice: Any = {"type": "allowed_tools", "allowed_tools": only}
    tools: Any = [{"type": "function", "function": CLOCK}, PATCH]
    openai_client.chat.completions.create(model=CLAUDE, messages=HELLO, tools=tools, tool_choice=choice)
    assert [tool["name"] for tool in upstream.last.body["tools"]] == ["patch"]


CALLED: Any = {"role": "assistant", "content": None, "function_call": {"name": "clock", "arguments": "{}"}}
ANSWERED: Any = {"role": "function", "name": "clock", "content": "12"}
NO_GRAMMAR = {"type": "grammar", "grammar": {"syntax": "regex"}}


def turns(*more: Any) -> dict[str, Any]:
    return {"messages": [*HELLO, *more], "functions": [CLOCK]}


def custom(**facts: Any) -> dict[str, Any]:
    return {"tools": [{"type": "custom", "custom": {"name": "patch", **facts}}]}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"functions": [{}]}, "functions[0].name"),
        ({"functions": [3]}, "functions[0]"),
        ({"functions": 3}, "functions"),
        ({"functions": [CLOCK, CLOCK]}, "functions[1].name"),
        ({"functions": [CLOCK], "tools": [PATCH]}, "tools"),
        ({"functions": [CLOCK], "parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"function_call": "auto"}, "function_call"),
        ({"functions": [CLOCK], "function_call": "required"}, "function_call"),
        ({"functions": [CLOCK], "function_call": {"name": "nobody"}}, "function_call"),
        (turns(CALLED), "messages[1].function_call"),
        (turns(CALLED, *HELLO), "messages[1].function_call"),
        (turns(ANSWERED), "messages[1].name"),
        (turns(CALLED, {**ANSWERED, "name": "weather"}), "messages[2].name"),
        (turns(CALLED, ANSWERED, ANSWERED), "messages[3].name"),
        (turns(CALLED, {"role": "function", "content": "12"}), "messages[2].name"),
        (turns({**CALLED, "tool_calls": [{}]}, ANSWERED), "messages[1].function_call"),
        (
            turns({**CALLED, "function_call": {"name": "clock", "arguments": "[]"}}),
            "messages[1].function_call.arguments",
        ),
        (turns({**CALLED, "role": "user", "content": "x"}), "messages[1].function_call"),
        (custom(format=NO_GRAMMAR), "tools[0].custom.format"),
        (custom(name=""), "tools[0].custom.name"),
        ({"tools": [{"type": "custom", "function": CLOCK}]}, "tools[0].function"),
        (
            turns({"role": "assistant", "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "patch"}}]}),
            "messages[1].tool_calls[0].custom.input",
        ),
    ],
)
def test_a_wrong_value_is_rejected_by_its_path(
    openai_client: openai.OpenAI, upstream: Upstream, asked: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(model=CLAUDE, messages=asked.get("messages", HELLO), extra_body=asked)
    assert caught.value.param == param
    assert upstream.requests == []


def test_a_custom_tool_with_text_format_is_like_one_without_a_format(
    openai_client: openai.OpenAI, upstream: Upstream
) -> None:
    openai_client.chat.completions.create(model=CLAUDE, messages=HELLO, extra_body=custom(format={"type": "text"}))
    assert upstream.last.body["tools"][0]["name"] == "patch"
