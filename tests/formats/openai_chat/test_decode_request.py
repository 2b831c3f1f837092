"""OpenAI Chat Completions, the client's side. OpenAI's own SDK reads what is written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import openai
import orjson
import pytest

from llm_service.core import errors
from llm_service.core.content import Message, Refusal, Text
from llm_service.core.conversation import Conversation
from llm_service.core.events import IDLE, Answer, Attempt, Delta, Event, Finished, Started
from llm_service.core.usage import Usage
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats import rules
from tests.formats.examples import TURN, call, data_of, openai_client, target, written
from tests.formats.openai_chat.wire import ASKED, USAGE, body, chat_call, reply_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


ANSWER = Answer(
    Usage(20, 9, cached_tokens=8, cache_write_tokens=4, reasoning_tokens=2),
    stop_reason="end_turn",
    parts=(Text("Hello"),),
    model="claude-x",
    cost_nanousd=2_500_000,
)


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"temperature": 2.5}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -5}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": {}}, "stop"),
        ({"stream_options": True}, "stream_options"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"seed": 0.5}, "seed"),
        ({"tools": {}}, "tools"),
        ({"user": 3}, "user"),
        ({"messages": [{"role": "tool"}]}, "messages[0].content"),
    ],
)
def test_a_wrong_field_is_rejected_by_its_name(extra: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        chat.check(body(**extra))
    assert caught.value.param == param


def test_a_request_that_openai_accepts_passes() -> None:
    given = body(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function"}]},
            {"role": "tool", "tool_call_id": "c", "content": "3"},
            {"role": "assistant", "tool_calls": []},
        ],
        stop=None,
        max_tokens=None,
        logit_bias={"5": 1},
        reasoning_effort="high",
    )
    assert chat.check(given) is given


def test_a_conversation_crosses_with_its_system_prompt_and_parameters() -> None:
    given = body(
        messages=[
            {"role": "system", "content": "one"},
            {"role": "developer", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "three"}]},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "refusal": None, "annotations": [], "tool_calls": None},
            {"role": "assistant", "content": None, "refusal": "no"},
            {"role": "developer", "content": "later"},
            {"role": "user", "content": "d"},
        ],
        max_tokens=5,
        max_completion_tokens=6,
        temperature=1.5,
        top_p=0.9,
        stop="END",
        user="old",
        safety_identifier="new",
        n=1,
        logprobs=False,
        tools=[],
        response_format={"type": "text"},
        frequency_penalty=0,
        store=False,
        service_tier="auto",
        seed=None,
    )
    assert chat.read_request(chat.check(given)) == Conversation(
        messages=(
            Message("user", (Text("a"), Text("b"))),
            Message("assistant", (Text("c"),)),
            Message("assistant", (Refusal("no"),)),
            Message("system", (Text("later"),)),
            Message("user", (Text("d"),)),
        ),
        system=(Text("one"), Text("two"), Text("three")),
        max_tokens=6,
        temperature=1.5,
        top_p=0.9,
        stop=("END",),
        user="new",
        tier="auto",
        dropped=("user",),
    )


@pytest.mark.parametrize("kind", ["text", "image_url", "file"])
def test_a_part_takes_anthropic_s_hint_to_cache(kind: str) -> None:
    held: dict[str, Any] = {
        "text": "a",
        "image_url": {"url": "https://a.example/b.png"},
        "file": {"file_data": "data:application/pdf;base64,JVBERi0="},
    }
    part = {"type": kind, kind: held[kind], "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    written, dropped = asked_of_claude(messages=[{"role": "user", "content": [part]}])
    assert written["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert dropped == ()


UNKNOWN_TIMES: list[Any] = ["24h", "", 3600, True, [], {}]
UNKNOWN_HINTS: list[Any] = [
    *({}, [], "", "x", 0, True, {"type": "persistent"}, {"type": ["ephemeral"]}, {"ttl": "5m"}),
    *({"type": "ephemeral", "ttl": ttl} for ttl in UNKNOWN_TIMES),
    {"type": "ephemeral", "scope": "global"},
]


def named(**extra: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What Anthropic is sent for a chat request with ``extra``, and the names that the reader and the target drop."""
    written, dropped = asked_of_claude(**extra)
    return written, (*chat.read_request(chat.check(body(**extra))).dropped, *dropped)


