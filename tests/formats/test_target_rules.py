"""What a vendor checks in a conversation: it is made to fit, or rejected by its path."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core import errors
from llm_service.core.content import (
    JsonFormat,
    Message,
    Reasoning,
    RedactedThinking,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
)
from llm_service.core.content import ToolResult as Result
from llm_service.core.conversation import Conversation
from llm_service.core.events import Answer, Choice, Finished, ToolCallStart
from llm_service.core.usage import Usage
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats import openai_responses as responses
from llm_service.formats import tool_names
from tests.formats.examples import asked_by, call, target

LONG = f"mcp__{'server_' * 12}__read"
CLAUDE = target("anthropic", "claude-haiku-4-5", max_output=64_000)
USER = Message("user", (Text("x"),), ("messages[0].content",))


def write(format: Any, conversation: Conversation, to: Any = None) -> tuple[Any, tuple[str, ...]]:
    to = to or (CLAUDE if format is messages else target())
    client = chat if format is messages else messages
    sent, dropped = format.write_request(call(client.NAME, {}), asked_by(client, conversation), to)
    return sent, dropped


def asked(*turns: Message, **facts: Any) -> Conversation:
    return Conversation((USER, *turns), **facts)


def called(*ids: str) -> tuple[Message, Message]:
    return (
        Message("assistant", tuple(ToolCall(id, "look", "{}") for id in ids)),
        Message("user", tuple(Result(id, (Text(f"result {n}"),)) for n, id in enumerate(ids))),
    )


# ---- ids of tool calls


def ids_in(format: Any, sent: Any) -> tuple[list[str], list[str]]:
    """The ids of the calls, and those of the results."""
    if format is responses:
        items = [item for item in sent["input"] if "call_id" in item]
        return tuple([i["call_id"] for i in items if i["type"] == kind] for kind in KINDS)  # type: ignore[return-value]
    if format is chat:
        calls = [one["id"] for turn in sent["messages"] for one in turn.get("tool_calls", ())]
        return calls, [turn["tool_call_id"] for turn in sent["messages"] if turn["role"] == "tool"]
    blocks = [block for turn in sent["messages"] if isinstance(turn["content"], list) for block in turn["content"]]
    return [b["id"] for b in blocks if b["type"] == "tool_use"], [
        b["tool_use_id"] for b in blocks if "tool_use_id" in b
    ]


KINDS = ("function_call", "function_call_output")
PATTERNS = {messages: r"[a-zA-Z0-9_-]+", chat: r".{1,64}", responses: r".{1,64}"}


@pytest.mark.parametrize("format", [messages, chat, responses])
@settings(deadline=None, max_examples=30)  # the machine may be busy
@given(turns=st.lists(st.lists(st.text(min_size=1) | st.sampled_from(["a", "functions.look:0", "x" * 70]), max_size=3)))
def test_the_ids_of_calls_fit_and_differ_and_those_of_results_follow_them(format: Any, turns: list[list[str]]) -> None:
    history = [turn for ids in turns if ids for turn in called(*ids)]
    sent, dropped = write(format, asked(*history))
    calls, results = ids_in(format, sent)
    assert calls == results
    assert len(set(calls)) == len(calls)
    assert all(re.fullmatch(PATTERNS[format], id, re.DOTALL) for id in calls)
    assert dropped == ()
    shorter, _ = write(format, asked(*history[:-2]))
    assert ids_in(format, shorter)[0] == calls[: len(ids_in(format, shorter)[0])]


@pytest.mark.parametrize("format", [messages, chat, responses])
def test_an_id_that_fits_is_not_changed(format: Any) -> None:
    sent, _ = write(format, asked(*called("toolu_01", "call_2")))
    assert ids_in(format, sent)[0] == ["toolu_01", "call_2"]


def test_a_model_may_want_ids_of_another_form() -> None:
    sent, _ = write(chat, asked(*called("call_1", "call_2")), target(tool_ids=r"[a-zA-Z0-9]{9}"))
    assert all(re.fullmatch(r"[a-zA-Z0-9]{9}", id) for id in ids_in(chat, sent)[0])


# ---- names of tools


def test_names_that_fit_cost_nothing() -> None:
    conversation = asked(*called("a"), tools=(Tool("look"),))
    same, names = tool_names.fit(conversation, target())
    assert same is conversation and names == {}


def test_a_name_that_does_not_fit_gets_an_alias_everywhere_and_comes_back() -> None:
    turn = Message(
        "assistant", (ToolCall("a", "files.read", "{}"), ToolCall("b", LONG, "{}"), ToolCall("c", "ok", "{}"))
    )
    tools = (Tool("files.read"), Tool(LONG), Tool("ok"))
    choice = ToolChoice("tool", "files.read", allowed=("ok", LONG))
    fitted, names = tool_names.fit(asked(turn, tools=tools, tool_choice=choice), target())
    one, two = (tool.name for tool in fitted.tools[:2])
    assert names == {one: "files.read", two: LONG}
    assert all(re.fullmatch(tool_names.PATTERN, name) for name in names)
    assert [part.name for part in fitted.messages[1].parts] == [one, two, "ok"]  # type: ignore[union-attr]
    assert fitted.tool_choice == ToolChoice("tool", one, allowed=("ok", two))
    answer = Answer(Usage(), parts=(ToolCall("d", one, "{}"),), choices=(Choice(0, parts=(ToolCall("d", two, "{}"),)),))
    start, finished = tool_names.restored(iter([ToolCallStart(0, "d", two), Finished(answer)]), names)
    assert start == ToolCallStart(0, "d", LONG)
    assert isinstance(finished, Finished)
    assert finished.answer.parts == (ToolCall("d", "files.read", "{}"),)
    assert finished.answer.choices[0].parts == (ToolCall("d", LONG, "{}"),)


@given(st.lists(st.text(min_size=1), unique=True))
def test_aliases_differ_from_each_other_and_from_every_name(given_names: list[str]) -> None:
    alias = next(iter(tool_names.fit(asked(tools=(Tool("a.b"),)), target())[1]))
    tools = tuple(Tool(name) for name in dict.fromkeys([*given_names, "a.b", alias]))
    fitted, names = tool_names.fit(asked(tools=tools), target())
    sent = [tool.name for tool in fitted.tools]
    assert len(set(sent)) == len(sent)
    assert [names.get(name, name) for name in sent] == [tool.name for tool in tools]


# ---- limits of the output


@pytest.mark.parametrize("format", [messages, chat, responses])
def test_a_limit_above_the_model_s_own_is_lowered_and_named(format: Any) -> None:
    to = target("anthropic" if format is messages else "openai", max_output=8192)
    sent, dropped = write(format, asked(max_tokens=32_000), to)
    field = {messages: "max_tokens", chat: "max_completion_tokens", responses: "max_output_tokens"}[format]
    assert sent[field] == 8192
    assert dropped == ("max_tokens",)
    assert write(format, asked(max_tokens=8192), to)[1] == ()


# ---- text that says nothing


def said(format: Any, sent: Any) -> list[Any]:
    return [turn["content"] for turn in sent["input" if format is responses else "messages"]]


@pytest.mark.parametrize("format", [messages, chat, responses])
@pytest.mark.parametrize(
    ("parts", "dropped"),
    [
        ((), 0),
        ((Thinking("hm", "", ""),), 1),
        ((Thinking("hm", "sig", "messages"), RedactedThinking("x", "responses")), 1),
    ],
)
def test_a_turn_of_the_assistant_that_says_nothing_is_left_out(format: Any, parts: Any, dropped: int) -> None:
    sent, names = write(format, asked(Message("assistant", parts), Message("user", (Text("y"),))))
    assert said(format, sent) == ["x", "y"]
    assert len(names) == dropped


@pytest.mark.parametrize("format", [messages, chat, responses])
@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_last_turn_of_the_assistant_is_left_out(format: Any, text: str) -> None:
    sent, _ = write(format, asked(Message("assistant", (Text(text),))))
    assert said(format, sent) == ["x"]


def test_white_space_alone_is_left_out_for_anthropic() -> None:
    sent, dropped = write(
        messages,
        asked(
            Message("assistant", (Text(" "),)),
            Message("user", (Text("a"), Text("\n"))),
            Message("system", (Text("\t"),)),
            Message("assistant", (Text(""), ToolCall("a", "look", "{}"))),
            Message("user", (Result("a", (Text(" "),)),)),
            system=(Text("  "),),
        ),
    )
    assert "system" not in sent
    assert orjson.loads(orjson.dumps(sent["messages"])) == [
        {"role": "user", "content": "x"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]},
    ]
    assert dropped == ()


def test_a_turn_of_the_user_that_is_only_white_space_is_rejected_by_its_path_for_anthropic() -> None:
    blank = Message("user", (Text(" "),), ("messages[1].content",))
    with pytest.raises(errors.UnsupportedParameter) as caught:
        write(messages, asked(blank))
    assert caught.value.param == "messages[1].content"
    assert said(chat, write(chat, asked(blank))[0]) == ["x", " "]


def test_an_error_of_a_tool_that_says_nothing_gets_a_word_for_anthropic() -> None:
    turns = (Message("assistant", (ToolCall("a", "look", "{}"),)), Message("user", (Result("a", (), is_error=True),)))
    assert said(messages, write(messages, asked(*turns))[0])[-1] == [
        {"type": "tool_result", "tool_use_id": "a", "content": "Error", "is_error": True}
    ]


# ---- the last turn of the assistant


def test_a_model_that_continues_an_answer_gets_it_without_white_space_at_its_end() -> None:
    prefill = Message("assistant", (Text("The answer is \n"),), ("messages[1].content",))
    able = target("anthropic", "claude-haiku-4-5", max_output=64_000, prefill=True)
    assert write(messages, asked(prefill), able)[0]["messages"][-1] == {"role": "assistant", "content": "The answer is"}
    for format, to in ((messages, CLAUDE), (chat, target()), (responses, target())):
        with pytest.raises(errors.UnsupportedParameter) as caught:
            write(format, asked(prefill), to)
        assert caught.value.param == "messages[1].role"


# ---- forced tools


@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice("tool", "look")])
@pytest.mark.parametrize(
    ("forced_tools", "thinking", "thinks"),
    [
        ("always", "adaptive", True),
        ("without_thinking", "adaptive", False),
        ("always", "budget", False),
        ("always", "always", True),
    ],
)
def test_thinking_beside_a_forced_tool_is_left_out_and_named_where_the_model_rejects_it(
    choice: ToolChoice, forced_tools: str, thinking: str, thinks: bool
) -> None:
    to = target("anthropic", "c", max_output=64_000, thinking=thinking, forced_tools=forced_tools, sampling=False)
    conversation = asked(tools=(Tool("look"),), tool_choice=choice, reasoning=Reasoning("high"))
    sent, dropped = write(messages, conversation, to)
    assert ("thinking" in sent) is thinks
    assert dropped == (() if thinks else ("reasoning_effort",))
    auto = asked(tools=(Tool("look"),), tool_choice=ToolChoice("auto"), reasoning=Reasoning("high"))
    assert "thinking" in write(messages, auto, to)[0]


@pytest.mark.parametrize("format", [messages, chat])
def test_a_forced_tool_is_rejected_for_a_model_that_cannot_be_forced(format: Any) -> None:
    to = target("anthropic" if format is messages else "openai", forced_tools="never")
    with pytest.raises(errors.UnsupportedParameter) as caught:
        write(format, asked(tools=(Tool("look"),), tool_choice=ToolChoice("required")), to)
    assert caught.value.param == "tool_choice"


def test_a_budget_of_thinking_above_the_limit_of_the_output_leaves_room_for_an_answer() -> None:
    to = target("anthropic", "claude-haiku-4-5", max_output=8000, thinking="budget")
    sent, _ = write(messages, asked(max_tokens=32_000, reasoning=Reasoning(budget=20_000)), to)
    assert (sent["max_tokens"], sent["thinking"]) == (8000, {"type": "enabled", "budget_tokens": 6000})


def test_anthropic_gets_the_tools_of_the_history_if_none_are_offered_and_the_model_may_not_call_them() -> None:
    sent, _ = write(messages, asked(*called("a")))
    assert sent["tools"] == [{"name": "look", "input_schema": {"type": "object", "properties": {}}}]
    assert sent["tool_choice"] == {"type": "none"}


def test_anthropic_gets_the_last_four_marks_for_its_cache_and_the_others_are_named() -> None:
    results = (Result("a", (Text("1", 0), Text("2", 0)), cache=0),)
    turns = (Message("assistant", (ToolCall("a", "look", "{}", 0),)), Message("user", (*results, Text("y", 0))))
    sent, dropped = write(messages, asked(*turns, tools=(Tool("look", cache=0),), system=(Text("s", 0),)))
    tool_result, text = sent["messages"][2]["content"]
    assert all("cache_control" in block for block in (*tool_result["content"], tool_result, text))
    assert orjson.dumps(sent).count(b"cache_control") == 4
    assert dropped == ("prompt_cache_breakpoint",)
    sent, dropped = write(messages, asked(system=tuple(Text(f"{n}", 0) for n in range(4))))
    assert orjson.dumps(sent).count(b"cache_control") == 4
    assert dropped == ()


@pytest.mark.parametrize("format", [chat, responses])
def test_the_label_of_a_schema_is_made_to_fit(format: Any) -> None:
    sent, _ = write(format, asked(format=JsonFormat({"type": "object", "properties": {}}, "My answer.")))
    label = sent["response_format"]["json_schema"]["name"] if format is chat else sent["text"]["format"]["name"]
    assert re.fullmatch(r"My_answer_[0-9a-f]{8}", label)
