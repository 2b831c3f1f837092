"""Streams of servers that speak OpenAI's API in their own way, each read for a client of another format and relayed."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm_service.core import errors
from llm_service.core.events import (
    Delta,
    Event,
    Finished,
    RefusalDelta,
    Relay,
    Started,
    ThinkingDelta,
    ThinkingEnd,
)
from llm_service.core.usage import Usage
from llm_service.formats import openai_chat as chat
from tests.formats.examples import TURN, call, data_of, openai_client, relayed, sse_blocks, written
from tests.formats.openai_chat.wire import ASKED, DONE, USAGE, chat_call, chunk

MESSAGES = call("messages", {"model": "m", "max_tokens": 5, "messages": TURN, "tools": [{"name": "t"}]}, stream=True)
ASKING = chat_call(stream=True, **ASKED)
COUNTED = Usage(7, 2)


def data(value: Any) -> bytes:
    return b"data: " + (value if type(value) is bytes else orjson.dumps(value)) + b"\n\n"


def crossed(stream: bytes) -> list[Event]:
    reader = chat.StreamDecoder(MESSAGES)
    return [*reader.feed_many(sse_blocks(stream)), *reader.end()]


def passed(stream: bytes) -> list[Event]:
    reader = chat.Passthrough(ASKING)
    return [*reader.feed_many(sse_blocks(stream)), *reader.end()]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def read_by_sdk(events: list[Event]) -> tuple[str, str | None, Any]:
    """The text, the last finish_reason and the usage that OpenAI's SDK reads from a relayed stream."""
    stream = written(chat.StreamEncoder(ASKING), events)
    text, reason, usage = "", None, None
    for given in openai_client(stream).chat.completions.create(model="m", messages=[], stream=True):
        usage = given.usage or usage
        for choice in given.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return text, reason, usage


HI, STOP = chunk({"content": "Hi"}), chunk({}, "stop")
COUNTS = chunk(usage=USAGE)
ONLY_USAGE = data({"usage": USAGE})
EMPTY_REASON = [chunk({"content": text}, "") for text in ("H", "i")]

