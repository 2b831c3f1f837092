"""Tool calls of a stream: which piece belongs to which call, when crossing and in a relay read by OpenAI's SDK."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core import errors
from llm_service.core.events import Event, Finished, ToolCallDelta, ToolCallEnd, ToolCallStart
from llm_service.formats import openai_chat as chat
from tests.formats.examples import TURN, call, openai_client, relayed, sse_blocks, written
from tests.formats.openai_chat.wire import ASKED, DONE, chat_call

TOOLS = [{"name": name} for name in ("f", "g", "get", "get_weather")]
MESSAGES = call("messages", {"model": "m", "max_tokens": 5, "messages": TURN, "tools": TOOLS}, stream=True)
FUNCTIONS = [{"type": "function", "function": tool} for tool in TOOLS]
ASKING = chat_call(stream=True, tools=FUNCTIONS, **ASKED)
NO_INDEX = object()


def piece(
    index: Any = NO_INDEX, id: Any = None, name: Any = None, arguments: Any = None, **more: Any
) -> dict[str, Any]:
    given = {"function": {"name": name, "arguments": arguments}, **more}
    return given | ({} if index is NO_INDEX else {"index": index}) | ({} if id is None else {"id": id})


def chunk(*pieces: Any, reason: str | None = None, **delta: Any) -> bytes:
    delta |= {"tool_calls": list(pieces)} if pieces else {}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + orjson.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}) + b"\n\n"


A, B = '{"a": 1}', '{"b": 2}'
ONE = [("f", A)]
TWO = [("f", A), ("g", B)]
TWICE = [("f", A), ("f", B)]

CASES: dict[str, tuple[list[list[Any]], list[tuple[str, str]]]] = {
    "OpenAI": (
        [
            [piece(0, "a", "f", "")],
            [piece(0, arguments='{"a":')],
            [piece(0, arguments=" 1}")],
            [piece(1, "b", "g", "")],
            [piece(1, arguments=B)],
        ],
        TWO,
    ),
    "index 0 for every whole call": ([[piece(0, "a", "f", A)], [piece(0, "b", "g", B)]], TWO),
    "index 0 for every whole call of one chunk": ([[piece(0, "a", "f", A), piece(0, "b", "g", B)]], TWO),
    "index 0 for every call in pieces": (
        [
            [piece(0, "a", "f", "")],
            [piece(0, arguments=A[:3])],
            [piece(0, arguments=A[3:])],
            [piece(0, "b", "g", "")],
            [piece(0, arguments=B)],
        ],
        TWO,
    ),
    "index 0 for every call, the id in every piece": (
        [
            [piece(0, "a", "f", A[:3])],
            [piece(0, "b", "g", B[:3])],
            [piece(0, "a", None, A[3:])],
            [piece(0, "b", "", B[3:])],
        ],
        TWO,
    ),
    "index 0 for every call, id and name in every piece": (
        [
            [piece(0, "a", "f", A[:3])],
            [piece(0, "b", "g", B[:3])],
            [piece(0, "a", "f", A[3:])],
            [piece(0, "b", "g", B[3:])],
        ],
        TWO,
    ),
    "index 0, no ids": ([[piece(0, None, "f", A)], [piece(0, None, "g", B)]], TWO),
    "index 0, empty ids, one tool twice": ([[piece(0, "", "f", A)], [piece(0, "", "f", B)]], TWICE),
    "one tool twice in one chunk": ([[piece(0, "", "f", A), piece(0, "", "f", B)]], TWICE),
    "no index": ([[piece(NO_INDEX, "a", "f", A)], [piece(NO_INDEX, "b", "g", B)]], TWO),
    "no index and no id": ([[piece(NO_INDEX, None, "f", A), piece(NO_INDEX, None, "g", B)]], TWO),
    "no index, in pieces": (
        [
            [piece(NO_INDEX, "a", "f")],
            [piece(arguments=A[:2])],
            [piece(arguments=A[2:])],
            [piece(NO_INDEX, "b", "g")],
            [piece(arguments=B)],
        ],
        TWO,
    ),
    "an index that is null": (
        [[piece(None, "a", "f", A[:2])], [piece(None, None, None, A[2:])], [piece(None, "b", "g", B)]],
        TWO,
    ),
    "an index that comes late": ([[piece(None, "a", "f", A[:2])], [piece(0, None, None, A[2:])]], ONE),
    "an index that restarts in every chunk": (
        [[piece(0, "a", "f", A), piece(1, "b", "g", B)], [piece(0, "c", "f", B), piece(1, "d", "g", A)]],
        [*TWO, ("f", B), ("g", A)],
    ),
    "indexes that do not begin with 0": ([[piece(1, "a", "f", A)], [piece(5, "b", "g", B)]], TWO),
    "a new id in every piece": (
        [[piece(0, "a", "f", "")], [piece(0, "x", None, A[:3])], [piece(0, "y", "", A[3:])]],
        ONE,
    ),
    "a new id in every piece, and an empty last one": (
        [[piece(0, "a", "f", A[:3])], [piece(0, "x", None, A[3:])], [piece(0, "y", None, "")]],
        ONE,
    ),
    "a new id without a name begins a call": (
        [[piece(0, "a", "f", A)], [piece(0, "b", None, "")], [piece(0, "b", "g", "")], [piece(0, "b", None, B)]],
        TWO,
    ),
    "an id that comes late": ([[piece(0, None, "f", "")], [piece(0, "a", None, A)]], ONE),
    "an id that is empty in later pieces": ([[piece(0, "a", "f", A[:3])], [piece(0, "", "", A[3:])]], ONE),
    "the same id for two calls": (
        [[piece(0, "a", "f", A)], [piece(1, "a", "g", B[:3])], [piece(1, "a", None, B[3:])]],
        TWO,
    ),
    "a name that comes late": ([[piece(0, "a", "", "")], [piece(0, None, "f", None)], [piece(0, arguments=A)]], ONE),
    "a name after the arguments": ([[piece(0, "a", None, A[:3])], [piece(0, None, "f", A[3:])]], ONE),
    "the id in the function": (
        [
            [{"index": 0, "function": {"id": "a", "name": "f", "arguments": A}}],
            [{"index": 0, "function": {"id": "b", "name": "f", "arguments": B}}],
        ],
        TWICE,
    ),
    "id, name and the rest of the arguments once more with the end": (
        [[piece(0, "a", "f", "")], [piece(0, None, None, A[:3])], [piece(0, "a", "f", A[3:], type="function")]],
        ONE,
    ),
    "no function at first": ([[{"index": 0, "id": "a", "type": "function"}], [piece(0, None, "f", A)]], ONE),
    "a name in pieces": (
        [[piece(0, "a", "get_", "")], [piece(0, None, "weather", "")], [piece(0, arguments=A)]],
        [("get_weather", A)],
    ),
    "a name in every piece": (
        [
            [piece(0, "a", "f", "")],
            [piece(0, None, "f", A[:3])],
            [piece(0, None, "f", A[3:])],
            [piece(0, None, "f", "")],
        ],
        ONE,
    ),
    "arguments as an object": ([[piece(0, "a", "f", {"a": 1})], [piece(0, "b", "g", {"b": 2})]], TWO),
    "no arguments": ([[piece(0, "a", "f", None)], [piece(1, "b", "g", {})]], [("f", ""), ("g", "")]),
    "no arguments, no ids, index 0": ([[piece(0, None, "f")], [piece(0, None, "g")]], [("f", ""), ("g", "")]),
    "two tools, one of whose names begins the other's": (
        [[piece(0, "", "get")], [piece(0, "", "get_weather", A)]],
        [("get", ""), ("get_weather", A)],
    ),
    "empty lists and null between": ([[piece(0, "a", "f", A[:3])], [], [piece(0, None, None, A[3:])]], ONE),
}


def called(events: list[Event]) -> list[tuple[str, str]]:
    """The calls in events, which must come one after the other, with ids of their own."""
    found: list[list[str]] = []
    ids: set[str] = set()
    open_call: int | None = None
    for event in events:
        match event:
            case ToolCallStart(index, id, name):
                assert open_call is None and index == len(found) and id and id not in ids
                ids.add(id)
                found.append([name, ""])
                open_call = index
            case ToolCallDelta(index, arguments):
                assert index == open_call and arguments
                found[-1][1] += arguments
            case ToolCallEnd(index):
                assert index == open_call
                open_call = None
    assert open_call is None
    return [(name, arguments) for name, arguments in found]


def same(calls: list[tuple[str, str]], expected: list[tuple[str, str]]) -> bool:
    def read(given: list[tuple[str, str]]) -> list[tuple[str, Any]]:
        return [(name, json.loads(arguments or "{}")) for name, arguments in given]

    return read(calls) == read(expected)


def crossed(stream: bytes) -> list[Event]:
    return list(chat.StreamDecoder(MESSAGES).feed_many(sse_blocks(stream)))


def passed(stream: bytes) -> list[Event]:
    return list(chat.Passthrough(ASKING).feed_many(sse_blocks(stream)))


def put_together_by_sdk(events: list[Event]) -> list[tuple[str, str]]:
    stream = written(chat.StreamEncoder(ASKING), events)
    with openai_client(stream).chat.completions.stream(model="m", messages=[], **ASKED) as helper:
        for _ in helper:
            pass
        calls = helper.current_completion_snapshot.choices[0].message.tool_calls or []
    ids = [given.id for given in calls]
    assert all(ids) and len(set(ids)) == len(ids)
    return [(given.function.name, given.function.arguments) for given in calls]


@pytest.mark.parametrize(("chunks", "expected"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
def test_every_piece_finds_its_call(chunks: list[list[Any]], expected: list[tuple[str, str]], reason: str) -> None:
    stream = b"".join(chunk(*pieces) for pieces in chunks) + chunk(reason=reason) + DONE
    events = crossed(stream)
    assert same(called(events), expected)
    assert isinstance(events[-1], Finished) and events[-1].answer.stop_reason == "tool_use"
    assert same(put_together_by_sdk(passed(stream)), expected)


def test_a_relay_of_regular_calls_keeps_every_byte() -> None:
    chunks = CASES["OpenAI"][0]
    stream = b"".join(chunk(*pieces) for pieces in chunks) + chunk(reason="tool_calls")
    assert relayed(passed(stream + DONE)) == stream
    custom = [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "x", "input": "y"}}]
    stream = chunk(*custom) + chunk({"index": 0, "custom": {"input": "z"}}) + chunk(reason="tool_calls")
    assert relayed(passed(stream + DONE)) == stream


def test_calls_in_a_message_and_the_older_form_are_read() -> None:
    message = {"content": None, "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": A}}]}
    whole = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
    events = list(chat.StreamDecoder(MESSAGES).feed_many([b"data: " + orjson.dumps(whole) + b"\n\n", DONE]))
    assert called(events) == ONE
    older = chunk(function_call={"name": "f", "arguments": A[:3]}) + chunk(function_call={"arguments": A[3:]})
    events = crossed(older + chunk(reason="function_call") + DONE)
    assert called(events) == ONE
    assert isinstance(events[-1], Finished) and events[-1].answer.stop_reason == "tool_use"


def test_a_half_character_in_arguments_is_joined() -> None:
    pieces = [r"{\"a\": \"\ud83d", r"\ude00\"}"]
    first = '{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"%s"}}]}}]}'
    stream = b"".join(b"data: " + (first % text).encode() + b"\n\n" for text in pieces)
    assert called(crossed(stream + chunk(reason="tool_calls") + DONE)) == [("f", '{"a": "\U0001f600"}')]


@pytest.mark.parametrize(
    "chunks",
    [
        [[piece(0, "a", None, A)]],  # no name comes
        [[piece(0, arguments=A)]],
        [[piece(0, "a", 3, A)]],
        [[piece(0, "a", "f", 3)]],
        [[piece(0, "a", "f", "[1]")]],
        [[piece(0, "a", "f", '{"a": ')]],
        [[piece(0, "a", "f", A[:3])], [piece(1, "b", "g", B)]],  # the first call stays incomplete
        [[piece(0, "a", "f", A)], [piece(1, "b", "g", B)], [piece(0, None, None, "more")]],
        [[piece("0", "a", "f", A)]],
        [[piece(0, "a", "f", A, type="custom")]],
        [["f"]],
    ],
)
def test_calls_that_are_not_complete_are_never_reported_as_whole(chunks: list[list[Any]]) -> None:
    stream = b"".join(chunk(*pieces) for pieces in chunks)
    with pytest.raises(errors.UpstreamBroken):
        crossed(stream + chunk(reason="tool_calls") + DONE)


def test_calls_that_were_cut_end_with_their_reason() -> None:
    events = crossed(chunk(piece(0, "a", "f", A), piece(1, "b", None, "")) + chunk(reason="length") + DONE)
    assert called(events) == ONE
    assert isinstance(events[-1], Finished) and events[-1].answer.stop_reason == "max_tokens"


PIECES = st.builds(
    piece,
    st.sampled_from([0, 0, 1, 2, None, NO_INDEX, "0", True]),
    st.sampled_from([None, "", "a", "b", "c", 3]),
    st.sampled_from([None, "", "f", "g", "get_", 3]),
    st.sampled_from([None, "", A, "{", "}", '"x": 1', {"a": 1}, {}, [], 3]),
)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.lists(PIECES, min_size=1, max_size=3), max_size=8))
def test_any_pieces_are_calls_or_an_upstream_error(chunks: list[list[Any]]) -> None:
    stream = b"".join(chunk(*pieces) for pieces in chunks) + chunk(reason="tool_calls") + DONE
    try:
        calls = called(crossed(stream))
    except errors.UpstreamError:
        calls = []
    for _, arguments in calls:
        assert isinstance(json.loads(arguments or "{}"), dict)
    assert isinstance(passed(stream)[-1], Finished)
