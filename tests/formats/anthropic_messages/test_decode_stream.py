"""Anthropic Messages, the upstream's streams: recorded, hostile and out of order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core import errors
from llm_service.core.events import IDLE, Answer, Delta, Event, Finished, Relay, Started
from llm_service.core.usage import Usage
from llm_service.formats import anthropic_messages as messages
from tests.formats.anthropic_messages.wire import BLOCK_STOP, END, block_start, event, messages_call, start, stop, text
from tests.formats.examples import USAGES, anthropic_client, fixture, fixture_names, read, relayed, written

STREAMS = [
    *fixture_names("anthropic/fable-fallback"),
    # Its content_block_stop before message_start is no order a vendor would send.
    *(name for name in fixture_names("anthropic/streaming") if "unknown_events" not in name),
]


CROSSING_STREAMS = {
    "anthropic/streaming/basic_response.sse": ("Hello there!", Usage(11, 6), "end_turn"),
    "anthropic/streaming/message_delta_omitted_usage_response.sse": None,
    "anthropic/streaming/message_delta_fields_response.sse": None,
    "anthropic/streaming/context_management_response.sse": None,
    "anthropic/streaming/refusal_response.sse": None,
    "anthropic/fable-fallback/stream-a-refusal.sse": None,
    "anthropic/fable-fallback/stream-b-fallback.sse": None,
}


@pytest.mark.parametrize("name", CROSSING_STREAMS)
def test_a_recorded_stream_split_at_every_byte_crosses_the_same(name: str) -> None:
    stream = fixture(name)
    whole = read(messages.StreamDecoder(messages_call()), stream)
    assert isinstance(whole[0], Started)
    assert isinstance(whole[-1], Finished)
    assert read(messages.StreamDecoder(messages_call()), *(bytes([byte]) for byte in stream)) == whole
    with anthropic_client(stream).messages.stream(model="m", max_tokens=5, messages=[]) as helper:
        final = helper.get_final_message()
    answer = whole[-1].answer
    said = "".join(block.text for block in final.content if block.type == "text")
    assert "".join(event.text for event in whole if isinstance(event, Delta)) == said
    assert (answer.model, answer.stop_reason) == (final.model, final.stop_reason)
    usage = final.usage
    cached, wrote = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    assert answer.usage.input_tokens == usage.input_tokens + cached + wrote
    assert answer.usage.output_tokens == usage.output_tokens
    assert answer.usage.exact
    if expected := CROSSING_STREAMS[name]:
        assert (said, answer.usage, answer.stop_reason) == expected


@pytest.mark.parametrize(
    "stream",
    [
        block_start(),
        text("x"),
        start() + text("x"),
        start() + start(),
        start() + BLOCK_STOP,
        start() + block_start(1),
        start() + block_start() + block_start(1),
        start() + block_start() + BLOCK_STOP + block_start(),
        start() + block_start() + text("x", index=1),
        start() + block_start() + text(3),
        start() + block_start(type="thinking") + text("x"),
        start() + block_start(type="tool_use"),
        start() + block_start(type="text", text=3),
        start() + event("content_block_start", index=0, content_block=3),
        start() + event("content_block_delta", index=0, delta=3),
        start() + END,
        start() + stop(None) + END,
        start() + stop(3) + END,
        start() + block_start() + stop() + text("x"),
        stop(),
        END,
        event("message_start", message=3),
        start() + event("message_delta", delta=[]),
        b"data: {}\n\n",
        b"event: message_start\ndata: {\n\n",
        b"event: message_start\ndata: []\n\n",
    ],
)
def test_a_stream_that_is_not_the_format_is_broken(stream: bytes) -> None:
    with pytest.raises(errors.UpstreamBroken):
        read(messages.StreamDecoder(messages_call()), stream)


@pytest.mark.parametrize(
    "stream",
    [text("x"), start() + start(), start() + END, start() + BLOCK_STOP, stop(), b"data: {\n\n", b"data: 3\n\n"],
)
def test_a_relayed_stream_out_of_order_is_broken(stream: bytes) -> None:
    with pytest.raises(errors.UpstreamBroken):
        read(messages.Passthrough(messages_call()), stream)


def test_unknown_events_are_borne_and_pings_are_silence() -> None:
    stream = start() + event("novel") + event("ping") + block_start(type="text", text="a") + text("b") + stop() + END
    events = read(messages.StreamDecoder(messages_call()), event("ping") + stream)
    assert [type(event).__name__ for event in events] == ["Started", "Idle", "Delta", "Delta", "Finished"]


def test_an_answer_cut_inside_a_block_by_max_tokens_is_whole() -> None:
    events = read(
        messages.StreamDecoder(messages_call()), start() + block_start() + text("x") + stop("max_tokens") + END
    )
    assert isinstance(events[-1], Finished)
    assert events[-1].answer.stop_reason == "max_tokens"


def test_a_stop_sequence_is_told() -> None:
    closing = event("message_delta", delta={"stop_reason": "stop_sequence", "stop_sequence": "END"}, usage={})
    finished = read(messages.StreamDecoder(messages_call()), start() + closing + END)[-1]
    assert isinstance(finished, Finished)
    assert (finished.answer.stop_reason, finished.answer.stop_sequence) == ("stop_sequence", "END")


def test_a_stream_that_ends_early_is_not_finished() -> None:
    for reader in (messages.StreamDecoder(messages_call()), messages.Passthrough(messages_call())):
        read(reader, start() + block_start() + text("x") + BLOCK_STOP + stop())
        assert not reader.finished


def test_what_follows_the_end_is_ignored() -> None:
    stream = start() + block_start() + text("x") + BLOCK_STOP + stop() + END
    for reader in (messages.StreamDecoder, messages.Passthrough):
        assert read(reader(messages_call()), stream + text("y"), b"data: {\n\n") == read(
            reader(messages_call()), stream
        )


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ({"input_tokens": 7, "output_tokens": 1}, {"output_tokens": 2}, Usage(7, 2)),
        ({"input_tokens": 7, "output_tokens": 1}, {"input_tokens": 9, "output_tokens": 2}, Usage(9, 2)),
        ({"input_tokens": 7}, {"input_tokens": None, "output_tokens": 2}, Usage(7, 2)),
        ({"input_tokens": 7, "cache_read_input_tokens": 3}, {"output_tokens": 2}, Usage(10, 2, cached_tokens=3)),
        ({"input_tokens": 7, "output_tokens": 1}, {"novel": 1}, Usage(7, 2, exact=False)),
        ({"input_tokens": "7"}, {"output_tokens": -2}, Usage(100, 2, exact=False)),
    ],
)
def test_the_last_word_on_usage_wins(first: dict[str, Any], last: dict[str, Any], expected: Usage) -> None:
    stream = start(**first) + block_start() + text("12345") + BLOCK_STOP + stop(**last) + END
    for reader in (messages.StreamDecoder(messages_call()), messages.Passthrough(messages_call())):
        finished = read(reader, stream)[-1]
        assert isinstance(finished, Finished)
        assert finished.answer.usage == expected


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        ("overloaded_error", errors.UpstreamOverloaded),
        ("rate_limit_error", errors.UpstreamRateLimited),
        ("api_error", errors.UpstreamFailed),
        ("timeout_error", errors.UpstreamTimeout),
        ("invalid_request_error", errors.UpstreamRejected),
        ("billing_error", errors.UpstreamQuotaExhausted),
        ("novel_error", errors.UpstreamFailed),
    ],
)
def test_an_error_in_the_stream_is_raised_after_what_came_before_it(kind: str, raised: type[Exception]) -> None:
    pieces = [start(), block_start(), text("x"), event("error", error={"type": kind, "message": "secret"})]
    for reader in (messages.StreamDecoder(messages_call()), messages.Passthrough(messages_call())):
        events = []
        with pytest.raises(raised) as failure:
            for seen in reader.feed_many(pieces):
                events.append(seen)
        assert len(events) == 2
        assert b"error" not in relayed(events)
        assert isinstance(failure.value, errors.UpstreamError)
        assert failure.value.vendor["type"] == kind
        assert "secret" not in f"{failure.value.message}{failure.value.vendor}"


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_is_relayed_byte_for_byte(name: str) -> None:
    stream = fixture(name).rstrip(b"\n") + b"\n\n"
    asked = messages_call(stream=True)
    whole = read(messages.Passthrough(asked), stream)
    assert isinstance(whole[0], Started)
    assert whole[0].usage is not None
    assert isinstance(whole[-1], Finished)
    assert b"message_stop" in whole[-1].tail
    assert written(messages.StreamEncoder(asked), whole) == stream
    pieces = read(messages.Passthrough(asked), *(bytes([byte]) for byte in stream))
    assert relayed(pieces) == relayed(whole)
    assert (pieces[0], pieces[-1]) == (whole[0], whole[-1])
    counts = [sum(event.characters for event in events if isinstance(event, Relay)) for events in (pieces, whole)]
    assert counts[0] == counts[1]


def test_blocks_before_the_start_are_relayed_with_it() -> None:
    stream = event("novel") + start() + stop() + END
    events = read(messages.Passthrough(messages_call()), *(part + b"\n\n" for part in stream.split(b"\n\n") if part))
    assert [type(event).__name__ for event in events] == ["Started", "Relay", "Relay", "Finished"]
    assert written(messages.StreamEncoder(messages_call()), events) == stream


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5), USAGES)
def test_a_stream_that_was_written_is_read_back_the_same(texts: list[str], usage: Usage) -> None:
    asked = messages_call(stream=True)
    answer = Answer(usage, stop_reason="max_tokens", model="m")
    events: list[Event] = [Started("m", Usage()), *map(Delta, texts), Finished(answer)]
    stream = written(messages.StreamEncoder(asked), events)
    # The ping after the block's start is read as a silence.
    assert [event for event in read(messages.StreamDecoder(asked), stream) if event is not IDLE] == events


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('ab"\\\n')), max_size=12))
def test_what_is_relayed_is_counted_to_the_character_before_an_error(texts: list[str]) -> None:
    tap, events = messages.Passthrough(messages_call()), list[Event]()
    blocks = [start(), block_start(type="text", text=""), *map(text, texts)]
    with pytest.raises(errors.UpstreamOverloaded):
        for told in tap.feed_many([*blocks, event("error", error={"type": "overloaded_error"})]):
            events.append(told)
    assert relayed(events) == b"".join(blocks)
    assert sum(told.characters for told in events if isinstance(told, Relay)) == len("".join(texts))


def test_a_piece_after_the_end_of_its_block_is_noticed_however_plain() -> None:
    pieces = [
        start(),
        block_start(type="text", text=""),
        text("some"),
        text("word"),
        event("content_block_stop", index=0),
    ]
    with pytest.raises(errors.UpstreamBroken, match="outside a content block"):
        list(messages.Passthrough(messages_call()).feed_many([*pieces, text("late")]))
