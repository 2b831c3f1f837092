"""OpenAI Chat Completions, the upstream's streams: recorded, hostile and cut ones."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core import errors
from llm_service.core.events import Answer, Delta, Event, Finished, RefusalDelta, Relay, Started
from llm_service.core.usage import Usage
from llm_service.formats import openai_chat as chat
from tests.formats.examples import USAGES, data_of, fixture, fixture_names, openai_client, read, relayed, written
from tests.formats.openai_chat.wire import ASKED, DONE, USAGE, chat_call, chunk

STREAMS = fixture_names("openai/chat_stream")


TEXT_STREAMS = [name for name in STREAMS if "tool" not in name and "n3" not in name]


@pytest.mark.parametrize("name", TEXT_STREAMS)
def test_a_recorded_stream_split_at_every_byte_has_the_same_events(name: str) -> None:
    stream = fixture(name)
    whole = read(chat.StreamDecoder(chat_call()), stream)
    assert isinstance(whole[0], Started)
    assert isinstance(whole[-1], Finished)
    assert read(chat.StreamDecoder(chat_call()), *(bytes([byte]) for byte in stream)) == whole
    with openai_client(stream).chat.completions.stream(model="m", messages=[]) as helper:
        for _ in helper:
            pass
        final = helper.current_completion_snapshot
    text = "".join(event.text for event in whole if isinstance(event, Delta | RefusalDelta))
    message = final.choices[0].message
    assert text == (message.content or message.refusal)
    answer = whole[-1].answer
    assert final.usage is not None
    assert answer.usage == Usage(final.usage.prompt_tokens, final.usage.completion_tokens)
    assert answer.model == final.model
    assert answer.stop_reason == {"length": "max_tokens"}.get(
        final.choices[0].finish_reason, "refusal" if message.refusal else "end_turn"
    )


@pytest.mark.parametrize(
    "stream",
    [
        DONE,
        chunk({"content": "x"}) + DONE,
        chunk({"content": "x"}, "stop") + chunk({"content": "y"}) + DONE,
        chunk({"content": 3}, "stop") + DONE,
        chunk({"content": "x"}, 3) + DONE,  # type: ignore[arg-type]
        chunk({"tool_calls": [{"index": 0}]}) + DONE,
        b"data: {\n\n",
        b"data: [1]\n\n",
        b"data: {}\n\n" + DONE,
        b'data: {"choices":[3]}\n\n',
        b'data: {"choices":[{"delta":3}]}\n\n',
        b'data: {"choices":[{"index":1,"delta":{}}]}\n\n',
        b'data: {"choices":{}}\n\n',
    ],
)
def test_a_stream_in_another_format_is_malformed(stream: bytes) -> None:
    with pytest.raises(errors.UpstreamBroken):
        read(chat.StreamDecoder(chat_call()), stream)


def test_a_stream_that_ends_early_is_not_finished() -> None:
    reader = chat.StreamDecoder(chat_call())
    events = read(reader, chunk({"content": "x"}) + chunk({}, "stop"))
    assert not reader.finished
    assert not any(isinstance(event, Finished) for event in events)


def test_what_follows_the_end_marker_is_ignored() -> None:
    stream = chunk({"content": "x"}, "stop") + DONE
    reader = chat.StreamDecoder(chat_call())
    assert read(reader, stream + b"data: junk\n\n", b"data: junk\n\n") == read(chat.StreamDecoder(chat_call()), stream)
    assert reader.finished
    tap = chat.Passthrough(chat_call())
    assert read(tap, stream + b"data: junk\n\n", b"data: junk\n\n") == read(chat.Passthrough(chat_call()), stream)


def test_comments_of_the_upstream_become_idle_events() -> None:
    stream = b": hi\n\n" + chunk({"content": "x"}) + b": still here\n\n" + chunk({}, "stop") + DONE
    events = read(chat.StreamDecoder(chat_call()), stream)
    assert [type(event).__name__ for event in events] == ["Started", "Delta", "Idle", "Finished"]


def test_usage_is_estimated_when_the_server_sends_none() -> None:
    stream = chunk({"content": "12345"}) + chunk({"reasoning_content": "1234"}) + chunk({}, "stop") + DONE
    for reader in (chat.StreamDecoder(chat_call()), chat.Passthrough(chat_call())):
        finished = read(reader, stream)[-1]
        assert isinstance(finished, Finished)
        assert finished.answer.usage == Usage(100, 3, exact=False)


def test_usage_in_the_finish_chunk_counts() -> None:
    stream = chunk({"content": "12345"}) + chunk({}, "stop", usage=USAGE) + DONE
    finished = read(chat.StreamDecoder(chat_call()), stream)[-1]
    assert isinstance(finished, Finished)
    assert finished.answer.usage == Usage(7, 2)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "server_error", "code": "server_error", "message": "secret"}, errors.UpstreamFailed),
        ({"type": "requests", "code": "rate_limit_exceeded"}, errors.UpstreamRateLimited),
        ({"type": "insufficient_quota", "code": "insufficient_quota"}, errors.UpstreamQuotaExhausted),
        ({"type": "service_unavailable_error", "code": "slow_down"}, errors.UpstreamOverloaded),
        ({"type": "invalid_request_error", "code": "context_length_exceeded"}, errors.UpstreamRejected),
        ({"type": "an essay about secrets", "code": 503}, errors.UpstreamOverloaded),
        ("secret", errors.UpstreamFailed),
    ],
)
def test_an_error_in_the_stream_is_raised_after_what_came_before_it(error: Any, kind: type[Exception]) -> None:
    stream = chunk({"content": "x"}) + b"data: " + orjson.dumps({"error": error}) + b"\n\n"
    for reader in (chat.StreamDecoder(chat_call()), chat.Passthrough(chat_call())):
        events = []
        with pytest.raises(kind) as failure:
            for event in reader.feed_many([block + b"\n\n" for block in stream.split(b"\n\n")[:-1]]):
                events.append(event)
        assert len(events) == 2
        assert b"error" not in relayed(events)
        reported = failure.value
        assert isinstance(reported, errors.UpstreamError)
        assert "secret" not in f"{reported.message}{reported.vendor}"
        assert reported.vendor["format"] == "chat"


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_is_relayed_byte_for_byte_except_for_its_usage(name: str) -> None:
    stream = fixture(name)
    asked = chat_call(stream=True, **ASKED)
    events = read(chat.Passthrough(asked), stream)
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    sent = written(chat.StreamEncoder(asked), events)
    assert sent.split(b"\n\n")[:-3] == stream.split(b"\n\n")[:-3]
    received, expected = data_of(sent), data_of(stream)
    assert received[-2]["usage"].pop("cost_usd", "missing") is None
    assert received == expected
    assert sum(event.characters for event in events if isinstance(event, Relay)) > 0


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_split_at_every_byte_is_relayed_the_same(name: str) -> None:
    stream = fixture(name)
    whole = read(chat.Passthrough(chat_call()), stream)
    pieces = read(chat.Passthrough(chat_call()), *(bytes([byte]) for byte in stream))
    assert relayed(pieces) == relayed(whole)
    assert pieces[-1] == whole[-1]
    assert pieces[0] == whole[0]
    counts = [sum(event.characters for event in events if isinstance(event, Relay)) for events in (pieces, whole)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("space", ["", " "])
def test_a_client_that_did_not_ask_for_usage_sees_none(space: str) -> None:
    def spaced(data: bytes) -> bytes:
        return data.replace(b',"usage":null', f',{space}"usage":{space}null'.encode())

    stream = (
        spaced(chunk({"role": "assistant", "content": '"usage":null ,"usage":null'}, usage=None))
        + spaced(chunk({}, "stop", usage=None))
        + chunk(usage=USAGE)
        + DONE
    )
    asked = chat_call(stream=True)
    events = read(chat.Passthrough(asked), stream)
    received = data_of(written(chat.StreamEncoder(asked), events))
    assert received[0]["choices"][0]["delta"]["content"] == '"usage":null ,"usage":null'
    assert len(received) == 3
    assert all("usage" not in chunk for chunk in received[:2])
    assert isinstance(events[-1], Finished)
    assert events[-1].answer.usage == Usage(7, 2)


def test_the_usage_chunk_is_priced_where_the_vendor_put_it() -> None:
    asked = chat_call(stream=True, **ASKED)
    stream = chunk({"content": "x"}, "stop", usage=None) + chunk(usage={**USAGE, "novel": 1}) + DONE
    events = read(chat.Passthrough(asked), stream)
    finished = events[-1]
    assert isinstance(finished, Finished)
    priced = Finished(Answer(finished.answer.usage, cost_nanousd=3_000), finished.tail)
    received = data_of(written(chat.StreamEncoder(asked), [*events[:-1], priced]))
    assert received[1]["usage"] == {**USAGE, "novel": 1, "cost_usd": 3e-6}
    assert received[2] == "[DONE]"


def test_a_client_that_asked_gets_usage_even_if_the_server_sends_none() -> None:
    asked = chat_call(stream=True, **ASKED)
    events = read(chat.Passthrough(asked), chunk({"content": "12345"}, "stop") + DONE)
    received = data_of(written(chat.StreamEncoder(asked), events))
    assert received[1]["choices"] == []
    assert received[1]["id"] == "c"
    assert (received[1]["usage"]["prompt_tokens"], received[1]["usage"]["completion_tokens"]) == (100, 2)
    assert received[1]["usage"]["exact"] is False


def test_events_without_data_are_relayed_as_comments() -> None:
    stream = chunk({"content": "x"}, "stop") + b"event: ping\n\nid: 3\n\n: hi\n\n" + DONE
    assert relayed(read(chat.Passthrough(chat_call()), stream)) == chunk({"content": "x"}, "stop") + chat.KEEP_ALIVE * 3


@pytest.mark.parametrize(
    "stream",
    [DONE, chunk({"content": "x"}) + DONE, b"data: {\n\n", b'data: {"choices":[{"delta":[]}]}\n\n', b"data: 3\n\n"],
)
def test_a_relayed_stream_in_another_format_is_malformed(stream: bytes) -> None:
    with pytest.raises(errors.UpstreamBroken):
        read(chat.Passthrough(chat_call()), stream)


@settings(deadline=None)  # the machine may be slow
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5), USAGES)
def test_a_stream_that_was_written_is_read_back_the_same(texts: list[str], usage: Usage) -> None:
    asked = chat_call(stream=True, **ASKED)
    answer = Answer(usage, stop_reason="max_tokens", model="m")
    events: list[Event] = [Started("m"), *map(Delta, texts), Finished(answer)]
    stream = written(chat.StreamEncoder(asked), events)
    assert read(chat.StreamDecoder(asked), stream) == events


@settings(deadline=None)  # the machine may be slow
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('ab"\\\n')), max_size=12))
def test_every_relayed_character_before_an_error_is_counted(texts: list[str]) -> None:
    tap, events = chat.Passthrough(chat_call()), list[Event]()
    said = [chunk({"content": text}) for text in texts]
    with pytest.raises(errors.UpstreamFailed):
        for event in tap.feed_many([chunk({"role": "assistant"}), *said, b'data: {"error": {"message": "x"}}\n\n']):
            events.append(event)
    # Until the first text nothing is relayed, so that another target can still be asked.
    assert relayed(events) == (b"".join([chunk({"role": "assistant"}), *said]) if any(texts) else b"")
    assert sum(event.characters for event in events if isinstance(event, Relay)) == len("".join(texts))
