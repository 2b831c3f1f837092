"""Chat completions: what clients send back of earlier answers, and Anthropic's hints to cache."""

from __future__ import annotations

from typing import Any

import pytest

from llm_service.core import errors
from llm_service.core.content import Text, ToolCall
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from tests.formats.examples import TURN, call, target
from tests.formats.openai_chat.wire import body

HINT = {"type": "ephemeral"}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
CALLED: dict[str, Any] = {"id": "c", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "noon"}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}


def to_claude(**extra: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What Anthropic is sent, and all names of what is dropped."""
    asked = call("chat", body(**extra))
    conversation = chat.read_request(chat.check(asked.body))
    sent, dropped = messages.write_request(asked, conversation, target("anthropic", "claude", max_output=100))
    return sent, (*conversation.dropped, *dropped)


def after(answer: dict[str, Any], *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [*TURN, {"role": "assistant", **answer}, *more, {"role": "user", "content": "Go on"}]


TEXT = {"type": "text", "text": "a"}
UNSIGNED = {
    "reasoning_content": "hm",
    "reasoning": "hm",
    "reasoning_details": [{"type": "reasoning.text", "text": "hm"}],
    "thinking_blocks": [THOUGHT],
    "provider_specific_fields": {"refusal": None},
    "member_of_nobody": 1,
}


@pytest.mark.parametrize("name", UNSIGNED)
def test_a_member_of_an_earlier_answer_is_dropped_and_named(name: str) -> None:
    sent, dropped = to_claude(messages=after({"content": "42", name: UNSIGNED[name]}))
    assert sent["messages"][1] == {"role": "assistant", "content": "42"}
    assert dropped == (f"messages[].{name}",)


@pytest.mark.parametrize("name", ["annotations", "audio", "function_call", "name", "refusal", "tool_calls", "novel"])
def test_a_null_member_of_an_earlier_answer_has_no_effect(name: str) -> None:
    assert to_claude(messages=after({"content": "42", name: None}))[1] == ()


def test_a_member_that_nobody_knows_is_rejected_in_what_the_user_says() -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        to_claude(messages=[{"role": "user", "content": "x", "novel": 1}])
    assert caught.value.param == "messages[0].novel"


def test_our_own_thinking_is_used_where_litellm_keeps_it() -> None:
    kept = {"content": "42", "provider_specific_fields": {"claude_thinking": [THOUGHT], "refusal": None}}
    sent, dropped = to_claude(messages=after(kept))
    assert sent["messages"][1]["content"] == [THOUGHT, {"type": "text", "text": "42"}]
    assert dropped == ()


@pytest.mark.parametrize("empty", [{"content": ""}, {"content": None}, {"content": []}, {}, {"refusal": ""}], ids=str)
def test_an_empty_turn_of_the_assistant_is_skipped(empty: dict[str, Any]) -> None:
    sent, dropped = to_claude(messages=after(empty))
    assert [turn["role"] for turn in sent["messages"]] == ["user", "user"]
    assert dropped == ()


def test_an_empty_turn_between_tool_results_and_the_user_is_skipped() -> None:
    turns = after({"content": "", "tool_calls": [CALLED]}, RESULT, {"role": "assistant", "content": ""})
    sent, _ = to_claude(messages=turns, tools=[CLOCK])
    assert [block["type"] for block in sent["messages"][2]["content"]] == ["tool_result", "text"]


def test_an_empty_message_of_the_user_is_still_rejected() -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        chat.check(body(messages=[{"role": "user", "content": None}]))
    assert caught.value.param == "messages[0].content"


def test_a_part_of_an_earlier_answer_that_claude_cannot_read_is_dropped_and_named() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "42", "novel": 1}]
    sent, dropped = to_claude(messages=after({"content": parts}))
    assert sent["messages"][1] == {"role": "assistant", "content": "42"}
    assert dropped == ("messages[].content[].thinking", "messages[].content[].novel")


def test_a_spoken_answer_is_read_as_its_transcript() -> None:
    spoken = {"content": None, "audio": {"id": "audio_1", "data": "AAAA", "transcript": "Hello"}}
    assert to_claude(messages=after(spoken))[0]["messages"][1] == {"role": "assistant", "content": "Hello"}


def test_arguments_that_were_cut_become_one_property() -> None:
    cut = {**CALLED, "function": {"name": "clock", "arguments": '{"zone": "Eu'}}
    conversation = chat.read_request(chat.check(body(messages=after({"tool_calls": [cut]}, RESULT), tools=[CLOCK])))
    assert conversation.messages[1].parts == (ToolCall("c", "clock", '{"malformed_arguments":"{\\"zone\\": \\"Eu"}'),)


# ---- hints to cache


def test_a_message_takes_anthropic_s_hint_to_cache_for_its_last_part() -> None:
    turns = [
        {"role": "system", "content": "Be brief.", "cache_control": HINT},
        {"role": "user", "content": [TEXT, TEXT], "cache_control": HINT},
        {"role": "assistant", "content": "", "tool_calls": [CALLED], "cache_control": HINT},
        {**RESULT, "cache_control": {**HINT, "ttl": "1h"}},
    ]
    sent, dropped = to_claude(messages=turns, tools=[CLOCK])
    assert sent["system"][0]["cache_control"] == HINT
    assert [block.get("cache_control") for block in sent["messages"][0]["content"]] == [None, HINT]
    assert sent["messages"][1]["content"][0]["cache_control"] == HINT
    assert sent["messages"][2]["content"][0]["cache_control"] == {**HINT, "ttl": "1h"}
    assert dropped == ()


@pytest.mark.parametrize("inside", [False, True])
def test_a_tool_takes_anthropic_s_hint_to_cache(inside: bool) -> None:
    tool = {**CLOCK, "cache_control": HINT}
    if inside:
        tool = {**CLOCK, "function": {**CLOCK["function"], "cache_control": HINT}}
    sent, dropped = to_claude(messages=TURN, tools=[tool])
    assert (sent["tools"][0]["cache_control"], dropped) == (HINT, ())


def test_a_hint_with_a_member_that_nobody_knows_is_dropped_as_a_whole() -> None:
    part = {"type": "text", "text": "a", "cache_control": {**HINT, "scope": "global"}}
    conversation = chat.read_request(body(messages=[{"role": "user", "content": [part]}]))
    assert conversation.messages[0].parts == (Text("a"),)
    assert conversation.dropped == ("cache_control",)


def test_tools_that_a_server_runs_are_dropped_and_named() -> None:
    others = [{"type": "web_search"}, {"type": "mcp", "server_label": "x"}]
    sent, dropped = to_claude(messages=TURN, tools=[*others, {**CLOCK, "novel": 1}], tool_choice="required")
    assert [tool["name"] for tool in sent["tools"]] == ["clock"]
    assert dropped == ("tools[].web_search", "tools[].mcp", "tools[].novel")
    sent, dropped = to_claude(messages=TURN, tools=others, tool_choice="auto")
    assert not {"tools", "tool_choice"} & set(sent)


def test_allowed_tools_lose_what_is_not_offered() -> None:
    allowed = [{"type": "web_search"}, {"type": "function", "function": {"name": "clock"}}]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": allowed}}
    sent, _ = to_claude(messages=TURN, tools=[{"type": "web_search"}, CLOCK], tool_choice=choice)
    assert sent["tool_choice"] == {"type": "auto"}


# ---- a body that travels verbatim

LITELLM: dict[str, Any] = {
    "content": "42",
    **UNSIGNED,
    "claude_thinking": [THOUGHT],
    "tool_calls": [{**CALLED, "extra_content": {"google": {"thought_signature": "x"}}}],
}
PART = {"type": "text", "text": "a", "cache_control": HINT}


def forwarded(is_the_vendor: bool, **extra: Any) -> dict[str, Any]:
    to = target(provider={"own_address": not is_the_vendor})
    return chat.forward(call("chat", body(**extra)), to)


def test_what_openai_rejects_in_earlier_answers_is_left_out_and_named() -> None:
    turns = [*after(LITELLM, RESULT), {"role": "user", "content": [PART], "cache_control": HINT}]
    tools = [{**CLOCK, "cache_control": HINT}]
    sent = forwarded(True, messages=turns, tools=tools)
    assert sent["messages"][1] == {"role": "assistant", "content": "42", "member_of_nobody": 1, "tool_calls": [CALLED]}
    assert sent["messages"][-1] == {"role": "user", "content": [{"type": "text", "text": "a"}]}
    assert sent["tools"] == [CLOCK]
    asked = call("chat", body(messages=turns, tools=tools))
    assert chat.left_out(asked) == (
        *(f"messages[].{name}" for name in UNSIGNED if name != "member_of_nobody"),
        "messages[].tool_calls[].extra_content",
        "messages[].cache_control",
        "messages[].content[].cache_control",
        "tools[].cache_control",
    )


def test_another_server_gets_the_fields_of_its_own_answers() -> None:
    turns = [*after(LITELLM, RESULT), {"role": "user", "content": [PART]}]
    sent = forwarded(False, messages=turns)
    kept = {name: value for name, value in LITELLM.items() if name != "claude_thinking"}
    assert sent["messages"] == [turns[0], {"role": "assistant", **kept}, *turns[2:]]
    assert chat.left_out(call("chat", body(messages=turns)), to_openai=False) == ()


@pytest.mark.parametrize("is_the_vendor", [False, True])
def test_an_empty_turn_of_the_assistant_is_not_sent(is_the_vendor: bool) -> None:
    empty: dict[str, Any]
    for empty in ({"content": ""}, {"content": None, "reasoning_content": "hm"}, {"content": [], "refusal": None}):
        assert forwarded(is_the_vendor, messages=after(empty))["messages"] == after({"content": "x"})[::2]
    refused = after({"content": None, "refusal": "No"})
    assert forwarded(is_the_vendor, messages=refused)["messages"] == refused


# ---- thoughts that the server wants back


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_go_back_beside_the_tool_calls_where_the_row_says_so(field: str) -> None:
    called = {"type": "tool_use", "id": "c", "name": "clock", "input": {}}
    signed = {"type": "thinking", "thinking": "Claude's", "signature": "c2ln"}
    turns = [
        *TURN,
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, signed, called]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "noon"}]},
        {"role": "assistant", "content": [{**called, "id": "d"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "d", "content": "noon"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}]},
        *TURN,
    ]
    asked = call("messages", {"model": "m", "max_tokens": 9, "messages": turns})
    conversation = messages.read_request(messages.check(asked.body))
    sent, dropped = chat.write_request(asked, conversation, target(provider={"thoughts": field}))
    said = [turn for turn in sent["messages"] if turn["role"] == "assistant"]
    assert [turn[field] for turn in said] == ["hm", ""]
    assert dropped == ("messages[].thinking",)
    sent, _ = chat.write_request(asked, conversation, target())
    assert all(field not in turn for turn in sent["messages"])
