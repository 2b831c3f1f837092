"""Anthropic Messages, the client's side: written answers and streams, read by Anthropic's own SDK."""

from __future__ import annotations

import anthropic
import orjson
import pytest

from llm_service.core import errors
from llm_service.core.content import Text
from llm_service.core.events import IDLE, Answer, Attempt, Delta, Event, Finished, Started
from llm_service.core.usage import Usage
from llm_service.formats import anthropic_messages as messages
from tests.formats.anthropic_messages.wire import messages_call, reply_of
from tests.formats.examples import anthropic_client, data_of, written

ANSWER = Answer(
    Usage(20, 9, cached_tokens=8, cache_write_tokens=4, reasoning_tokens=2),
    stop_reason="end_turn",
    parts=(Text("Hello"),),
    model="gpt-x",
    cost_nanousd=2_500_000,
)


def test_the_sdk_reads_a_written_answer() -> None:
    reply = messages.write_answer(messages_call(), ANSWER)
    message = anthropic_client(orjson.dumps(reply)).messages.create(model="m", max_tokens=5, messages=[])
    assert message.id == f"msg_{messages_call().id}"
    assert message.model == "gpt-x"
    assert [(block.type, block.text) for block in message.content if block.type == "text"] == [("text", "Hello")]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (8, 8, 4)
    assert usage.output_tokens == 9
    assert usage.output_tokens_details is not None
    assert usage.output_tokens_details.thinking_tokens == 2


def test_refusals_and_stop_sequences_are_reported_in_anthropic_fields() -> None:
    refused = messages.write_answer(messages_call(), Answer(Usage(), stop_reason="refusal"))
    assert refused["stop_details"] == {"type": "refusal", "category": None, "explanation": None}
    assert refused["content"] == []
    stopped = messages.write_answer(messages_call(), Answer(Usage(), stop_reason="stop_sequence", stop_sequence="END"))
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "END")
    assert messages.write_answer(messages_call(), Answer(Usage(), stop_reason="other"))["stop_reason"] == "end_turn"


def test_a_verbatim_answer_is_the_object_of_the_vendor() -> None:
    assert messages.write_answer(messages_call(), Answer(Usage(), body=reply_of(), cost_nanousd=5)) == reply_of()


def test_the_sdk_accumulates_a_written_stream() -> None:
    client_call = messages_call(stream=True)
    events: list[Event] = [
        Attempt("a", "m"),
        Started("gpt-x"),
        IDLE,
        Delta("Hel"),
        Delta("lo"),
        Finished(ANSWER),
    ]
    stream = messages.KEEP_ALIVE + written(messages.StreamEncoder(client_call), events)
    with anthropic_client(stream).messages.stream(model="m", max_tokens=5, messages=[]) as helper:
        assert "".join(helper.text_stream) == "Hello"
        message = helper.get_final_message()
    assert message.model == "gpt-x"
    assert message.stop_reason == "end_turn"
    usage = message.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens) == (8, 9, 8)
    kinds = [event["type"] for event in data_of(stream)]
    assert kinds == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert all(f"event: {kind}\n".encode() in stream for kind in kinds)


def test_an_answer_without_text_is_a_stream_without_content_blocks() -> None:
    answer = Answer(Usage(3, 0), stop_reason="refusal")
    stream = written(messages.StreamEncoder(messages_call(stream=True)), [Started("m", Usage(3, 1)), Finished(answer)])
    sent = data_of(stream)
    assert [event["type"] for event in sent] == ["message_start", "message_delta", "message_stop"]
    assert sent[0]["message"]["usage"]["input_tokens"] == 3
    with anthropic_client(stream).messages.stream(model="m", max_tokens=5, messages=[]) as helper:
        message = helper.get_final_message()
    assert (message.content, message.stop_reason) == ([], "refusal")


def test_the_sdk_raises_an_error_for_a_failure_in_a_stream() -> None:
    encoder = messages.StreamEncoder(messages_call(stream=True))
    failure = errors.UpstreamOverloaded("It is overloaded.")
    stream = encoder.feed(Started("m")) + encoder.feed(Delta("x")) + encoder.error(failure, "req-7")
    assert b"message_stop" not in stream
    with (
        pytest.raises(anthropic.APIStatusError, match="overloaded") as caught,
        anthropic_client(stream).messages.stream(model="m", max_tokens=5, messages=[]) as helper,
    ):
        helper.get_final_message()
    assert caught.value.type == "overloaded_error"
    assert data_of(stream)[-1]["request_id"] == "req-7"
