"""Anthropic Messages, the client's side, and Anthropic's own SDK reading what we write."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import anthropic
import orjson
import pytest

from llm_service.core import errors
from llm_service.core.content import Message, Reasoning, Text, Thinking, ToolChoice
from llm_service.core.conversation import Conversation
from llm_service.core.events import IDLE, Answer, Attempt, Delta, Event, Finished, Started
from llm_service.core.usage import Usage
from llm_service.formats import anthropic_messages as messages
from tests.formats.anthropic_messages.wire import body, messages_call, reply_of
from tests.formats.examples import TURN, anthropic_client, data_of, written

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


ANSWER = Answer(
    Usage(20, 9, cached_tokens=8, cache_write_tokens=4, reasoning_tokens=2),
    stop_reason="end_turn",
    parts=(Text("Hello"),),
    model="gpt-x",
    cost_nanousd=2_500_000,
)


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": 1.1}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"system": 3}, "system"),
        ({"system": [{"text": "x"}]}, "system[0].type"),
        ({"system": ["x"]}, "system[0]"),
        ({"metadata": "x"}, "metadata"),
        ({"thinking": True}, "thinking"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "system", "content": "x"}, *TURN]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [*TURN, {"role": "assistant"}]}, "messages[1].content"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(extra: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as refusal:
        messages.check(body(**extra))
    assert refusal.value.param == param


def test_max_tokens_is_required() -> None:
    with pytest.raises(errors.InvalidRequest, match=r"^max_tokens is required\.$"):
        messages.check({"model": "m", "messages": TURN})


def test_what_anthropic_takes_passes() -> None:
    asked = body(
        max_tokens=0,
        messages=[
            *TURN,
            {"role": "system", "content": "by the way"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "x"}]},
            {"role": "assistant", "content": "A prefill"},
        ],
        system=[{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
        tools=[{"name": "t", "input_schema": {}}],
        tool_choice={"type": "any"},
        thinking={"type": "adaptive"},
        mcp_servers=[{}],
    )
    assert messages.check(asked) is asked


def test_a_conversation_crosses_with_its_blocks_and_parameters() -> None:
    asked = body(
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "a", "citations": None}, {"type": "text", "text": "b"}],
            },
            {"role": "system", "content": "later"},
            {"role": "assistant", "content": "c"},
            {"role": "user", "content": "d"},
        ],
        system=[{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop_sequences=["END"],
        metadata={"user_id": "u"},
        tools=[],
        tool_choice={"type": "auto"},
        thinking={"type": "disabled"},
        service_tier="auto",
        output_config=None,
    )
    assert messages.read_request(messages.check(asked)) == Conversation(
        messages=(
            Message("user", (Text("a"), Text("b"))),
            Message("system", (Text("later"),)),
            Message("assistant", (Text("c"),)),
            Message("user", (Text("d"),)),
        ),
        system=(Text("one"), Text("two")),
        max_tokens=10,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop=("END",),
        user="u",
        tool_choice=ToolChoice("auto"),
        reasoning=Reasoning("none"),
        tier="auto",
    )


HINT = {"type": "ephemeral"}


def test_hints_are_dropped_by_name_and_thinking_of_earlier_turns_is_kept() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    asked = body(
        messages=[
            *TURN,
            {
                "role": "assistant",
                "content": [thought, {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
            },
            *TURN,
        ],
        service_tier="standard_only",
        speed="fast",
        diagnostics={},
    )
    conversation = messages.read_request(messages.check(asked))
    assert set(conversation.dropped) == {"speed", "diagnostics"}
    assert conversation.messages[1].parts == (Thinking("hm", "s", "messages"), Text("x", cache=0))


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [{"name": "t"}]}, "tools[0].input_schema"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "thinking.budget_tokens"),
        ({"output_config": {"effort": "lots"}}, "output_config.effort"),
        ({"output_config": {"task_budget": {}}}, "output_config.task_budget"),
        ({"container": "c"}, "container"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"brand_new": 1}, "brand_new"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"metadata": {"tag": "x"}}, "metadata.tag"),
        ({"metadata": {"user_id": 3}}, "metadata.user_id"),
        ({"system": [{"type": "image"}]}, "system[0]"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "novel": 1}]}, "messages[0].novel"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "search_result"}]}]},
            "messages[0].content[1]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "citations": [{}]}]}]},
            "messages[0].content[0].citations",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, "messages[0].content[0].text"),
    ],
)
def test_what_cannot_cross_is_refused_by_its_path(extra: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as refusal:
        messages.read_request(messages.check(body(**extra)))
    assert refusal.value.param == param
    assert param in refusal.value.message


@pytest.mark.parametrize("field", ["temperature", "top_p", "top_k"])
def test_sampling_is_refused_under_the_api_version_without_it(field: str) -> None:
    asked = messages.check(body(**{field: 1}))
    with pytest.raises(errors.InvalidRequest) as refusal:
        messages.read_request(asked, {"anthropic-version": "2026-10-21"})
    assert refusal.value.message == f"{field}: Extra inputs are not permitted"
    assert refusal.value.param == field
    for older in ({"anthropic-version": "2023-06-01"}, {}):
        assert getattr(messages.read_request(asked, older), field) == 1


def test_the_sdk_reads_a_reply_of_ours() -> None:
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


def test_a_refusal_and_a_stop_sequence_are_told_in_anthropic_s_words() -> None:
    refused = messages.write_answer(messages_call(), Answer(Usage(), stop_reason="refusal"))
    assert refused["stop_details"] == {"type": "refusal", "category": None, "explanation": None}
    assert refused["content"] == []
    stopped = messages.write_answer(messages_call(), Answer(Usage(), stop_reason="stop_sequence", stop_sequence="END"))
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "END")
    assert messages.write_answer(messages_call(), Answer(Usage(), stop_reason="other"))["stop_reason"] == "end_turn"


def test_a_verbatim_reply_is_the_vendor_s_own() -> None:
    assert messages.write_answer(messages_call(), Answer(Usage(), body=reply_of(), cost_nanousd=5)) == reply_of()


def test_the_sdk_s_accumulator_reads_a_stream_of_ours() -> None:
    asked = messages_call(stream=True)
    events: list[Event] = [
        Attempt("a", "m"),
        Started("gpt-x"),
        IDLE,
        Delta("Hel"),
        Delta("lo"),
        Finished(ANSWER),
    ]
    stream = messages.KEEP_ALIVE + written(messages.StreamEncoder(asked), events)
    with anthropic_client(stream).messages.stream(model="m", max_tokens=5, messages=[]) as helper:
        assert "".join(helper.text_stream) == "Hello"
        message = helper.get_final_message()
    assert message.model == "gpt-x"
    assert message.stop_reason == "end_turn"
    usage = message.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens) == (8, 9, 8)
    kinds = [told["type"] for told in data_of(stream)]
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


def test_an_answer_without_text_is_a_stream_without_blocks() -> None:
    answer = Answer(Usage(3, 0), stop_reason="refusal")
    stream = written(messages.StreamEncoder(messages_call(stream=True)), [Started("m", Usage(3, 1)), Finished(answer)])
    told = data_of(stream)
    assert [event["type"] for event in told] == ["message_start", "message_delta", "message_stop"]
    assert told[0]["message"]["usage"]["input_tokens"] == 3
    with anthropic_client(stream).messages.stream(model="m", max_tokens=5, messages=[]) as helper:
        message = helper.get_final_message()
    assert (message.content, message.stop_reason) == ([], "refusal")


def test_the_sdk_raises_for_a_failure_in_a_stream() -> None:
    frames = messages.StreamEncoder(messages_call(stream=True))
    failure = errors.UpstreamOverloaded("It is overloaded.")
    stream = frames.feed(Started("m")) + frames.feed(Delta("x")) + frames.error(failure, "req-7")
    assert b"message_stop" not in stream
    with (
        pytest.raises(anthropic.APIStatusError, match="overloaded") as caught,
        anthropic_client(stream).messages.stream(model="m", max_tokens=5, messages=[]) as helper,
    ):
        helper.get_final_message()
    assert caught.value.type == "overloaded_error"
    assert data_of(stream)[-1]["request_id"] == "req-7"


@pytest.mark.parametrize(
    ("failure", "status", "kind", "raised"),
    [
        (errors.InvalidRequest("x", param="n"), 400, "invalid_request_error", anthropic.BadRequestError),
        (errors.UnsupportedParameter("x"), 400, "invalid_request_error", anthropic.BadRequestError),
        (errors.Unauthenticated("x"), 401, "authentication_error", anthropic.AuthenticationError),
        (errors.Rejected("x", status=402), 402, "billing_error", anthropic.APIStatusError),
        (errors.Forbidden("x"), 403, "permission_error", anthropic.PermissionDeniedError),
        (errors.ModelNotFound("x"), 404, "not_found_error", anthropic.NotFoundError),
        (errors.MethodNotAllowed("x"), 405, "invalid_request_error", anthropic.APIStatusError),
        (errors.PayloadTooLarge("x"), 413, "request_too_large", anthropic.RequestTooLargeError),
        (errors.RateLimited("x"), 429, "rate_limit_error", anthropic.RateLimitError),
        (errors.Unavailable("x"), 503, "overloaded_error", anthropic.ServiceUnavailableError),
        (errors.UpstreamRejected("x", status=422), 422, "invalid_request_error", anthropic.UnprocessableEntityError),
        (errors.UpstreamOverloaded("x"), 529, "overloaded_error", anthropic.OverloadedError),
        (errors.UpstreamTimeout("x"), 504, "timeout_error", anthropic.DeadlineExceededError),
        (errors.UpstreamBroken("x"), 502, "api_error", anthropic.InternalServerError),
        (errors.InternalError("x"), 500, "api_error", anthropic.InternalServerError),
    ],
)
def test_the_sdk_raises_its_own_class_for_each_failure(
    failure: errors.ServiceError, status: int, kind: str, raised: type[anthropic.APIStatusError]
) -> None:
    told = messages.error(failure, "req-1")
    assert (told["type"], told["error"]["type"], told["error"]["message"]) == ("error", kind, "x")
    assert told["request_id"] == "req-1"
    assert messages.status(failure) == status
    headers = {**messages.error_headers(failure, NOW), "request-id": "req-1"}
    client = anthropic_client(orjson.dumps(told), status, headers)
    with pytest.raises(raised) as caught:
        client.messages.create(model="m", max_tokens=5, messages=[])
    assert caught.value.error_code == failure.code
    assert caught.value.type == kind
    assert caught.value.request_id == "req-1"


def test_anthropic_s_own_words_are_kept_but_nobody_else_s() -> None:
    vendor = {"format": "messages", "status": 400, "type": "novel_error", "code": "novel_code"}
    told = messages.error(errors.UpstreamRejected("x", vendor=vendor), "r")["error"]
    assert (told["type"], told["details"]["error_code"]) == ("novel_error", "novel_code")
    overloaded = errors.UpstreamOverloaded("x", vendor={**vendor, "status": 503, "type": "api_error"})
    assert messages.error(overloaded, "r")["error"]["type"] == "overloaded_error"
    foreign = errors.UpstreamRejected("x", vendor={**vendor, "format": "chat"})
    assert messages.error(foreign, "r")["error"]["type"] == "invalid_request_error"
    ours = errors.UpstreamRejected("x", vendor=vendor, code="upstream_authentication", status=502)
    assert messages.error(ours, "r")["error"]["type"] == "api_error"


def test_the_field_is_named_in_the_details() -> None:
    told = messages.error(errors.InvalidRequest("x", param="messages[1].role"), "r")["error"]
    assert told["details"] == {"error_code": "invalid_request", "param": "messages[1].role"}


def test_rate_limit_headers_are_anthropic_s() -> None:
    limit = errors.Limit("requests", "key", 60, 60, 0, 56)
    assert messages.error_headers(errors.RateLimited("x", limit=limit), NOW) == {
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-01-02T03:05:01Z",
    }
    assert messages.error_headers(errors.UpstreamFailed("x"), NOW) == {"x-should-retry": "false"}


def test_the_prompt_of_a_body_is_all_that_holds_content() -> None:
    assert messages.prompt(body(system="s")) == ["s", TURN]
