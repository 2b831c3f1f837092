"""Translated streams: every recording of one vendor is read by the other vendor's SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core import errors
from llm_service.core.content import RedactedThinking
from llm_service.core.events import (
    Answer,
    Delta,
    Event,
    Finished,
    Started,
    ThinkingDelta,
    ThinkingEnd,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from llm_service.core.usage import Usage
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from tests.formats.examples import TURN, anthropic_client, call, fixture, fixture_names, openai_client, read, written
from tests.formats.openai_chat.wire import ASKED, DONE, USAGE, chunk

OFFERED = [{"name": "t"}]
CHAT: dict[str, Any] = {"model": "m", "messages": TURN, "tools": OFFERED, **ASKED}
MESSAGES: dict[str, Any] = {"model": "m", "max_tokens": 5, "messages": TURN, "tools": OFFERED}
chat_call = call("chat", CHAT, stream=True)
messages_call = call("messages", MESSAGES, stream=True)


def openai_reads(stream: bytes) -> Any:
    with openai_client(stream).chat.completions.stream(model="m", messages=[], **ASKED) as helper:
        for _ in helper:
            pass
        return helper.current_completion_snapshot.choices[0]


def anthropic_reads(stream: bytes) -> Any:
    with anthropic_client(stream).messages.stream(model="m", max_tokens=5, messages=[]) as helper:
        return helper.get_final_message()


# ---- OpenAI's recordings for Anthropic's SDK


@pytest.mark.parametrize("name", [n for n in fixture_names("openai/chat_stream") if "n3_choices" not in n])
def test_a_recorded_stream_of_openai_is_read_by_anthropics_sdk(name: str) -> None:
    stream = fixture(name)
    events = read(chat.StreamDecoder(messages_call), stream)
    assert read(chat.StreamDecoder(messages_call), *(bytes([byte]) for byte in stream)) == events
    there, here = openai_reads(stream), anthropic_reads(written(messages.StreamEncoder(messages_call), events))
    texts = "".join(block.text for block in here.content if block.type == "text")
    assert texts == (there.message.content or "") + (there.message.refusal or "")
    assert [(block.id, block.name, block.input) for block in here.content if block.type == "tool_use"] == [
        (given.id, given.function.name, json.loads(given.function.arguments))
        for given in there.message.tool_calls or ()
    ]
    if there.message.refusal:
        assert here.stop_details is not None and here.stop_details.explanation == there.message.refusal
    reasons = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}
    assert here.stop_reason == ("refusal" if there.message.refusal else reasons[there.finish_reason])


def test_several_choices_have_no_counterpart() -> None:
    with pytest.raises(errors.UpstreamBroken, match="more than one choice"):
        read(chat.StreamDecoder(messages_call), fixture("openai/chat_stream/n3_choices_interleaved.sse"))


# ---- Anthropic's recordings for OpenAI's SDK

FOREIGN = (
    "server_tool_use",
    "stream-a-toolrefusal",
    "compaction",
    "unknown_events",
    "fallback_response",
)  # blocks of Anthropic's own
ANTHROPIC = [*fixture_names("anthropic/streaming"), *fixture_names("anthropic/fable-fallback")]
INVALID = [name for name in ANTHROPIC if "invalid_json" in name]
CROSSING = [name for name in ANTHROPIC if not any(word in name for word in FOREIGN) and name not in INVALID]


@pytest.mark.parametrize("name", CROSSING)
def test_a_recorded_stream_of_anthropic_is_read_by_openais_sdk(name: str) -> None:
    stream = fixture(name)
    events = read(messages.StreamDecoder(chat_call), stream)
    assert read(messages.StreamDecoder(chat_call), *(bytes([byte]) for byte in stream)) == events
    here = openai_reads(written(chat.StreamEncoder(chat_call), events))
    there = anthropic_reads(stream)
    texts = "".join(block.text for block in there.content if block.type == "text")
    assert (here.message.content or "") == texts
    calls = [block for block in there.content if block.type == "tool_use"]
    assert [(given.id, given.function.name) for given in here.message.tool_calls or ()] == [
        (block.id, block.name) for block in calls
    ]
    if there.stop_reason != "max_tokens":
        inputs = [json.loads(given.function.arguments) for given in here.message.tool_calls or ()]
        assert inputs == [block.input for block in calls]
    thoughts = [(block.thinking, block.signature) for block in there.content if block.type == "thinking"]
    kept = (here.message.model_extra or {}).get("claude_thinking", ())
    assert [(block["thinking"], block["signature"]) for block in kept] == thoughts
    reasons = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length", "refusal": "content_filter"}
    if there.stop_reason == "refusal" and not texts:
        assert here.finish_reason in ("stop", "content_filter")
    else:
        assert here.finish_reason == reasons[str(there.stop_reason)]


@pytest.mark.parametrize("name", INVALID)
def test_a_recorded_input_that_is_not_json_is_an_error_as_in_anthropics_sdk(name: str) -> None:
    with pytest.raises(ValueError):
        anthropic_reads(fixture(name))
    with pytest.raises(errors.UpstreamBroken, match="not a JSON object"):
        read(messages.StreamDecoder(chat_call), fixture(name))


@pytest.mark.parametrize("name", [n for n in ANTHROPIC if n not in CROSSING and n not in INVALID])
def test_a_block_without_a_counterpart_is_an_error(name: str) -> None:
    with pytest.raises(errors.UpstreamBroken):
        read(messages.StreamDecoder(chat_call), fixture(name))


# ---- streams that no recording has

JSON_TEXT = st.sampled_from(['{"a": 1}', '{"s": "\\u2028 {\\"}"}', "{}", "", '{"deep": [{"x": []}]}'])


@st.composite
def interleaved(draw: st.DrawFn) -> tuple[list[tuple[str, str, str]], list[bytes]]:
    """Calls, and chunks with their pieces in any order that keeps the order within each call."""
    calls = [
        (f"call_{n}", f"tool{n}", text) for n, text in enumerate(draw(st.lists(JSON_TEXT, min_size=1, max_size=4)))
    ]
    queues = []
    for index, (id, name, text) in enumerate(calls):
        size = draw(st.integers(1, 5))
        head = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        queues.append([head, *({"index": index, "function": {"arguments": piece}} for piece in pieces)])
    chunks = []
    started = 0
    while any(queues):
        open_queues = [queue for queue in queues[:started] if queue]
        if started < len(queues) and (not open_queues or draw(st.booleans())):
            started += 1  # calls begin in their order
            open_queues = [queues[started - 1]]
        chunks.append(chunk({"tool_calls": [draw(st.sampled_from(open_queues)).pop(0)]}))
    return calls, chunks


@settings(deadline=None)  # the machine may be busy
@given(interleaved())
def test_interleaved_calls_are_put_one_after_the_other(given_calls: Any) -> None:
    calls, chunks = given_calls
    events = read(chat.StreamDecoder(messages_call), *chunks, chunk({}, "tool_calls"), chunk(usage=USAGE), DONE)
    reported: list[tuple[str, str, str]] = []
    open_call: int | None = None
    for event in events:
        match event:
            case ToolCallStart(index, id, name):
                assert open_call is None and index == len(reported)
                reported.append((id, name, ""))
                open_call = index
            case ToolCallDelta(index, arguments):
                assert open_call == index
                reported[-1] = (*reported[-1][:2], reported[-1][2] + arguments)
            case ToolCallEnd(index):
                assert open_call == index
                open_call = None
    assert open_call is None
    assert reported == calls
    message = anthropic_reads(written(messages.StreamEncoder(messages_call), events))
    assert [block.input for block in message.content] == [json.loads(text or "{}") for _, _, text in calls]


def tool(index: int, arguments: str = "", **more: Any) -> dict[str, Any]:
    name = {"name": "t"} if "id" in more else {}
    return {"tool_calls": [{"index": index, "function": {**name, "arguments": arguments}, **more}]}


@pytest.mark.parametrize(
    "chunks",
    [
        [tool(0, "{}")],  # a piece of a call that has not begun
        [{"tool_calls": [{"index": 0, "id": "a", "function": {"name": 3}}]}],
        [{"tool_calls": [{"index": "0", "id": "a", "function": {"name": "t"}}]}],
        [{"tool_calls": [3]}],
        [{"tool_calls": {"0": 1}}],
        [tool(0, id="a"), tool(0, 3)],  # type: ignore[arg-type]
        [tool(0, "{}", id="a"), tool(1, "{}", id="b"), tool(0, "more")],  # a call goes on after its end
        [tool(0, '{"a": ', id="a")],  # arguments that are no JSON
        [tool(0, "[1]", id="a")],
        [{"function_call": {"name": "t", "arguments": "{"}}],
    ],
)
def test_malformed_calls_are_an_error(chunks: list[dict[str, Any]]) -> None:
    with pytest.raises(errors.UpstreamBroken):
        read(chat.StreamDecoder(messages_call), *map(chunk, chunks), chunk({}, "tool_calls"), DONE)


def test_a_call_after_the_end_is_an_error() -> None:
    with pytest.raises(errors.UpstreamBroken, match="after the finish_reason"):
        read(chat.StreamDecoder(messages_call), chunk({}, "stop"), chunk(tool(0, "{}", id="a")), DONE)


def test_a_call_of_a_tool_is_an_error_if_the_request_has_none() -> None:
    plain = call("messages", {"model": "m", "messages": TURN}, stream=True)
    with pytest.raises(errors.UpstreamBroken, match="not given"):
        read(chat.StreamDecoder(plain), chunk(tool(0, "{}", id="a")), DONE)
    with pytest.raises(errors.UpstreamBroken, match="not given"):
        read(messages.StreamDecoder(plain), fixture("anthropic/streaming/tool_use_response.sse"))


def test_a_call_that_was_cut_ends_with_its_reason() -> None:
    events = read(chat.StreamDecoder(messages_call), chunk(tool(0, '{"a": ', id="a")), chunk({}, "length"), DONE)
    assert [type(event) for event in events] == [Started, ToolCallStart, ToolCallDelta, ToolCallEnd, Finished]
    assert isinstance(events[-1], Finished) and events[-1].answer.stop_reason == "max_tokens"


def test_text_in_the_middle_of_a_call_comes_after_the_call() -> None:
    events = read(
        chat.StreamDecoder(messages_call),
        chunk(tool(0, '{"a": ', id="a")),
        chunk({"content": "by the way"}),
        chunk(tool(0, "1}")),
        chunk({"content": ", done"}),
        chunk({}, "stop"),
        DONE,
    )
    assert [type(event) for event in events] == [
        Started, ToolCallStart, ToolCallDelta, ToolCallDelta, ToolCallEnd, Delta, Delta, Finished,
    ]  # fmt: skip
    assert isinstance(events[-1], Finished) and events[-1].answer.stop_reason == "tool_use"


def test_reasoning_of_other_servers_comes_before_their_text() -> None:
    events = read(
        chat.StreamDecoder(messages_call),
        chunk({"reasoning_content": "hm"}),
        chunk({"reasoning_content": "!", "content": None}),
        chunk({"content": "Yes"}),
        chunk({}, "stop"),
        DONE,
    )
    assert events[1:5] == [ThinkingDelta("hm"), ThinkingDelta("!"), ThinkingEnd(), Delta("Yes")]
    message = anthropic_reads(written(messages.StreamEncoder(messages_call), events))
    assert [block.type for block in message.content] == ["thinking", "text"]


PIECES: list[Event] = [
    ThinkingDelta("hm"),
    ThinkingEnd("sig", "messages"),
    RedactedThinking("data", "messages"),
    ThinkingEnd("only", "messages"),
    Delta("text"),
    ToolCallStart(0, "a", "one"),
    ToolCallDelta(0, '{"x":'),
    ToolCallDelta(0, "1}"),
    ToolCallEnd(0),
    ToolCallStart(1, "b", "two"),
    ToolCallEnd(1),
    Delta("more"),
]
FULL = [Started("m"), *PIECES, Finished(Answer(Usage(1, 2), stop_reason="tool_use"))]


def test_every_kind_of_event_survives_anthropics_format() -> None:
    stream = written(messages.StreamEncoder(messages_call), FULL)
    message = anthropic_reads(stream)
    kinds = ["thinking", "redacted_thinking", "thinking", "text", "tool_use", "tool_use", "text"]
    assert [block.type for block in message.content] == kinds
    assert message.content[2].to_dict() == {"type": "thinking", "thinking": "", "signature": "only"}
    again = read(messages.StreamDecoder(chat_call), stream)
    assert [event for event in again if type(event) in {type(piece) for piece in PIECES}] == PIECES


def test_every_kind_of_event_reaches_openais_sdk() -> None:
    message = openai_reads(written(chat.StreamEncoder(chat_call), FULL)).message
    assert message.content == "textmore"
    assert [(given.id, given.function.arguments) for given in message.tool_calls] == [("a", '{"x":1}'), ("b", "{}")]
    assert message.model_extra["claude_thinking"] == [
        {"index": 0, "type": "thinking", "thinking": "hm", "signature": "sig"},
        {"index": 1, "type": "redacted_thinking", "data": "data"},
        {"index": 2, "type": "thinking", "signature": "only"},
    ]
