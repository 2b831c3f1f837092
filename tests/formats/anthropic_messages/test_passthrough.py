"""Anthropic Messages, the upstream's side: what travels verbatim."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core import errors
from llm_service.core.events import Event, Finished, Relay, Started
from llm_service.formats import anthropic_messages as messages
from tests.formats.anthropic_messages.wire import (
    BLOCK_STOP,
    END,
    block_start,
    body,
    claude,
    event,
    messages_call,
    start,
    stop,
    text,
)
from tests.formats.examples import call, fixture, fixture_names, read, relayed, written


def test_forward_changes_only_the_model_of_the_client_body() -> None:
    request = body(stream=True, thinking={"type": "adaptive"}, novel=[1])
    before = json.dumps(request)
    assert messages.forward(call("messages", request, stream=True), claude()) == {
        **request,
        "model": "claude-haiku-4-5",
    }
    assert json.dumps(request) == before


# "unknown_events" is left out: no vendor sends its content_block_stop before message_start.
STREAMS = [
    *fixture_names("anthropic/fable-fallback"),
    *(name for name in fixture_names("anthropic/streaming") if "unknown_events" not in name),
]


@pytest.mark.parametrize(
    "stream",
    [text("x"), start() + start(), start() + END, start() + BLOCK_STOP, stop(), b"data: {\n\n", b"data: 3\n\n"],
)
def test_a_relayed_stream_in_a_wrong_order_raises_upstream_broken(stream: bytes) -> None:
    with pytest.raises(errors.UpstreamBroken):
        read(messages.Passthrough(messages_call()), stream)


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_is_relayed_byte_for_byte(name: str) -> None:
    stream = fixture(name).rstrip(b"\n") + b"\n\n"
    client_call = messages_call(stream=True)
    whole = read(messages.Passthrough(client_call), stream)
    assert isinstance(whole[0], Started)
    assert whole[0].usage is not None
    assert isinstance(whole[-1], Finished)
    assert b"message_stop" in whole[-1].tail
    assert written(messages.StreamEncoder(client_call), whole) == stream
    pieces = read(messages.Passthrough(client_call), *(bytes([byte]) for byte in stream))
    assert relayed(pieces) == relayed(whole)
    assert (pieces[0], pieces[-1]) == (whole[0], whole[-1])
    counts = [sum(event.characters for event in events if isinstance(event, Relay)) for events in (pieces, whole)]
    assert counts[0] == counts[1]


def test_blocks_before_message_start_are_relayed_with_it() -> None:
    stream = event("novel") + start() + stop() + END
    events = read(messages.Passthrough(messages_call()), *(part + b"\n\n" for part in stream.split(b"\n\n") if part))
    assert [type(event).__name__ for event in events] == ["Started", "Relay", "Relay", "Finished"]
    assert written(messages.StreamEncoder(messages_call()), events) == stream


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('ab"\\\n')), max_size=12))
def test_every_relayed_character_before_an_error_is_counted(texts: list[str]) -> None:
    passthrough, events = messages.Passthrough(messages_call()), list[Event]()
    blocks = [start(), block_start(type="text", text=""), *map(text, texts)]
    with pytest.raises(errors.UpstreamOverloaded):
        for relayed_event in passthrough.feed_many([*blocks, event("error", error={"type": "overloaded_error"})]):
            events.append(relayed_event)
    assert relayed(events) == b"".join(blocks)
    assert sum(event.characters for event in events if isinstance(event, Relay)) == len("".join(texts))


def test_a_delta_after_the_end_of_its_block_raises_upstream_broken() -> None:
    pieces = [
        start(),
        block_start(type="text", text=""),
        text("some"),
        text("word"),
        event("content_block_stop", index=0),
    ]
    with pytest.raises(errors.UpstreamBroken, match="outside a content block"):
        list(messages.Passthrough(messages_call()).feed_many([*pieces, text("late")]))
