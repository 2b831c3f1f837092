"""No upstream, malformed or hostile, can make a decoder raise anything but an UpstreamError."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core.errors import UpstreamError
from llm_service.core.events import Finished
from llm_service.core.usage import Usage
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats import sse
from tests.formats.examples import FIXTURES, call, data_of, fixture, recorded

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FORMATS: dict[str, Any] = {"chat": chat, "messages": messages}
STREAMS = {
    "chat": data_of(fixture("openai/chat_stream/text.sse"))[:4] + data_of(fixture("openai/chat_stream/text.sse"))[-3:],
    "messages": data_of(fixture("anthropic/fable-fallback/stream-a-refusal.sse")),
}
REPLIES = {
    "chat": json.loads((FIXTURES / "openai/chat_json/L0044_1choice_stop.json").read_bytes()),
    "messages": recorded("test_messages-TestSyncParse-bd7029d5-d8d4-4e06-be3a-2ac9c60803a6.json"),
}


def paths(value: Any) -> list[tuple[Any, ...]]:
    """The path of every value inside ``value``, and of ``value`` itself."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(), *((key, *path) for key, child in inner for path in paths(child))]


@st.composite
def damaged(draw: st.DrawFn, sound: Any) -> Any:
    """``sound`` with another value at one or two paths, or with nothing there."""
    value = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from(paths(value)[1:]))
        parent = value
        for key in way:
            parent = parent[key]
        if draw(st.booleans()):
            parent[last] = draw(JSON)
        else:
            del parent[last]
        if not value:
            break
    return value


def believable(usage: Usage) -> bool:
    counts = (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.cache_write_tokens)
    return all(type(count) is int and 0 <= count < 2**40 for count in counts)


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None, max_examples=120)  # the machine may be busy
@given(data=st.data())
def test_a_damaged_stream_is_an_answer_or_an_upstream_error(name: str, data: st.DataObject) -> None:
    events = data.draw(damaged(STREAMS[name]))
    blocks = [sse.frame(json.dumps(event).encode() if event != "[DONE]" else b"[DONE]", b"x") for event in events]
    asked = call(name, {"messages": [], "stream_options": {"include_usage": True}}, stream=True)
    for reader in (FORMATS[name].StreamDecoder(asked), FORMATS[name].Passthrough(asked)):
        frames = FORMATS[name].StreamEncoder(asked)
        with suppress(UpstreamError):
            for event in reader.feed_many(blocks):
                assert isinstance(frames.feed(event), bytes)
                if isinstance(event, Finished):
                    assert reader.finished
                    assert believable(event.answer.usage)


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None, max_examples=120)  # the machine may be busy
@given(data=st.data())
def test_a_damaged_reply_is_an_answer_or_an_upstream_error(name: str, data: st.DataObject) -> None:
    reply = data.draw(damaged(REPLIES[name]))
    asked = call(name, {"messages": []})
    for reader in (FORMATS[name].read_answer, FORMATS[name].read_verbatim):
        with suppress(UpstreamError):
            answer = reader(reply, asked)
            assert believable(answer.usage)
            assert isinstance(FORMATS[name].write_answer(asked, answer), dict)


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None)  # the machine may be busy
@given(body=st.one_of(JSON, st.fixed_dictionaries({"error": JSON}), JSON.map(lambda value: {"error": {"type": value}})))
def test_any_error_body_is_read(name: str, body: Any) -> None:
    reported = FORMATS[name].read_error(body)
    for identifier in (reported.type, reported.code):
        assert identifier is None or (orjson.dumps(identifier) and len(identifier) <= 64)
