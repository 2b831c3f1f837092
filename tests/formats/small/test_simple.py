"""The service's own format: small, strict, and the same in plain and streamed answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from llm_service.core import errors
from llm_service.core.content import Message, Text
from llm_service.core.conversation import Conversation
from llm_service.core.events import IDLE, Answer, Attempt, Delta, Event, Finished, Started
from llm_service.core.usage import Usage
from llm_service.formats.small import simple
from tests.formats.examples import call, data_of, written

USER = {"role": "user", "content": "Hello"}
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def refusal(body: dict[str, Any]) -> errors.InvalidRequest:
    with pytest.raises(errors.InvalidRequest) as caught:
        simple.check(body)
    return caught.value


def test_a_prompt_is_a_conversation_of_one_turn() -> None:
    body = simple.check(
        {"prompt": "Hello", "system": "Be brief.", "max_tokens": 5, "temperature": 1.5, "top_p": 0.5, "stop": "END"}
    )
    assert simple.read_request(body) == Conversation(
        messages=(Message("user", (Text("Hello"),)),),
        system=(Text("Be brief."),),
        max_tokens=5,
        temperature=1.5,
        top_p=0.5,
        stop=("END",),
    )


def test_leading_system_messages_join_the_system_prompt_and_later_ones_stay_where_they_are() -> None:
    given = [
        {"role": "system", "content": "one"},
        {"role": "system", "content": "two"},
        USER,
        {"role": "assistant", "content": "Hi"},
        {"role": "system", "content": "three"},
        USER,
    ]
    conversation = simple.read_request(simple.check({"messages": given, "system": "zero", "stop": ["a", "b"]}))
    assert conversation.system == (Text("zero"), Text("one"), Text("two"))
    assert [message.role for message in conversation.messages] == ["user", "assistant", "system", "user"]
    assert conversation.stop == ("a", "b")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "x", "messages": [USER]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["x"]}, "prompt"),
        ({"prompt": "x", "systm": "y"}, "systm"),
        ({"prompt": "x", "system": ["y"]}, "system"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "stop": 3}, "stop"),
        ({"prompt": "x", "stop": ""}, "stop"),
        ({"prompt": "x", "stop": ["a"] * 17}, "stop"),
        ({"prompt": "x", "stop": ["a", 3]}, "stop"),
        ({"messages": [USER, {"role": "assistant", "content": "Hi"}]}, "messages[1].role"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}, USER]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, "messages[0].content"),
    ],
)
def test_a_mistake_is_rejected_by_its_name(body: dict[str, Any], param: str) -> None:
    error = refusal(body)
    assert error.param == param
    assert error.message.startswith(param)


def test_the_first_mistake_in_the_order_of_the_fields_is_reported() -> None:
    assert refusal({"nonsense": 1, "stream": 3, "prompt": 3}).param == "prompt"


def test_a_reply_is_one_flat_object() -> None:
    answer = Answer(
        Usage(12, 3, cached_tokens=4),
        stop_reason="end_turn",
        parts=(Text("Hel"), Text("lo")),
        model="gpt-x",
        provider="openai",
        cost_nanousd=1_500_000,
    )
    simple_call = call("simple", {"prompt": "x"})
    assert simple.write_answer(simple_call, answer) == {
        "id": simple_call.id,
        "model": "gpt-x",
        "provider": "openai",
        "text": "Hello",
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 12, "output_tokens": 3, "cached_tokens": 4, "cost_usd": 0.0015, "exact": True},
    }


def test_an_unknown_price_is_null_and_an_estimate_says_so() -> None:
    usage = simple.write_answer(call("simple", {"prompt": "x"}), Answer(Usage(1, 2, exact=False)))["usage"]
    assert usage["cost_usd"] is None
    assert usage["exact"] is False


def test_a_stream_is_deltas_then_done_then_the_end_mark() -> None:
    simple_call = call("simple", {"prompt": "x"}, stream=True)
    answer = Answer(Usage(1, 2), stop_reason="max_tokens", model="m", provider="p", cost_nanousd=0)
    events: list[Event] = [
        Attempt("p", "m"),
        IDLE,
        Started("m"),
        Delta("Hé"),
        IDLE,
        Delta("\n"),
        Finished(answer),
    ]
    stream = written(simple.StreamEncoder(simple_call), events)
    assert stream.startswith('data: {"delta":"Hé"}\n\n'.encode())
    usage = {"input_tokens": 1, "output_tokens": 2, "cached_tokens": 0, "cost_usd": 0.0, "exact": True}
    assert data_of(stream) == [
        {"delta": "Hé"},
        {"delta": "\n"},
        {
            "done": True,
            "id": simple_call.id,
            "model": "m",
            "provider": "p",
            "stop_reason": "max_tokens",
            "usage": usage,
        },
        "[DONE]",
    ]


def test_a_failure_in_a_stream_has_no_end_mark_after_it() -> None:
    frames = simple.StreamEncoder(call("simple", {"prompt": "x"}, stream=True))
    stream = frames.feed(Delta("x")) + frames.error(errors.UpstreamBroken("The answer broke off."))
    assert data_of(stream)[-1] == {"error": {"type": "upstream_broken", "message": "The answer broke off."}}


def test_an_error_is_a_problem_document() -> None:
    failure = errors.InvalidRequest("stop must be a string.", param="stop")
    assert simple.error(failure, "req-9") == {
        "type": "urn:llm-service:error:invalid_request",
        "title": "Invalid request",
        "status": 400,
        "detail": "stop must be a string.",
        "code": "invalid_request",
        "param": "stop",
        "request_id": "req-9",
    }
    assert "param" not in simple.error(errors.Unauthenticated("No key."), "r")
    assert simple.status(errors.RateLimited("Slow down.")) == 429
    assert simple.error_headers(errors.UpstreamFailed("x"), NOW) == {}


def test_the_prompt_of_a_body_is_all_that_holds_content() -> None:
    assert simple.prompt({"prompt": "a", "system": "b", "max_tokens": 1}) == ["b", "a", None]
