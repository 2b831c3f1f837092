"""Anthropic Messages, the upstream's side: streams that are recorded, malformed or in a wrong order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core import errors
from llm_service.core.events import IDLE, Answer, Delta, Event, Finished, Started
from llm_service.core.usage import Usage
from llm_service.formats import anthropic_messages as messages
from tests.formats.anthropic_messages.wire import BLOCK_STOP, END, block_start, event, messages_call, start, stop, text
from tests.formats.examples import USAGES, anthropic_client, fixture, read, relayed, written

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
def test_a_recorded_stream_gives_the_same_events_however_it_is_split(name: str) -> None:
    stream = fixture(name)
    whole = read(messages.StreamDecoder(messages_call()), stream)
    assert isinstance(whole[0], Started)
    assert isinstance(whole[-1], Finished)
    assert read(messages.StreamDecoder(messages_call()), *(bytes([byte]) for byte in stream)) == whole
    with anthropic_client(stream).messages.stream(model="m", max_tokens=5, messages=[]) as helper:
        final = helper.get_final_message()
    answer = whole[-1].answer
    text_of_sdk = "".join(block.text for block in final.content if block.type == "text")
    assert "".join(event.text for event in whole if isinstance(event, Delta)) == text_of_sdk
    assert (answer.model, answer.stop_reason) == (final.model, final.stop_reason)
    usage = final.usage
    cached, wrote = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    assert answer.usage.input_tokens == usage.input_tokens + cached + wrote
    assert answer.usage.output_tokens == usage.output_tokens
    assert answer.usage.exact
    if expected := CROSSING_STREAMS[name]:
        assert (text_of_sdk, answer.usage, answer.stop_reason) == expected


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
def test_a_stream_that_is_not_in_the_format_raises_upstream_broken(stream: bytes) -> None:
    with pytest.raises(errors.UpstreamBroken):
        read(messages.StreamDecoder(messages_call()), stream)


def test_unknown_events_are_ignored_and_pings_become_idle() -> None:
    stream = start() + event("novel") + event("ping") + block_start(type="text", text="a") + text("b") + stop() + END
    events = read(messages.StreamDecoder(messages_call()), event("ping") + stream)
    assert [type(event).__name__ for event in events] == ["Started", "Idle", "Delta", "Delta", "Finished"]


def test_an_answer_that_max_tokens_cuts_inside_a_block_is_complete() -> None:
    events = read(
        messages.StreamDecoder(messages_call()), start() + block_start() + text("x") + stop("max_tokens") + END
    )
    assert isinstance(events[-1], Finished)
    assert events[-1].answer.stop_reason == "max_tokens"


def test_the_answer_has_the_stop_sequence() -> None:
    closing = event("message_delta", delta={"stop_reason": "stop_sequence", "stop_sequence": "END"}, usage={})
    finished = read(messages.StreamDecoder(messages_call()), start() + closing + END)[-1]
    assert isinstance(finished, Finished)
    assert (finished.answer.stop_reason, finished.answer.stop_sequence) == ("stop_sequence", "END")


def test_a_stream_that_ends_early_is_not_finished() -> None:
    for decoder in (messages.StreamDecoder(messages_call()), messages.Passthrough(messages_call())):
        read(decoder, start() + block_start() + text("x") + BLOCK_STOP + stop())
        assert not decoder.finished


def test_blocks_after_the_end_are_ignored() -> None:
    stream = start() + block_start() + text("x") + BLOCK_STOP + stop() + END
    for decoder in (messages.StreamDecoder, messages.Passthrough):
        assert read(decoder(messages_call()), stream + text("y"), b"data: {\n\n") == read(
            decoder(messages_call()), stream
        )


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ({"input_tokens": 7, "output_tokens": 1}, {"output_tokens": 2}, Usage(7, 2)),
        ({"input_tokens": 7, "output_tokens": 1}, {"input_tokens": 9, "output_tokens": 2}, Usage(9, 2)),
        ({"input_tokens": 7}, {"input_tokens": None, "output_tokens": 2}, Usage(7, 2)),
        ({"input_tokens": 7, "cache_read_input_tokens": 3}, {"output_tokens": 2}, Usage(10, 2, cached_tokens=3)),
        ({"input_tokens": 7, "output_tokens": 1}, {"novel": 1}, Usage(7, 2, exact=False)),
        ({"input_tokens": "7"}, {"output_tokens": -2}, Usage(7, 2, exact=False)),
        ({"input_tokens": 0}, {"output_tokens": 0}, Usage(100, 2, exact=False)),
        ({"input_tokens": 7}, {"input_tokens": "", "output_tokens": 5}, Usage(7, 5)),
    ],
)
def test_later_counts_replace_earlier_ones(first: dict[str, Any], last: dict[str, Any], expected: Usage) -> None:
    stream = start(**first) + block_start() + text("12345") + BLOCK_STOP + stop(**last) + END
    for decoder in (messages.StreamDecoder(messages_call()), messages.Passthrough(messages_call())):
        finished = read(decoder, stream)[-1]
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
def test_an_error_in_a_stream_is_raised_after_the_events_before_it(kind: str, raised: type[Exception]) -> None:
    pieces = [start(), block_start(), text("x"), event("error", error={"type": kind, "message": "secret"})]
    for decoder in (messages.StreamDecoder(messages_call()), messages.Passthrough(messages_call())):
        events = []
        with pytest.raises(raised) as failure:
            for read_event in decoder.feed_many(pieces):
                events.append(read_event)
        assert len(events) == 2
        assert b"error" not in relayed(events)
        assert isinstance(failure.value, errors.UpstreamError)
        assert failure.value.vendor["type"] == kind
        assert "secret" not in f"{failure.value.message}{failure.value.vendor}"


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5), USAGES)
def test_a_written_stream_is_read_back_unchanged(texts: list[str], usage: Usage) -> None:
    client_call = messages_call(stream=True)
    answer = Answer(usage, stop_reason="max_tokens", model="m")
    events: list[Event] = [Started("m", Usage()), *map(Delta, texts), Finished(answer)]
    stream = written(messages.StreamEncoder(client_call), events)
    # The ping after the block's start is read as a silence.
    assert [event for event in read(messages.StreamDecoder(client_call), stream) if event is not IDLE] == events


def test_a_count_in_message_delta_never_lowers_the_one_in_message_start() -> None:
    begun = event("message_start", message={"model": "m", "usage": {"input_tokens": 10, "cache_read_input_tokens": 3}})
    usage = {"input_tokens": 0, "output_tokens": 5, "cache_read_input_tokens": None}
    closing = event("message_delta", delta={"stop_reason": "end_turn"}, usage=usage)
    stream = begun + block_start() + text("x") + BLOCK_STOP + closing + event("message_stop")
    for reader in (messages.StreamDecoder(messages_call()), messages.Passthrough(messages_call())):
        finished = read(reader, stream)[-1]
        assert isinstance(finished, Finished) and finished.answer.usage == Usage(13, 5, 3)


@pytest.mark.parametrize("reason", ["pause_turn", "compaction", "reason_of_tomorrow"])
def test_a_reason_that_is_not_an_end_is_a_failure_for_other_formats_and_relayed_to_its_own(reason: str) -> None:
    stream = start() + block_start() + text("x") + BLOCK_STOP + stop(reason) + END
    with pytest.raises(errors.UpstreamFailed):
        read(messages.StreamDecoder(messages_call()), stream)
    assert isinstance(read(messages.Passthrough(messages_call()), stream)[-1], Finished)


def tool_stream(reason: str, *pieces: str, given: Any = None, closed: bool = True) -> bytes:
    stream = start() + block_start(type="tool_use", id="t", name="f", input={} if given is None else given)
    for piece in pieces:
        delta = {"type": "input_json_delta", "partial_json": piece}
        stream += event("content_block_delta", index=0, delta=delta)
    return stream + (BLOCK_STOP if closed else b"") + stop(reason) + END


@pytest.mark.parametrize("reason", ["tool_use", "end_turn", "stop_sequence"])
@pytest.mark.parametrize(
    ("pieces", "given"),
    [
        (['{"a":"unf', "in"], None),
        (['{"a":1}', "}"], None),
        (["null"], None),
        (["[1]"], None),
        ([], [1]),
        (['{"b":1}'], {"a": 1}),
    ],
)
@pytest.mark.parametrize("closed", [True, False])
def test_an_input_that_is_not_an_object_is_never_a_finished_tool_call(
    pieces: list[str], given: Any, reason: str, closed: bool
) -> None:
    with pytest.raises(errors.UpstreamBroken, match="not a JSON object"):
        read(
            messages.StreamDecoder(messages_call(tools=TOOLS)), tool_stream(reason, *pieces, given=given, closed=closed)
        )


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded", "refusal"])
def test_a_reason_that_says_so_may_cut_an_input(reason: str) -> None:
    events = read(messages.StreamDecoder(messages_call(tools=TOOLS)), tool_stream(reason, '{"a":"unf'))
    assert isinstance(events[-1], Finished)
    assert events[-1].answer.stop_reason in ("max_tokens", "refusal")


@pytest.mark.parametrize(
    ("pieces", "given"), [([], None), ([""], None), (["{}"], None), (['{"a"', ":1}"], None), ([], {"a": 1})]
)
def test_an_input_that_is_an_object_is_whole(pieces: list[str], given: Any) -> None:
    events = read(messages.StreamDecoder(messages_call(tools=TOOLS)), tool_stream("tool_use", *pieces, given=given))
    assert isinstance(events[-1], Finished)


TOOLS = [{"name": "f", "input_schema": {"type": "object"}}]
