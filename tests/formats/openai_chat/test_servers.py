"""What servers of OpenAI's chat API want otherwise: thoughts and signatures that come back, roles and options."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm_service.core.content import RedactedThinking, ToolCall
from llm_service.core.events import ThinkingDelta, ToolCallStart
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats import openai_responses as responses
from tests.formats.examples import call, target

SIGNED = {"google": {"thought_signature": "c2lnbmF0dXJl"}}
GEMINI = {"thoughts": "extra_content", "own_address": True}
TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}, "extra_content": SIGNED}
UNSIGNED = {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{}"}}
ASKED: dict[str, Any] = {"model": "m", "max_tokens": 9, "tools": [TOOL], "messages": [{"role": "user", "content": "x"}]}
STAND_IN = "skip_thought_signature_validator"


def answered(stream: bool) -> list[Any]:
    """Gemini's answer with two parallel calls, of which it signs the first: the parts or the events."""
    asked = call("messages", ASKED, stream=stream)
    if not stream:
        message = {"role": "assistant", "content": None, "tool_calls": [CALL, UNSIGNED]}
        body = {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
        return list(chat.read_answer(body, asked).parts)
    chunks = [
        {"model": "m", "choices": [{"index": 0, "delta": {"tool_calls": [{**given, "index": number}]}}]}
        for number, given in enumerate((CALL, UNSIGNED))
    ]
    chunks.append({"model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    blocks = [b"data: " + orjson.dumps(chunk) for chunk in chunks] + [b"data: [DONE]"]
    return list(chat.StreamDecoder(asked).feed_many(blocks))


@pytest.mark.parametrize("stream", [False, True])
def test_a_signature_stands_before_its_call_as_reasoning_that_only_its_vendor_reads(stream: bool) -> None:
    parts = answered(stream)
    kept = [part for part in parts if type(part) is RedactedThinking]
    assert [part.vendor for part in kept] == ["chat"]
    calls = [part for part in parts if type(part) is (ToolCallStart if stream else ToolCall)]
    assert [found.id for found in calls] == ["c1", "c2"]
    assert parts.index(kept[0]) < parts.index(calls[0])
    assert not any(type(part) is ThinkingDelta for part in parts)


@pytest.mark.parametrize("client", ["messages", "responses"])
def test_a_signature_comes_back_with_its_call_from_clients_of_other_formats(client: str) -> None:
    asked = call("messages", ASKED)
    message = {"role": "assistant", "content": None, "tool_calls": [CALL, UNSIGNED]}
    body = {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    answer = chat.read_answer(body, asked)
    if client == "messages":
        said = messages.write_answer(asked, answer)["content"]
        results = [{"type": "tool_result", "tool_use_id": id, "content": "a cat"} for id in ("c1", "c2")]
        turns = [*ASKED["messages"], {"role": "assistant", "content": said}, {"role": "user", "content": results}]
        given = {**ASKED, "messages": turns}
        conversation = messages.read_request(messages.check(given))
    else:
        tools = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]
        first = call("responses", {"model": "m", "input": "x", "tools": tools, "store": False})
        said = responses.write_answer(first, answer)["output"]
        results = [{"type": "function_call_output", "call_id": id, "output": "a cat"} for id in ("c1", "c2")]
        given = {**first.body, "input": [{"role": "user", "content": "x"}, *said, *results]}
        conversation = responses.read_request(responses.check(given))
    sent, dropped = chat.write_request(call(client, given), conversation, target(provider=GEMINI))
    (turn,) = [turn for turn in sent["messages"] if turn["role"] == "assistant"]
    assert [given.get("extra_content") for given in turn["tool_calls"]] == [SIGNED, None]
    assert dropped == ()
    other, dropped = chat.write_request(call(client, given), conversation, target())
    assert "extra_content" not in orjson.dumps(other).decode() and dropped


@pytest.mark.parametrize("data", ["", "{", "[]", '{"c1": 1}', '{"other": {"google": {}}}', "\ud800"])
def test_a_signature_that_a_client_has_changed_is_replaced_by_the_stand_in(data: str) -> None:
    turns = [
        *ASKED["messages"],
        {
            "role": "assistant",
            "content": [
                {"type": "redacted_thinking", "data": f"chat:{data}"},
                {"type": "tool_use", "id": "c1", "name": "look", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "x"}]},
    ]
    conversation = messages.read_request({**ASKED, "messages": turns})
    sent, _ = chat.write_request(call("messages", ASKED), conversation, target(provider=GEMINI))
    (turn,) = [turn for turn in sent["messages"] if turn["role"] == "assistant"]
    assert turn["tool_calls"][0]["extra_content"]["google"]["thought_signature"] == STAND_IN


@pytest.mark.parametrize(("field", "expected"), [("reasoning_content", ""), ("reasoning", "")])
def test_a_chat_client_s_own_history_gets_the_field_that_the_server_wants(field: str, expected: str) -> None:
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [UNSIGNED]},
        {"role": "tool", "tool_call_id": "c2", "content": "x"},
        {"role": "assistant", "content": "said"},
        {"role": "user", "content": "x"},
    ]
    given = {"model": "m", "messages": turns}
    server = target(provider={"thoughts": field, "own_address": True})
    sent = chat.forward(call("chat", given), server)
    assert [turn.get(field) for turn in sent["messages"]] == [None, expected, None, None, None]
    kept = [{**turn, field: "hm"} if turn.get("tool_calls") else turn for turn in turns]
    sent = chat.forward(
        call("chat", {**given, "messages": kept}), target(provider={"thoughts": field, "own_address": True})
    )
    assert sent["messages"][1][field] == "hm"


def test_a_chat_client_s_own_body_has_the_server_s_role_and_no_options_that_it_rejects() -> None:
    given: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "developer", "content": "x"}, {"role": "user", "content": "x"}],
    }
    row = {"system_role": "system", "stream_usage": False, "own_address": True}
    sent = chat.forward(
        call("chat", {**given, "stream_options": {"include_usage": True}}, stream=True), target(provider=row)
    )
    assert [turn["role"] for turn in sent["messages"]] == ["system", "user"]
    assert "stream_options" not in sent
    assert given["messages"][0]["role"] == "developer", "the caller's own body must not change"


