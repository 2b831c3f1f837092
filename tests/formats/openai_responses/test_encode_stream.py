"""OpenAI Responses, the client's side: OpenAI's SDK reads the answers and streams that are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response

from llm_service.core import errors
from llm_service.core.content import Part, RedactedThinking, Refusal, Text, Thinking, ToolCall
from llm_service.core.events import (
    IDLE,
    Answer,
    Attempt,
    Delta,
    Event,
    Finished,
    RefusalDelta,
    Relay,
    Started,
    ThinkingDelta,
    ThinkingEnd,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from llm_service.core.usage import Usage
from llm_service.formats import openai_responses as responses
from tests.formats.examples import USAGES, data_of, openai_client, written
from tests.formats.openai_responses.wire import responses_call

TOOLS = [{"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}]
CALL = responses_call(stream=True, tools=TOOLS, instructions="Be brief.", metadata={"a": "b"})
USAGE = Usage(9, 4, 3, 2, reasoning_tokens=1)

# The parts of answers, and the events of the same content.
CONTENT: list[tuple[Part, list[Event]]] = [
    (
        Thinking("Hm, so", "sig", "messages"),
        [ThinkingDelta("Hm"), ThinkingDelta(", so"), ThinkingEnd("sig", "messages")],
    ),
    (Thinking("aloud"), [ThinkingDelta("aloud"), ThinkingEnd()]),
    (RedactedThinking("secret", "messages"), [RedactedThinking("secret", "messages")]),
    (Text("Hello"), [Delta("Hel"), Delta(""), Delta("lo")]),
    (
        ToolCall("toolu_1", "look", '{"q": 1}'),
        [ToolCallStart(0, "toolu_1", "look"), ToolCallDelta(0, '{"q": '), ToolCallDelta(0, "1}"), ToolCallEnd(0)],
    ),
    (ToolCall("toolu_2", "look", "{}"), [ToolCallStart(1, "toolu_2", "look"), ToolCallDelta(1, ""), ToolCallEnd(1)]),
    (Refusal("I will not"), [RefusalDelta("I will "), RefusalDelta("not")]),
]


def stream_of(made: Sequence[tuple[Part, list[Event]]], stop: Any = "end_turn") -> bytes:
    ending = Finished(Answer(usage=USAGE, stop_reason=stop, model="claude"))
    started: list[Event] = [Attempt("p", "m"), Started(model="claude"), IDLE]
    return written(
        responses.StreamEncoder(CALL), [*started, *(event for _, events in made for event in events), ending]
    )


def read_by_the_sdk(stream: bytes) -> Any:
    with openai_client(stream).responses.stream(model="m", input="x", tools=TOOLS) as helper:  # type: ignore[arg-type]
        return helper.get_final_response()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(CONTENT), max_size=6, unique_by=id))
def test_a_stream_and_a_plain_answer_of_the_same_parts_are_the_same(made: list[tuple[Part, list[Event]]]) -> None:
    stream = stream_of(made)
    answer = Answer(usage=USAGE, stop_reason="end_turn", parts=tuple(part for part, _ in made), model="claude")
    plain = responses.write_answer(CALL, answer)
    assert data_of(stream)[-1]["response"] == plain
    assert read_by_the_sdk(stream).output_text == Response.model_validate(plain).output_text
    assert Response.model_validate(plain).output_text == "".join(part.text for part, _ in made if type(part) is Text)


def test_every_event_has_the_next_number_and_its_own_name() -> None:
    stream = stream_of(CONTENT, "tool_use")
    events = data_of(stream)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    names = [line.removeprefix(b"event: ").decode() for line in stream.split(b"\n") if line.startswith(b"event: ")]
    assert names == [event["type"] for event in events]
    assert names[:2] == ["response.created", "response.in_progress"]
    assert names[-1] == "response.completed"
    assert events[0]["response"]["usage"] is None
    assert events[0]["response"]["output"] == []
    assert events[0]["response"]["instructions"] == "Be brief."
    assert events[0]["response"]["tools"] == TOOLS


def test_every_item_has_all_its_events() -> None:
    kinds = [
        event["type"].removeprefix("response.") for event in data_of(stream_of([CONTENT[0], CONTENT[3], CONTENT[4]]))
    ]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]


def test_text_and_a_refusal_are_two_parts_of_one_message() -> None:
    final = read_by_the_sdk(stream_of([CONTENT[3], CONTENT[6]], "refusal"))
    assert [part.type for part in final.output[0].content] == ["output_text", "refusal"]
    assert final.status == "completed"


@pytest.mark.parametrize(
    ("stop", "status", "reason"),
    [
        ("end_turn", "completed", None),
        ("stop_sequence", "completed", None),
        ("tool_use", "completed", None),
        ("other", "completed", None),
        (None, "completed", None),
        ("max_tokens", "incomplete", "max_output_tokens"),
        ("refusal", "incomplete", "content_filter"),
    ],
)
def test_a_stop_reason_becomes_a_status(stop: Any, status: str, reason: str | None) -> None:
    last = data_of(stream_of([CONTENT[3]], stop))[-1]
    answer = Answer(usage=USAGE, stop_reason=stop, parts=(Text("Hello"),), model="claude")
    plain = responses.write_answer(CALL, answer)
    assert last["type"] == f"response.{status}"
    assert last["response"] == plain
    assert plain["status"] == plain["output"][-1]["status"] == status
    assert (plain["incomplete_details"] or {}).get("reason") == reason


def test_a_tool_without_arguments_gets_an_empty_object() -> None:
    final = read_by_the_sdk(stream_of([CONTENT[5]]))
    assert final.output[0].arguments == "{}"


def test_a_tool_call_keeps_the_id_of_its_vendor() -> None:
    final = read_by_the_sdk(stream_of([CONTENT[4]]))
    assert (final.output[0].call_id, final.output[0].name) == ("toolu_1", "look")
    assert final.output[0].parsed_arguments == {"q": 1} or final.output[0].arguments == '{"q": 1}'


@given(USAGES)
def test_usage_is_written_in_openai_s_fields(usage: Usage) -> None:
    reply = responses.write_answer(CALL, Answer(usage=usage, cost_nanousd=1_500_000_000))
    written_usage = reply["usage"]
    assert written_usage["total_tokens"] == usage.input_tokens + usage.output_tokens
    assert written_usage["input_tokens_details"] == {
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }
    assert written_usage["output_tokens_details"] == {"reasoning_tokens": usage.reasoning_tokens}
    assert written_usage["cost_usd"] == 1.5
    assert "exact" not in written_usage
    assert responses.write_answer(CALL, Answer(usage=Usage(exact=False)))["usage"]["exact"] is False


def test_a_failure_ends_the_stream_as_an_error_that_the_sdk_raises() -> None:
    encoder = responses.StreamEncoder(CALL)
    stream = written(encoder, [Started(model="claude"), Delta("Hi")])
    stream += encoder.error(errors.UpstreamOverloaded("The provider is overloaded."), "req-1")
    error, failed = data_of(stream)[-2:]
    assert (error["type"], failed["type"]) == ("error", "response.failed")
    assert error["code"] == error["error"]["code"] == "server_is_overloaded"
    assert error["message"] == "The provider is overloaded."
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": error["code"], "message": error["message"]}
    assert failed["response"]["output"] == []  # neither the answer nor the request: clients write errors to their logs
    assert not any(text in str(failed) for text in ("Be brief.", "Hi"))
    assert failed["sequence_number"] == len(data_of(stream)) - 1
    with pytest.raises(openai.APIError, match="overloaded"):
        list(openai_client(stream).responses.create(model="m", input="x", stream=True))
    with pytest.raises(openai.APIError, match="overloaded"):
        read_by_the_sdk(stream)


def test_a_failure_after_relayed_frames_has_a_later_number() -> None:
    encoder = responses.StreamEncoder(CALL)
    written(encoder, [Started(verbatim=True), Relay(b"event: a\ndata: {}\n\nevent: b\ndata: {}\n\n")])
    numbers = [event["sequence_number"] for event in data_of(encoder.error(errors.UpstreamBroken("Broken.")))]
    assert numbers == [2, 3]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (errors.UpstreamRejected("No."), "invalid_prompt"),
        (errors.UpstreamRateLimited("Slow."), "rate_limit_exceeded"),
        (errors.UpstreamQuotaExhausted("Broke."), "insufficient_quota"),
        (errors.BudgetExceeded("Broke."), "insufficient_quota"),
        (errors.UpstreamOverloaded("Busy."), "server_is_overloaded"),
    ],
)
def test_a_failed_response_has_a_code_that_codex_knows(failure: errors.ServiceError, code: str) -> None:
    failed = data_of(responses.StreamEncoder(CALL).error(failure))[-1]["response"]
    assert failed["error"] == {"code": code, "message": failure.message}


def test_openai_s_own_error_type_is_kept_unless_it_is_about_the_service_s_key() -> None:
    vendor = {"format": "responses", "status": 400, "type": "image_parse_error", "code": "bad_image"}
    error = responses.error(errors.UpstreamRejected("No.", vendor=vendor), "r")["error"]
    assert (error["type"], error["code"]) == ("image_parse_error", "bad_image")
    ours = errors.UpstreamRejected("No.", code="upstream_authentication", status=401, vendor=vendor)
    assert responses.error(ours, "r")["error"]["type"] == "invalid_request_error"
    assert responses.status(errors.BudgetExceeded("No.")) == 429


@pytest.mark.parametrize(
    ("field", "given", "echoed"),
    [
        ("text", {"verbosity": "low"}, {"format": {"type": "text"}, "verbosity": "low"}),
        ("text", {"format": None}, {"format": {"type": "text"}}),
        ("text", {"format": {"type": "json_object"}}, {"format": {"type": "json_object"}}),
        ("text", None, {"format": {"type": "text"}}),
        ("reasoning", {"effort": "low"}, {"effort": "low", "summary": None}),
        ("reasoning", {"summary": "auto"}, {"effort": None, "summary": "auto"}),
        ("metadata", {"a": "b"}, {"a": "b"}),
        ("truncation", "auto", "auto"),
    ],
)
def test_a_response_repeats_the_request_s_settings_with_all_their_members(field: str, given: Any, echoed: Any) -> None:
    asked = responses_call(stream=True, **{field: given})
    assert responses.write_answer(asked, Answer(usage=USAGE))[field] == echoed
    created = data_of(written(responses.StreamEncoder(asked), [Started(model="claude")]))[0]
    assert created["response"][field] == echoed
