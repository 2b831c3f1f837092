"""What Claude Code and other clients of Anthropic's API send besides the question, for a model of another vendor."""

from __future__ import annotations

from typing import Any

import pytest

from llm_service.core.content import Document, Message, Text, Thinking, ToolCall, ToolResult
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats import openai_responses as responses
from llm_service.formats import rules
from tests.formats.examples import TURN, call, target

CLOCK: dict[str, Any] = {"name": "clock", "input_schema": {"type": "object", "properties": {}}}
CALLED: dict[str, Any] = {"type": "tool_use", "id": "c", "name": "clock", "input": {}}
RESULT: dict[str, Any] = {"type": "tool_result", "tool_use_id": "c", "content": "noon"}
SAID: dict[str, Any] = {"type": "text", "text": "42"}


def sent(to: Any = chat, **extra: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What OpenAI is sent, and all names of what is dropped."""
    asked = call("messages", {"model": "m", "max_tokens": 99, "messages": TURN, **extra})
    conversation = messages.read_request(messages.check(asked.body))
    body, dropped = to.write_request(asked, conversation, target(model="gpt-5", thinking="effort"))
    return body, (*conversation.dropped, *dropped)


@pytest.mark.parametrize("to", [chat, responses], ids=["chat", "responses"])
@pytest.mark.parametrize(
    ("extra", "dropped"),
    [
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}}, ()),
        ({"context_management": {"edits": []}}, ()),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, ("context_management",)),
        ({"context_management": {"edits": 3}}, ("context_management",)),
        ({"metadata": {"user_id": "u", "session": "s"}}, ("metadata.session",)),
        ({"output_config": {"effort": "low", "task_budget": {"type": "tokens"}}}, ("output_config.task_budget",)),
        ({"output_config": {"effort": "low", "novel": 1}}, ("output_config.novel",)),
        ({"thinking": {"type": "adaptive", "novel": 1}}, ("thinking.novel",)),
        ({"thinking": {"type": "between_tools"}}, ("thinking",)),
        ({"betas": ["x"], "anthropic_version": "v"}, ("betas", "anthropic_version")),
        ({"mcp_servers": [{"type": "url"}], "container": "c"}, ("mcp_servers", "container")),
        ({"system": [{**SAID, "cache_control": {"type": "ephemeral", "scope": "global"}}]}, ("cache_control",)),
        ({"system": [{**SAID, "cache_control": {"type": "ephemeral"}}]}, ("cache_control",)),
        ({"cache_control": {"type": "ephemeral", "novel": 1}}, ("cache_control",)),
        ({"tools": [CLOCK], "tool_choice": {"type": "auto", "novel": 1}}, ("tool_choice.novel",)),
    ],
    ids=str,
)
def test_a_hint_is_dropped_and_named(to: Any, extra: dict[str, Any], dropped: tuple[str, ...]) -> None:
    assert sent(to, **extra)[1] == dropped


UNKNOWN_TIMES: list[Any] = ["24h", "", 3600, True, [], {}]
UNKNOWN_HINTS: list[Any] = [
    *({}, [], "", "x", 0, True, {"type": "persistent"}, {"type": ["ephemeral"]}, {"ttl": "5m"}),
    *({"type": "ephemeral", "ttl": ttl} for ttl in UNKNOWN_TIMES),
]


@pytest.mark.parametrize("hint", UNKNOWN_HINTS, ids=repr)
def test_a_hint_to_cache_that_is_not_known_is_dropped_as_a_whole_and_named(hint: Any) -> None:
    for extra in (
        {"cache_control": hint},
        {"system": [{**SAID, "cache_control": hint}]},
        {"tools": [{**CLOCK, "cache_control": hint}]},
        {"messages": [{"role": "user", "content": [{**SAID, "cache_control": hint}]}]},
    ):
        body, dropped = sent(**extra)
        assert "cache" not in str(body)
        assert dropped == ("cache_control",)
    body, dropped = sent(messages=[{**TURN[0], "cache_control": hint}])
    assert body["messages"] == TURN
    assert dropped == ("messages[].cache_control",)


@pytest.mark.parametrize("note", [name for name in rules.NOTES if name != "type"])
def test_what_a_client_notes_on_a_turn_is_dropped_and_named(note: str) -> None:
    block = {**SAID, note: "x"}
    answer = {"role": "assistant", "content": [{**CALLED, **({} if note == "id" else {note: "x"})}], note: "x"}
    result = {**RESULT, "content": [block], note: "x"}
    turns = [{"role": "user", "content": [block], note: "x"}, answer, {"role": "user", "content": [result], note: "x"}]
    body, dropped = sent(messages=turns, system=[block])
    bare = [
        {"role": "user", "content": [SAID]},
        {"role": "assistant", "content": [CALLED]},
        {"role": "user", "content": [{**RESULT, "content": [SAID]}]},
    ]
    assert body == sent(messages=bare, system=[SAID])[0]
    assert {f"messages[].{note}", f"text.{note}", f"tool_result.{note}"} <= set(dropped)


HINTS = {
    "defer_loading": True,
    "allowed_callers": ["code_execution_20250825"],
    "eager_input_streaming": True,
    "input_examples": [{}],
    "novel": 1,
    "my secret text": 1,
}


@pytest.mark.parametrize("name", HINTS)
def test_a_hint_of_a_tool_is_dropped_and_the_tool_is_offered(name: str) -> None:
    body, dropped = sent(tools=[{**CLOCK, name: HINTS[name]}])
    assert body["tools"][0]["function"]["name"] == "clock"
    assert dropped == (f"tools[].{name if name.isidentifier() else '(unnamed)'}",)


@pytest.mark.parametrize(
    "kind", ["web_search_20250305", "bash_20250124", "memory_20250818", "mcp_toolset", "of_tomorrow"]
)
def test_a_tool_of_anthropic_s_that_is_not_forced_is_dropped_and_named(kind: str) -> None:
    body, dropped = sent(tools=[{"type": kind, "name": "own"}, CLOCK], tool_choice={"type": "any"})
    assert [tool["function"]["name"] for tool in body["tools"]] == ["clock"]
    assert body["tool_choice"] == "required"
    assert dropped == (f"tools[].{kind}",)
    body, _ = sent(tools=[{"type": kind, "name": "own"}], tool_choice={"type": "auto"})
    assert not {"tools", "tool_choice"} & set(body)


def read(*turns: dict[str, Any]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    given = {"model": "m", "max_tokens": 9, "messages": [*TURN, *turns]}
    conversation = messages.read_request(messages.check(given))
    return conversation.messages[1:], conversation.dropped


SERVERS: list[dict[str, Any]] = [
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
    {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
    {"type": "block_of_tomorrow"},
]


def test_what_anthropic_s_servers_did_in_an_earlier_answer_is_dropped_and_named() -> None:
    cited = {**SAID, "citations": [{"type": "char_location"}], "novel": 1}
    turns, dropped = read({"role": "assistant", "content": [*SERVERS, cited], "novel": 1}, *TURN)
    assert turns[0].parts == (Text("42"),)
    names = [f"messages[].{block['type']}" for block in SERVERS]
    assert dropped == ("messages[].novel", *names, "text.citations", "text.novel")


@pytest.mark.parametrize("content", ["", [], SERVERS])
def test_an_empty_turn_of_the_assistant_is_skipped(content: Any) -> None:
    turns, _ = read({"role": "assistant", "content": content}, *TURN)
    assert [turn.role for turn in turns] == ["user"]


def test_turns_of_one_role_in_a_row_may_hold_calls_and_results() -> None:
    turns, _ = read(
        {"role": "assistant", "content": [CALLED]},
        {"role": "assistant", "content": [{**CALLED, "id": "d"}]},
        {"role": "user", "content": [RESULT]},
        {"role": "user", "content": [{**RESULT, "tool_use_id": "d"}, SAID]},
        *TURN,
    )
    assert [turn.parts for turn in turns] == [
        (ToolCall("c", "clock", "{}"), ToolCall("d", "clock", "{}")),
        (ToolResult("c", (Text("noon"),)), ToolResult("d", (Text("noon"),)), Text("42")),
        (Text("Hello"),),
    ]


def test_a_found_tool_and_a_search_result_are_texts() -> None:
    found = {"type": "search_result", "title": "T", "source": "https://a.example", "content": [SAID]}
    result = {**RESULT, "content": [{"type": "tool_reference", "tool_name": "clock"}, found]}
    turns, _ = read({"role": "assistant", "content": [CALLED]}, {"role": "user", "content": [result, found]})
    document = Document(text="42", title="T", context="https://a.example")
    expected = ToolResult("c", (Text("The tool clock can be called."), document))
    assert turns[1].parts == (expected, document)


@pytest.mark.parametrize("signature", [{}, {"signature": None}, {"signature": ""}], ids=str)
def test_thinking_without_a_signature_is_nobody_s(signature: dict[str, Any]) -> None:
    turns, _ = read(
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", **signature}, SAID]}, *TURN
    )
    assert turns[0].parts == (Thinking("hm"), Text("42"))


# ---- a body that travels verbatim

SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
UNSIGNED = {"type": "thinking", "thinking": "hm", "signature": ""}
BLANK = {"type": "text", "text": " \n"}


def forwarded(content: Any, is_the_vendor: bool = True, *more: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """What is sent of an earlier answer, and the names of what is left out."""
    turns = [*TURN, {"role": "assistant", "content": content}, *more, *TURN]
    asked = call("messages", {"model": "m", "max_tokens": 9, "messages": turns})
    sent = messages.forward(asked, target("anthropic", provider={"own_address": not is_the_vendor}))["messages"]
    left_out = messages.left_out(asked, to_anthropic=is_the_vendor)
    return sent[1]["content"] if sent[1]["role"] == "assistant" else None, left_out


@pytest.mark.parametrize(
    ("content", "kept", "named"),
    [
        ([SIGNED, SAID], [SIGNED, SAID], False),
        ([UNSIGNED, SAID], [SAID], True),
        ([{"type": "thinking", "thinking": "hm"}, SAID], [SAID], True),
        ([{**SIGNED, "signature": "responses:rs:x"}, SAID], [SAID], True),
        ([SIGNED], None, True),
        ([SAID, SIGNED], [SAID], True),
        ([BLANK, CALLED], [CALLED], False),
        ([BLANK], None, False),
        ([], None, False),
        ("", None, False),
        (" ", None, False),
    ],
    ids=str,
)
def test_anthropic_is_not_sent_what_it_rejects_in_an_earlier_answer(content: Any, kept: Any, named: bool) -> None:
    assert forwarded(content) == (kept, ("messages[].thinking",) if named else ())


def test_thinking_before_the_assistant_s_next_turn_is_not_at_an_end() -> None:
    assert forwarded([SIGNED], True, {"role": "assistant", "content": [SAID]}) == ([SIGNED], ())


@pytest.mark.parametrize(
    ("content", "thinks"),
    [([CALLED], False), ([SIGNED, CALLED], True), ([SAID], True), ([UNSIGNED, CALLED], False)],
    ids=str,
)
def test_a_budget_for_thinking_is_left_out_after_the_calls_of_a_model_that_left_none(
    content: Any, thinks: bool
) -> None:
    given = {"type": "enabled", "budget_tokens": 1024}
    turns = [*TURN, {"role": "assistant", "content": content}, {"role": "user", "content": [RESULT]}]
    asked = call("messages", {"model": "m", "max_tokens": 2000, "messages": turns, "thinking": given})
    assert messages.forward(asked, target("anthropic")).get("thinking") == (given if thinks else None)
    assert ("thinking" in messages.left_out(asked)) != thinks


def test_another_server_of_this_format_gets_its_unsigned_thinking_back() -> None:
    foreign = {**SIGNED, "signature": "chat:x"}
    assert forwarded([UNSIGNED, foreign, SAID], False) == ([UNSIGNED, SAID], ("messages[].thinking",))