@pytest.mark.parametrize("hint", UNKNOWN_HINTS, ids=repr)
@pytest.mark.parametrize("name", ["cache_control", "prompt_cache_breakpoint"])
def test_a_hint_to_cache_that_is_not_known_is_dropped_as_a_whole_and_named(name: str, hint: Any) -> None:
    part = {"type": "text", "text": "a", name: hint}
    tool: Any = {"type": "function", "function": {"name": "clock", name: hint}, name: hint}
    plain, _ = named(messages=TURN, tools=[{"type": "function", "function": {"name": "clock"}}])
    for turn in ({"role": "user", "content": [part]}, {"role": "user", "content": "a", name: hint}):
        written, dropped = named(messages=[turn], tools=[tool])
        assert "cache_control" not in str(written)
        assert written["tools"] == plain["tools"]
        assert name in dropped


def test_an_unknown_hint_to_cache_the_whole_prompt_is_dropped_and_named() -> None:
    for hint in UNKNOWN_HINTS:
        written, dropped = named(cache_control=hint)
        assert "cache_control" not in written
        assert dropped == ("cache_control",)


@pytest.mark.parametrize("note", [*rules.NOTES])
def test_what_a_client_notes_on_a_turn_is_dropped_and_named(note: str) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    part = {"type": "text", "text": "a", **({} if note == "type" else {note: "x"})}
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": [part]},
        {"role": "user", "content": [part]},
        {"role": "assistant", "content": [part], "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": [part]},
        {"role": "assistant", "content": None, "function_call": {"name": "clock", "arguments": "{}"}},
        {"role": "function", "name": "clock", "content": "a"},
        {"role": "user", "content": "a"},
    ]
    bare = [
        turn if isinstance(turn["content"], str | None) else {**turn, "content": [{"type": "text", "text": "a"}]}
        for turn in turns
    ]
    read = chat.read_request(chat.check(body(messages=[{**turn, note: "x"} for turn in turns])))
    plain = chat.read_request(chat.check(body(messages=bare)))
    assert (read.system, read.messages) == (plain.system, plain.messages)
    assert read.dropped == (f"messages[].{note}", *([] if note == "type" else [f"messages[].content[].{note}"]))


@pytest.mark.parametrize("turn", [{"role": "user", "content": "a"}, {"role": "system", "content": "a"}])
def test_a_member_that_is_no_note_is_rejected_outside_of_an_answer(turn: dict[str, Any]) -> None:
    for name in ("is_error", "tool_calls_of", "weight"):
        with pytest.raises(errors.UnsupportedParameter) as caught:
            named(messages=[{**turn, name: "x"}, *TURN])
        assert caught.value.param == f"messages[0].{name}"