# Streams that say "Hi" and report USAGE.
SAID_HI = {
    "an empty finish_reason in every chunk": [*EMPTY_REASON, chunk({}, "stop"), COUNTS, DONE],
    "empty strings in the place of null": [
        chunk({"role": "", "content": "", "refusal": "", "tool_calls": None, "id": ""}, ""),
        chunk({"content": "Hi", "refusal": "", "tool_calls": [], "function_call": None}),
        STOP,
        COUNTS,
        DONE,
    ],
    "usage without choices at the end": [HI, STOP, ONLY_USAGE, DONE],
    "usage without choices at the beginning": [ONLY_USAGE, HI, STOP, DONE],
    "usage with choices null in the middle": [HI, data({"choices": None, "usage": USAGE}), STOP, DONE],
    "usage in every chunk": [
        chunk({"content": "Hi"}, usage={**USAGE, "completion_tokens": 1}),
        chunk({}, "stop", usage=USAGE),
        DONE,
    ],
    "usage that gets lower": [
        chunk({"content": "Hi"}, usage=USAGE),
        chunk({}, "stop", usage={"prompt_tokens": 0, "completion_tokens": 1}),
        DONE,
    ],
    "usage that becomes null": [chunk({"content": "Hi"}, usage=USAGE), chunk({}, "stop", usage=None), DONE],
    "usage whose counts become null": [
        chunk({"content": "Hi"}, usage=USAGE),
        chunk(usage={"prompt_tokens": None}),
        STOP,
        DONE,
    ],
    "usage with an empty choice after the finish_reason": [
        HI,
        STOP,
        data({"choices": [{"index": 0, "delta": {}}], "usage": USAGE}),
        DONE,
    ],
    "usage as a preview in the first chunk": [
        chunk(usage={"prompt_tokens": 7, "completion_tokens": 1}),
        HI,
        STOP,
        COUNTS,
        DONE,
    ],
    "usage in floats": [HI, STOP, chunk(usage={"prompt_tokens": 7.0, "completion_tokens": 2.0}), DONE],
    "usage of Groq": [HI, chunk({}, "stop", x_groq={"id": "r", "usage": USAGE}), DONE],
    "usage in the choice": [
        HI,
        data({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]}),
        DONE,
    ],
    "no end marker": [HI, STOP, COUNTS],
    "chunks that add nothing": [
        b": comment\n\n",
        b"data:\n\n",
        b"data: \n\n",
        data({}),
        data({"object": "ping"}),
        b"event: ping\ndata: alive\n\n",
        b"event: heartbeat\n\n",
        data({"choices": []}),
        data({"choices": None}),
        data(b"null"),
        chunk({}),
        chunk({"role": "assistant", "content": ""}),
        HI,
        b": more\n\n",
        data({"choices": []}),
        data({}),
        STOP,
        COUNTS,
        DONE,
    ],
    "the finish_reason in every chunk": [
        chunk({"content": "H"}, "stop"),
        chunk({"content": "i"}, "stop"),
        COUNTS,
        DONE,
    ],
    "the finish_reason twice": [HI, STOP, chunk({"content": ""}, "stop"), COUNTS, DONE],
    "a delta that is null": [
        HI,
        data({"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}),
        COUNTS,
        DONE,
    ],
    "no delta": [HI, data({"choices": [{"index": None, "finish_reason": "stop"}]}), COUNTS, DONE],
    "no index": [data({"choices": [{"delta": {"content": "Hi"}}]}), STOP, COUNTS, DONE],
    "a message in the place of deltas": [
        data(
            {"choices": [{"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}], "usage": USAGE}
        ),
    ],
    "messages in the place of deltas": [
        *(data({"choices": [{"message": {"content": text}}]}) for text in "Hi"),
        STOP,
        COUNTS,
        DONE,
    ],
    "a message that repeats the deltas": [
        HI,
        data({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}),
        COUNTS,
        DONE,
    ],
    "no space after the colon": [HI.replace(b": ", b":", 1), STOP.replace(b": ", b":", 1), COUNTS, b"data:[DONE]\n\n"],
    "names of events": [b"event: message\n" + HI, b"id: 1\nevent: chunk\n" + STOP, COUNTS, DONE],
    "a service tier that is null": [chunk({"content": "Hi"}, service_tier=None), STOP, COUNTS, DONE],
    "an error that is empty": [chunk({"content": "Hi"}, error=None), chunk({}, "stop", error={}), COUNTS, DONE],
}


@pytest.mark.parametrize("stream", [b"".join(blocks) for blocks in SAID_HI.values()], ids=SAID_HI)
def test_a_stream_that_says_hi_in_its_own_way_is_whole(stream: bytes) -> None:
    events = crossed(stream)
    assert isinstance(events[0], Started) and isinstance(events[-1], Finished)
    assert text_of(events) == "Hi"
    assert (events[-1].answer.stop_reason, events[-1].answer.usage) == ("end_turn", COUNTED)
    events = passed(stream)
    assert isinstance(events[0], Started) and isinstance(events[-1], Finished)
    assert (events[-1].answer.stop_reason, events[-1].answer.usage) == ("end_turn", COUNTED)
    assert sum(event.characters for event in events if isinstance(event, Relay)) == 2
    text, reason, usage = read_by_sdk(events)
    assert (text, reason, usage.prompt_tokens, usage.completion_tokens) == ("Hi", "stop", 7, 2)


def test_parts_and_fields_of_thoughts_are_read() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True}
    streams: list[list[dict[str, Any]]] = [
        [
            {"content": [thinking]},
            {"content": [{"type": "text", "text": "Hi"}, {"type": "reference", "reference_ids": [1]}]},
        ],
        [{"content": [thinking, {"type": "text", "text": "Hi"}]}],
        [{"content": [{"type": "thinking", "thinking": "hm"}, "Hi"]}],
        *([{name: "hm"}, {"content": "Hi"}] for name in ("reasoning_content", "reasoning", "thinking")),
        [{"reasoning": "hm", "reasoning_content": "hm", "content": ""}, {"content": "Hi", "reasoning": None}],
    ]
    for deltas in streams:
        stream = b"".join([chunk(delta) for delta in deltas]) + STOP + DONE
        events = crossed(stream)
        assert events[1:-1] == [ThinkingDelta("hm"), ThinkingEnd(), Delta("Hi")], deltas
        relay = passed(stream)
        assert relayed(relay) == b"".join([chunk(delta) for delta in deltas]) + STOP
        for last in (events[-1], relay[-1]):
            assert isinstance(last, Finished) and last.answer.usage == Usage(100, 1, exact=False)
    events = crossed(chunk({"content": [{"type": "refusal", "refusal": "No"}]}) + STOP + DONE)
    assert RefusalDelta("No") in events and isinstance(events[-1], Finished)
    assert events[-1].answer.stop_reason == "refusal"
    with pytest.raises(errors.UpstreamBroken, match="not text"):
        crossed(chunk({"content": [{"type": "image_url", "image_url": {}}]}) + STOP + DONE)


@pytest.mark.parametrize(
    ("reason", "known"),
    [
        *((word, "end_turn") for word in ("stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "complete")),
        *((word, "max_tokens") for word in ("length", "max_tokens", "MAX_TOKENS", "model_length")),
        *((word, "refusal") for word in ("content_filter", "content_filter: SAFETY", "sensitive", "refusal")),
    ],
)
def test_a_finish_reason_in_other_words_is_known(reason: str, known: str) -> None:
    for events in (crossed(HI + chunk({}, reason) + DONE), passed(HI + chunk({}, reason) + DONE)):
        assert isinstance(events[-1], Finished) and events[-1].answer.stop_reason == known


FAILURES: list[tuple[Any, type[errors.UpstreamError]]] = [
    *((chunk({}, word), errors.UpstreamFailed) for word in ("error", "network_error", "abort", "reason_of_tomorrow")),
    (chunk({}, "insufficient_system_resource"), errors.UpstreamOverloaded),
    (data({"choices": [{"delta": {}, "finish_reason": "error", "error": {"code": 502}}]}), errors.UpstreamFailed),
    (data({"choices": [{"delta": {"content": ""}, "error": {"code": 429}}]}), errors.UpstreamRateLimited),
    (data({"choices": [{"delta": {"content": "x"}, "error": "secret"}]}), errors.UpstreamFailed),
    (data({"error": {"code": 503, "message": "secret"}, "choices": []}), errors.UpstreamOverloaded),
    (data({"error": "secret", "error_type": "overloaded"}), errors.UpstreamOverloaded),
    (data({"error": {"message": "secret", "status": 429}}), errors.UpstreamRateLimited),
    (data([{"error": {"code": 429, "message": "secret", "status": "RESOURCE_EXHAUSTED"}}]), errors.UpstreamRateLimited),
    (data({"object": "error", "message": "secret", "code": 400}), errors.UpstreamRejected),
    (b'event: error\ndata: {"message": "secret", "code": 504}\n\n', errors.UpstreamTimeout),
]


@pytest.mark.parametrize(("failing", "kind"), FAILURES)
@pytest.mark.parametrize("reader", [chat.StreamDecoder, chat.Passthrough])
@pytest.mark.parametrize("marked", [True, False])
def test_a_failure_is_never_a_normal_end(
    failing: bytes, kind: type[errors.UpstreamError], reader: Any, marked: bool
) -> None:
    end = DONE if marked else b""
    for said in (b"", chunk({"role": "assistant", "content": ""}), HI, HI + STOP):
        decoder, events = reader(ASKING), []
        with pytest.raises(kind) as caught:
            for event in decoder.feed_many(sse_blocks(said + failing + end)):
                events.append(event)
        assert not decoder.finished
        # Before the first text there is no event, so that another target can be asked.
        assert [type(event) for event in events[:1]] == ([Started] if b"Hi" in said else [])
        assert "secret" not in f"{caught.value.message}{caught.value.vendor}"
        assert failing not in relayed(events)


@pytest.mark.parametrize(
    "stream",
    [
        HI,
        HI + DONE,
        HI + COUNTS + DONE,
        HI + chunk({}, "") + DONE,
        HI + STOP + HI + DONE,
        HI + STOP + HI,
        chunk({"reasoning_content": "h"}, "stop") + chunk({"reasoning_content": "m"}),
        DONE,
        COUNTS,
        data({}) + DONE,
    ],
)
def test_a_stream_without_a_finish_reason_at_its_end_is_not_whole(stream: bytes) -> None:
    for reader in (chat.StreamDecoder(MESSAGES), chat.Passthrough(ASKING)):
        try:
            events = [*reader.feed_many(sse_blocks(stream)), *reader.end()]
        except errors.UpstreamBroken:
            events = []
        assert not reader.finished
        assert not any(isinstance(event, Finished) for event in events)


def test_a_choice_that_did_not_end_is_noticed() -> None:
    def of(index: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        return data({"choices": [{"index": index, "delta": delta, "finish_reason": reason}]})

    several = chat_call(stream=True, n=2)
    begun = of(0, {"content": "a"}) + of(1, {"content": "b"}) + of(0, {}, "stop")
    for make in (chat.StreamDecoder, chat.Passthrough):
        for stream in (begun + DONE, begun, of(0, {"content": "a"}, "stop")):
            reader = make(several)
            with pytest.raises(errors.UpstreamBroken):
                raise_if_unfinished(reader, [*reader.feed_many(sse_blocks(stream)), *reader.end()])
        whole = make(several)
        assert isinstance([*whole.feed_many(sse_blocks(begun + of(1, {}, "stop"))), *whole.end()][-1], Finished)


def raise_if_unfinished(reader: Any, events: list[Event]) -> None:
    """As the exchange does at the end of a body."""
    if not reader.finished:
        raise errors.UpstreamBroken("")


def test_an_end_without_usage_and_without_a_marker_has_no_known_cost() -> None:
    for events in (crossed(HI + STOP), passed(HI + STOP)):
        assert isinstance(events[-1], Finished)
        answer = events[-1].answer
        assert answer.usage_lost and answer.usage == Usage(100, 1, exact=False)
    for stream in (HI + STOP + COUNTS, HI + STOP + DONE):
        for events in (crossed(stream), passed(stream)):
            assert isinstance(events[-1], Finished) and not events[-1].answer.usage_lost


REPORT = {"prompt_tokens": 500, "completion_tokens": 300}


@pytest.mark.parametrize(
    "failing",
    [
        chunk({}, "error", usage=REPORT),
        chunk({}, "error", x_groq={"usage": REPORT}),
        data({"error": {"message": "no"}, "usage": REPORT}),
        data({"object": "error", "message": "no", "usage": REPORT}),
        chunk(usage=REPORT) + data([]),
    ],
)
def test_a_stream_that_fails_keeps_the_usage_that_was_reported(failing: bytes) -> None:
    for make in (lambda: chat.StreamDecoder(MESSAGES), lambda: chat.Passthrough(ASKING)):
        reader: Any = make()
        first = chunk({"content": "Hi"}, usage={"prompt_tokens": 500, "completion_tokens": 0})
        with pytest.raises(errors.UpstreamError):
            list(reader.feed_many(sse_blocks(first + failing)))
        assert reader.reported() == Usage(500, 300)


@pytest.mark.parametrize(
    "last",
    [
        b'{"prompt_tokens":"","completion_tokens":false}',
        b'{"prompt_tokens":1e400,"completion_tokens":NaN}',
        b'{"prompt_tokens":{},"completion_tokens":[]}',
        b'{"prompt_tokens":-1,"completion_tokens":3e9,"completion_tokens_details":"none"}',
        b'{"prompt_tokens":3,"completion_tokens":null,"completion_tokens_details":{"reasoning_tokens":0}}',
    ],
)
def test_no_count_gets_lower(last: bytes) -> None:
    first = {"prompt_tokens": 500, "completion_tokens": 700, "completion_tokens_details": {"reasoning_tokens": 600}}
    stream = HI + STOP + chunk(usage=first) + data(b'{"choices":[],"usage":' + last + b"}") + DONE
    for events in (crossed(stream), passed(stream)):
        assert isinstance(events[-1], Finished)
        assert events[-1].answer.usage == Usage(500, 700, reasoning_tokens=600)


def test_a_count_of_zero_for_an_answer_with_text_is_not_believed() -> None:
    stream = HI + STOP + chunk(usage={"prompt_tokens": 0, "completion_tokens": 0}) + DONE
    for events in (crossed(stream), passed(stream)):
        assert isinstance(events[-1], Finished)
        usage = events[-1].answer.usage
        assert usage == Usage(100, 1, exact=False) and usage.lost


def test_a_count_of_an_earlier_chunk_is_not_the_last_word() -> None:
    stream = chunk({"content": "x"}, usage={"prompt_tokens": 7, "completion_tokens": 1})
    stream += chunk({"content": "y" * 400}) + STOP + DONE
    for events in (crossed(stream), passed(stream)):
        assert isinstance(events[-1], Finished) and events[-1].answer.usage == Usage(7, 101, exact=False)


HALVES = [
    ([r"Hi \ud83d", r"\ude00!"], "Hi \U0001f600!"),
    ([r"\ud83d", "", r"\ude00"], "\U0001f600"),
    ([r"Hi \ud83d", "there"], "Hi \ufffdthere"),
    ([r"\ude00 Hi", r" \ud83d"], "\ufffd Hi \ufffd"),
    ([r"\ud83d\ude00", r"\ud83d\ud83d", r"\ude00"], "\U0001f600\ufffd\U0001f600"),
]


@pytest.mark.parametrize(("pieces", "text"), HALVES)
@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_halves_of_a_character_are_joined_when_crossing_and_relayed_as_they_are(
    pieces: list[str], text: str, field: str
) -> None:
    said = [data(b'{"choices":[{"delta":{"%b":"%b"}}]}' % (field.encode(), piece.encode())) for piece in pieces]
    stream = b"".join(said) + chunk({}, "stop", usage=USAGE) + DONE
    kind = Delta if field == "content" else ThinkingDelta
    events = crossed(stream)
    assert "".join(event.text for event in events if type(event) is kind) == text
    assert isinstance(events[-1], Finished)
    assert relayed(passed(stream)) == stream.removesuffix(DONE)


def test_numbers_that_are_not_json_do_not_end_a_stream() -> None:
    stream = data(b'{"choices":[{"index":0,"delta":{"content":"Hi"},"logprobs":{"content":[{"logprob":-Infinity}]}}]}')
    stream += STOP + data(b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"cost":NaN}}') + DONE
    assert text_of(crossed(stream)) == "Hi"
    events = passed(stream)
    tail = data_of(written(chat.StreamEncoder(ASKING), events))[-2]
    assert tail["usage"]["completion_tokens"] == 2 and tail["usage"]["cost"] is None