@pytest.mark.parametrize("own", [False, True])
def test_a_refusal_in_the_history_is_text_for_a_server_that_is_not_openai_s(own: bool) -> None:
    said = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]}
    given = {"model": "m", "input": [{"role": "user", "content": "x"}, said, {"role": "user", "content": "y"}]}
    conversation = responses.read_request(responses.check(given))
    sent, _ = chat.write_request(call("responses", given), conversation, target(provider={"own_address": own}))
    assert sent["messages"][1]["content"] == ("No" if own else [{"type": "refusal", "refusal": "No"}])


@pytest.mark.parametrize(
    ("thoughts", "sent"),
    [
        ({}, ""),
        ({"reasoning": None}, ""),
        ({"reasoning": 3, "reasoning_details": [3, {"data": "x"}]}, ""),
        ({"reasoning": "hm"}, "hm"),
        ({"reasoning": "hm", "reasoning_content": ""}, ""),
        ({"reasoning": "", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}, "hm"),
        ({"thinking_blocks": [{"type": "thinking", "thinking": "h"}, {"type": "thinking", "thinking": "m"}]}, "hm"),
    ],
    ids=str,
)
def test_thoughts_in_another_server_s_field_come_back_in_the_field_of_this_one(
    thoughts: dict[str, Any], sent: str
) -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [UNSIGNED], **thoughts}
    turns = [{"role": "user", "content": "x"}, turn, {"role": "tool", "tool_call_id": "c2", "content": "y"}]
    to = target(provider={"thoughts": "reasoning_content", "own_address": True})
    assert chat.forward(call("chat", {"model": "m", "messages": turns}), to)["messages"][1]["reasoning_content"] == sent