def asked_of_claude(**extra: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What Anthropic is sent for a chat request with ``extra``, and the names of the dropped fields."""
    asked = call("chat", body(**extra))
    return messages.write_request(asked, chat.read_request(chat.check(asked.body)), target("anthropic", max_output=100))


def test_hints_that_claude_does_not_have_are_dropped_by_name() -> None:
    said = [{"role": "user", "name": "Ann", "content": [{"type": "text", "text": "x"}]}]
    dropped = chat.read_request(chat.check(body(messages=said))).dropped
    assert dropped == ("messages[].name",)
    _, hints = asked_of_claude(
        metadata={"a": "b"},
        seed=3,
        store=True,
        verbosity="low",
        prompt_cache_key="k",
    )
    assert hints == ("metadata", "seed", "store", "verbosity", "prompt_cache_key")


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [3]}, "tools[0]"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tools[0]"),
        ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tools[0]"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {}}, "audio"),
        ({"reasoning_effort": "lots"}, "reasoning_effort"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"brand_new": 1}, "brand_new"),
        ({"brand new ünd long": 1}, "(unnamed)"),
        ({"messages": [*TURN, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
        ({"messages": [*TURN, {"role": "assistant", "tool_calls": [{}]}]}, "messages[1].tool_calls[0].function"),
        ({"messages": [*TURN, {"role": "assistant", "audio": {"id": "audio_1"}}, *TURN]}, "messages[1].audio"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": "x", "novel": 1}]}, "messages[0].novel"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "input_audio"}]}]},
            "messages[0].content[1]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "novel": 1}]}]},
            "messages[0].content[0].novel",
        ),
    ],
)
def test_what_cannot_be_translated_is_rejected_by_its_path(extra: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        asked_of_claude(**extra)
    assert caught.value.param == param
    assert param in caught.value.message


def test_the_sdk_reads_our_reply() -> None:
    reply = chat.write_answer(chat_call(), ANSWER)
    completion = openai_client(orjson.dumps(reply)).chat.completions.create(model="m", messages=[])
    assert completion.id == f"chatcmpl-{chat_call().id}"
    assert completion.created == 1_700_000_000
    assert completion.model == "claude-x"
    assert completion.choices[0].message.content == "Hello"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 29
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == 8
    assert completion.usage.completion_tokens_details is not None
    assert completion.usage.completion_tokens_details.reasoning_tokens == 2
    assert completion.usage.model_extra == {"cost_usd": 0.0025}
    message = reply["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Hello", "refusal": None, "annotations": []}


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("other", "stop"),
        (None, "stop"),
    ],
)
def test_stop_reasons_become_finish_reasons_of_openai(stop_reason: Any, finish_reason: str) -> None:
    reply = chat.write_answer(chat_call(), Answer(Usage(), stop_reason=stop_reason))
    assert reply["choices"][0]["finish_reason"] == finish_reason


def test_only_the_cost_is_added_to_a_verbatim_reply() -> None:
    given = reply_of(novel=[1])
    answer = Answer(Usage(7, 2), body=given, cost_nanousd=None)
    assert chat.write_answer(chat_call(), answer) == {**given, "usage": {**USAGE, "cost_usd": None}}
    assert "cost_usd" not in given["usage"]
    unusual = reply_of(usage=None)
    assert chat.write_answer(chat_call(), Answer(Usage(), body=unusual)) == unusual


def test_the_sdk_s_accumulator_reads_our_stream() -> None:
    asked = chat_call(stream=True, **ASKED)
    events: list[Event] = [
        Attempt("a", "m"),
        IDLE,
        Started("claude-x"),
        Delta("Hel"),
        IDLE,
        Delta("lo"),
        Finished(ANSWER),
    ]
    stream = chat.KEEP_ALIVE + written(chat.StreamEncoder(asked), events)
    with openai_client(stream).chat.completions.stream(model="m", messages=[], **ASKED) as helper:
        for _ in helper:
            pass
        final = helper.get_final_completion()
    assert final.choices[0].message.content == "Hello"
    assert final.choices[0].message.role == "assistant"
    assert final.choices[0].finish_reason == "stop"
    assert final.model == "claude-x"
    assert final.usage is not None
    assert (final.usage.prompt_tokens, final.usage.completion_tokens) == (20, 9)
    chunks = data_of(stream)
    assert chunks[-1] == "[DONE]"
    assert chunks[-2]["choices"] == []
    assert chunks[-2]["usage"]["cost_usd"] == 0.0025
    assert all(chunk["usage"] is None for chunk in chunks[:-2])
    assert {(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks[:-1]} == {
        (f"chatcmpl-{asked.id}", 1_700_000_000, "chat.completion.chunk")
    }


def test_a_stream_without_include_usage_has_no_usage() -> None:
    stream = written(chat.StreamEncoder(chat_call(stream=True)), [Started("m"), Delta("x"), Finished(ANSWER)])
    assert b"usage" not in stream
    assert data_of(stream)[-1] == "[DONE]"


def test_estimated_usage_is_marked_as_not_exact() -> None:
    usage = chat.write_answer(chat_call(), Answer(Usage(1, 2, exact=False)))["usage"]
    assert usage["exact"] is False
    assert usage["cost_usd"] is None


def test_the_sdk_raises_for_a_failure_in_a_stream() -> None:
    frames = chat.StreamEncoder(chat_call(stream=True))
    stream = frames.feed(Started("m")) + frames.feed(Delta("x")) + frames.error(errors.UpstreamBroken("It broke."))
    assert b"[DONE]" not in stream
    with pytest.raises(openai.APIError, match="It broke") as failure:
        for _ in openai_client(stream).chat.completions.create(model="m", messages=[], stream=True):
            pass
    assert failure.value.body == {
        "message": "It broke.",
        "type": "server_error",
        "param": None,
        "code": "upstream_broken",
    }


_UNSUPPORTED, _QUOTA, _UNAVAILABLE = "unsupported_parameter", "insufficient_quota", "service_unavailable_error"


@pytest.mark.parametrize(
    ("failure", "status", "kind", "code", "raised"),
    [
        (errors.InvalidRequest("x", param="n"), 400, "invalid_request_error", None, openai.BadRequestError),
        (errors.UnsupportedParameter("x"), 400, "invalid_request_error", _UNSUPPORTED, openai.BadRequestError),
        (errors.Unauthenticated("x"), 401, "invalid_request_error", "invalid_api_key", openai.AuthenticationError),
        (errors.Forbidden("x"), 403, "invalid_request_error", "forbidden", openai.PermissionDeniedError),
        (errors.ModelNotFound("x"), 404, "invalid_request_error", "model_not_found", openai.NotFoundError),
        (errors.MethodNotAllowed("x"), 405, "invalid_request_error", "method_not_allowed", openai.APIStatusError),
        (errors.PayloadTooLarge("x"), 413, "invalid_request_error", "request_too_large", openai.APIStatusError),
        (errors.RateLimited("x"), 429, "requests", "rate_limit_exceeded", openai.RateLimitError),
        (errors.Rejected("x", status=402, code="budget"), 429, _QUOTA, _QUOTA, openai.RateLimitError),
        (errors.Unavailable("x"), 503, "server_error", "unavailable", openai.InternalServerError),
        (errors.UpstreamRejected("x"), 400, "invalid_request_error", None, openai.BadRequestError),
        (errors.UpstreamRateLimited("x"), 429, "rate_limit_error", "rate_limit_exceeded", openai.RateLimitError),
        (errors.UpstreamQuotaExhausted("x"), 429, _QUOTA, _QUOTA, openai.RateLimitError),
        (errors.UpstreamOverloaded("x"), 503, _UNAVAILABLE, "server_is_overloaded", openai.InternalServerError),
        (errors.UpstreamTimeout("x"), 504, "server_error", "upstream_timeout", openai.InternalServerError),
        (errors.InternalError("x"), 500, "server_error", "internal_error", openai.InternalServerError),
    ],
)  # fmt: skip
def test_the_sdk_raises_its_own_class_for_each_failure(
    failure: errors.ServiceError, status: int, kind: str, code: str | None, raised: type[openai.APIStatusError]
) -> None:
    reported = chat.error(failure, "req-1")
    assert reported == {"error": {"message": "x", "type": kind, "param": failure.param, "code": code}}
    assert chat.status(failure) == status
    client = openai_client(orjson.dumps(reported), status, chat.error_headers(failure, NOW))
    with pytest.raises(raised) as caught:
        client.chat.completions.create(model="m", messages=[])
    assert caught.value.code == code


def test_only_errors_of_openai_keep_their_type_and_code() -> None:
    vendor = {"format": "chat", "status": 400, "type": "invalid_request_error", "code": "context_length_exceeded"}
    reported = chat.error(errors.UpstreamRejected("x", vendor=vendor), "r")["error"]
    assert reported["code"] == "context_length_exceeded"
    foreign = {**vendor, "format": "messages"}
    assert chat.error(errors.UpstreamRejected("x", vendor=foreign), "r")["error"]["code"] is None
    ours = errors.UpstreamRejected("x", vendor={**vendor, "code": "invalid_api_key"}, code="upstream_authentication")
    assert chat.error(ours, "r")["error"]["code"] == "upstream_authentication"


@pytest.mark.parametrize(
    ("seconds", "duration"), [(0, "0s"), (59, "59s"), (60, "1m0s"), (360, "6m0s"), (3661, "1h1m1s")]
)
def test_rate_limit_headers_have_the_form_of_openai(seconds: int, duration: str) -> None:
    limit = errors.Limit("requests", "key", 60, 60, 0, seconds)
    assert chat.error_headers(errors.RateLimited("x", limit=limit), NOW) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": duration,
    }


def test_a_header_tells_the_sdk_not_to_retry_what_was_retried_here() -> None:
    assert chat.error_headers(errors.UpstreamFailed("x"), NOW) == {"x-should-retry": "false"}
    assert chat.error_headers(errors.Unavailable("x"), NOW) == {}


def test_the_prompt_of_a_body_is_its_messages() -> None:
    assert chat.prompt(body()) == [TURN]


def test_idle_and_attempt_events_send_nothing() -> None:
    frames = chat.StreamEncoder(chat_call())
    assert frames.feed(IDLE) == b""
    assert frames.feed(Attempt("a", "m")) == b""
