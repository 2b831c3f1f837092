"""A plain answer that is put together from a stream's events is the same as the vendor's plain answer."""

from __future__ import annotations

from llm_service.core.content import RedactedThinking, Refusal, Text, Thinking, TokenLogprob, ToolCall
from llm_service.core.events import (
    Answer,
    Choice,
    ChoiceDelta,
    Delta,
    Event,
    Finished,
    RefusalDelta,
    Started,
    ThinkingDelta,
    ThinkingEnd,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from llm_service.core.usage import Usage
from llm_service.formats import whole_answer


def test_the_parts_of_a_stream_are_the_parts_of_an_answer() -> None:
    events: list[Event] = [
        Started("m"),
        ThinkingDelta("h"),
        ThinkingDelta("m"),
        ThinkingEnd("sig", "messages"),
        ThinkingEnd("only", "messages"),
        RedactedThinking("data", "messages"),
        Delta("a"),
        Delta("b"),
        RefusalDelta("no"),
        ToolCallStart(0, "x", "f"),
        ToolCallDelta(0, '{"a"'),
        ToolCallDelta(0, ": 1}"),
        ToolCallEnd(0),
        ToolCallStart(1, "y", "g"),
        ToolCallEnd(1),
        Delta("c"),
        Finished(Answer(Usage(1, 2), stop_reason="tool_use", model="m")),
    ]
    answer = whole_answer.of_events(events)
    assert answer.parts == (
        Thinking("hm", "sig", "messages"),
        Thinking("", "only", "messages"),
        RedactedThinking("data", "messages"),
        Text("ab"),
        Refusal("no"),
        ToolCall("x", "f", '{"a": 1}'),
        ToolCall("y", "g", ""),
        Text("c"),
    )
    assert (answer.usage, answer.stop_reason, answer.model) == (Usage(1, 2), "tool_use", "m")


def test_several_choices_and_their_tokens_are_kept_apart() -> None:
    one, two = TokenLogprob("a", -1.0), TokenLogprob("b", -2.0)
    events: list[Event] = [
        Started("m"),
        ChoiceDelta("a", (one,)),
        ChoiceDelta("b", (two,), 1),
        ChoiceDelta("a", (one,)),
        Finished(Answer(Usage(1, 2), "end_turn", choices=(Choice(0, "end_turn"), Choice(1, "max_tokens")))),
    ]
    answer = whole_answer.of_events(events)
    assert (answer.parts, answer.logprobs) == ((Text("aa"),), (one, one))
    assert answer.choices == (
        Choice(0, "end_turn", (Text("aa"),), (one, one)),
        Choice(1, "max_tokens", (Text("b"),), (two,)),
    )
