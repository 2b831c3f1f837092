"""The text of an answer in any format: reading it, replacing it, and asking the model again.

An answer's events are a list here, in their order. An answer that travels verbatim is read with the decoder of its
format, because the client and the vendor speak the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from llm_service.core.call import Call
from llm_service.core.content import Part, Refusal, Text, ToolCall
from llm_service.core.errors import UpstreamError
from llm_service.core.events import IDLE, Answer, Delta, Event, Finished, RefusalDelta, Relay, Started, ToolCallStart
from llm_service.formats import UpstreamFormat, registry, sse

# An answer that was cut, that calls a tool or that refuses is not JSON, and its stop reason says why.
_UNFIT = ("max_tokens", "tool_use", "refusal")


def opened(call: Call, events: Sequence[Event]) -> list[Event] | None:
    """An answer's events with its text in them; None if they cannot be read or hold several choices."""
    finished = cast(Finished, events[-1])
    format = registry.upstream_format_of(call)
    if format.BOUNDS.choices(call.body) > 1:
        return None
    try:
        if finished.answer.body is not None:
            return [replace(finished, answer=_read(finished.answer, format, call))]
        if any(type(event) is Relay for event in events):
            return _read_stream(events, finished, format, call)
    except UpstreamError:
        return None
    return list(events)


def _read(answer: Answer, format: UpstreamFormat, call: Call) -> Answer:
    assert answer.body is not None
    read = format.read_answer(answer.body, call)
    return replace(
        answer,
        body=None,
        parts=read.parts,
        logprobs=read.logprobs,
        stop_reason=read.stop_reason,
        stop_sequence=read.stop_sequence,
    )


def _read_stream(events: Sequence[Event], finished: Finished, format: UpstreamFormat, call: Call) -> list[Event]:
    data = b"".join([event.data for event in events if type(event) is Relay]) + finished.tail
    splitter = sse.Splitter()
    read = list(format.StreamDecoder(call).feed_many([*splitter.feed(data), *splitter.end()]))
    started = next(replace(event, verbatim=False) for event in events if type(event) is Started)
    last = read[-1]
    assert type(last) is Finished, "the upstream's stream was complete"
    answer = replace(finished.answer, stop_reason=last.answer.stop_reason, stop_sequence=last.answer.stop_sequence)
    return [started, *(event for event in read[1:-1] if event is not IDLE), Finished(answer)]


def text_of(events: Sequence[Event]) -> str | None:
    """The text of an opened answer; None for one that was cut, refuses, calls a tool or says nothing."""
    answer = cast(Finished, events[-1]).answer
    if answer.stop_reason in _UNFIT:
        return None
    if any(type(event) in (ToolCallStart, RefusalDelta) for event in events):
        return None
    if any(type(part) in (ToolCall, Refusal) for part in answer.parts):
        return None
    streamed = type(events[0]) is Started
    text = "".join([event.text for event in events if isinstance(event, Delta)]) if streamed else answer.text
    return text if text or answer.stop_reason != "other" else None


def with_text(events: Sequence[Event], text: str) -> list[Event]:
    """An opened answer with ``text`` in one piece in place of its own text."""
    finished = cast(Finished, events[-1])
    answer = replace(finished.answer, parts=_with_text(finished.answer.parts, text), logprobs=())
    written: list[Event] = []
    is_written = False
    for event in events[:-1]:
        if not isinstance(event, Delta):
            written.append(event)
        elif not is_written:
            written.append(Delta(text))
            is_written = True
    return [*written, Finished(answer)]


def _with_text(parts: Sequence[Part], text: str) -> tuple[Part, ...]:
    written: list[Part] = []
    is_written = False
    for part in parts:
        if type(part) is not Text:
            written.append(part)
        elif not is_written:
            written.append(Text(text))
            is_written = True
    return tuple(written)


def again(call: Call, text: str, note: str) -> Call:
    """``call`` with the answer it got, and a message ``note`` to the model about it."""
    body = registry.format_of(call).with_turn(call.body, text, note)
    added = len(text.encode()) + len(note.encode())
    return replace(call, body=body, body_bytes=call.body_bytes + added)
