"""Anthropic Messages, the upstream's side: plain answers and errors."""

from __future__ import annotations

from typing import Any

import pytest

from llm_service.core import errors
from llm_service.core.content import Text, Thinking
from llm_service.core.usage import Usage
from llm_service.formats import anthropic_messages as messages
from tests.formats.anthropic_messages.wire import messages_call, reply_of
from tests.formats.examples import recorded


def test_recorded_answers_are_read() -> None:
    plain = recorded("test_messages-TestSyncParse-bd7029d5-d8d4-4e06-be3a-2ac9c60803a6.json")
    answer = messages.read_answer(plain)
    assert answer.text == plain["content"][0]["text"]
    assert (answer.usage, answer.stop_reason) == (Usage(406, 50), "end_turn")
    assert answer.model == "claude-sonnet-4-5-20250929"
    tools = recorded("test_runners-TestSyncRunTools-32da0815-2270-4d29-87be-3b5b63ab42e2.json")
    assert messages.read_verbatim(tools).body is tools
    assert messages.read_verbatim(tools).usage == Usage(11306, 163, web_searches=1)
    with pytest.raises(errors.UpstreamBroken):
        messages.read_answer(tools)


def test_thinking_and_text_blocks_become_parts() -> None:
    parts = (Thinking("1234", "s", "messages"), Text("12345"), Text("678"))
    assert messages.read_answer(reply_of()).parts == parts


FIVE = {"input_tokens": 5, "output_tokens": 2}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (FIVE, Usage(5, 2)),
        (
            {**FIVE, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 20},
            Usage(35, 2, cached_tokens=10, cache_write_tokens=20),
        ),
        (
            {**FIVE, "cache_creation_input_tokens": 20, "cache_creation": {"ephemeral_1h_input_tokens": 15}},
            Usage(25, 2, cache_write_tokens=20, cache_write_1h_tokens=15),
        ),
        (
            {**FIVE, "cache_creation_input_tokens": 20, "cache_creation": {"ephemeral_1h_input_tokens": 25}},
            Usage(25, 2, cache_write_tokens=20, cache_write_1h_tokens=20, exact=False),
        ),
        ({**FIVE, "cache_read_input_tokens": None, "cache_creation": None}, Usage(5, 2)),
        ({**FIVE, "output_tokens_details": {"thinking_tokens": 1}}, Usage(5, 2, reasoning_tokens=1)),
        ({**FIVE, "output_tokens_details": {"thinking_tokens": -1}}, Usage(5, 2, exact=False)),
        ({**FIVE, "cache_read_input_tokens": "10"}, Usage(15, 2, cached_tokens=10, exact=False)),
        ({**FIVE, "server_tool_use": {"web_search_requests": 3}}, Usage(5, 2, web_searches=3)),
        ({**FIVE, "server_tool_use": {"web_search_requests": -3}}, Usage(5, 2, exact=False)),
        ({**FIVE, "server_tool_use": {"web_search_requests": 10**9}}, Usage(5, 2, web_searches=1000, exact=False)),
        ({**FIVE, "server_tool_use": [3]}, Usage(5, 2)),
        ({**FIVE, "service_tier": "standard", "speed": "standard", "inference_geo": "global"}, Usage(5, 2)),
        ({**FIVE, "service_tier": "batch"}, Usage(5, 2, tier="batch")),
        ({**FIVE, "service_tier": "standard", "speed": "fast"}, Usage(5, 2, tier="fast")),
        ({**FIVE, "service_tier": "priority", "speed": "fast"}, Usage(5, 2, tier="priority+fast")),
        ({**FIVE, "inference_geo": "us"}, Usage(5, 2, tier="us")),
        ({**FIVE, "inference_geo": "not_available", "service_tier": {}}, Usage(5, 2, tier="unknown")),
        ({"output_tokens": 2}, Usage(100, 2, exact=False)),
        ({"output_tokens": 2, "cache_read_input_tokens": 30}, Usage(100, 2, cached_tokens=30, exact=False)),
        ({"input_tokens": -3, "output_tokens": 2.5}, Usage(100, 3, exact=False)),
        ({"input_tokens": True, "output_tokens": 10**40}, Usage(100, 3, exact=False)),
        ({"input_tokens": 0, "output_tokens": 0}, Usage(100, 3, exact=False)),
        ({"input_tokens": 0, "output_tokens": 2, "cache_read_input_tokens": 7}, Usage(7, 2, cached_tokens=7)),
        ({"prompt_tokens": 5, "completion_tokens": 2}, Usage(5, 2)),
        ({**FIVE, "output_tokens_details": {"thinking_tokens": 7}}, Usage(5, 9, reasoning_tokens=7, exact=False)),
        (None, Usage(100, 3, exact=False)),
        ("x", Usage(100, 3, exact=False)),
    ],
)
def test_usage_includes_the_cache_and_impossible_counts_are_estimated(usage: Any, expected: Usage) -> None:
    assert messages.read_answer(reply_of(usage=usage), messages_call()).usage == expected
    assert messages.read_verbatim(reply_of(usage=usage), messages_call()).usage == expected


@pytest.mark.parametrize(
    "reply",
    [
        {},
        reply_of(content="x"),
        reply_of(content=[3]),
        reply_of(content=[{"type": "text", "text": 3}]),
        reply_of(content=[{"type": "tool_use"}]),
        reply_of(stop_reason=None),
    ],
)
def test_a_body_that_is_not_an_answer_raises_upstream_broken(reply: dict[str, Any]) -> None:
    with pytest.raises(errors.UpstreamBroken):
        messages.read_answer(reply)


def test_an_error_object_with_status_200_raises_the_error() -> None:
    with pytest.raises(errors.UpstreamOverloaded):
        messages.read_verbatim({"type": "error", "error": {"type": "overloaded_error", "message": "x"}})


def test_read_error_accepts_any_body() -> None:
    given = {"type": "rate_limit_error", "message": "m", "details": {"error_code": "ramp_limit_exceeded"}}
    error = messages.read_error({"type": "error", "error": given})
    assert (error.type, error.code, error.message) == ("rate_limit_error", "ramp_limit_exceeded", "m")
    malformed: Any
    for malformed in (None, [], "text", {"error": "text"}, {"error": {"type": 3, "details": 4, "message": 5}}):
        error = messages.read_error(malformed)
        assert (error.type if error.type != "3" else None, error.code, error.message) == (None, None, None)


@pytest.mark.parametrize("reason", ["pause_turn", "compaction", "reason_of_tomorrow", ""])
def test_a_reason_that_is_not_an_end_is_a_failure_for_other_formats_and_relayed_to_its_own(reason: str) -> None:
    reply = reply_of(stop_reason=reason)
    with pytest.raises(errors.UpstreamFailed):
        messages.read_answer(reply)
    assert messages.read_verbatim(reply).body is reply
