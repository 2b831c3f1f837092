"""JSON that a client asked for, in whichever format: the request's format, the answer's text, and asking again.

An answer's events are a list here, as they came. One that travels verbatim is read
with the reader of its format, which is the client's and the vendor's at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from llm_service.core.call import Call
from llm_service.core.content import JsonFormat, Part, Refusal, Text, ToolCall
from llm_service.core.errors import UpstreamError
from llm_service.core.events import IDLE, Answer, Delta, Event, Finished, RefusalDelta, Relay, Started, ToolCallStart
from llm_service.formats import UpstreamFormat, registry, sse

# Cut, refused or not an answer at all: what such an answer holds says so itself.
_UNFIT = ("max_tokens", "tool_use", "refusal")


def format_of(call: Call) -> JsonFormat | None:
    """The JSON that ``call`` asks for, None for anything else. Mistakes are the format's to find, or the vendor's."""
    read = _FORMATS.get(call.format)
    return read(call.body) if read is not None else None


def _chat_format(body: Mapping[str, Any]) -> JsonFormat | None:
    given = body.get("response_format")
    match given:
        case {"type": "json_object"}:
            return JsonFormat()
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return JsonFormat(schema, place="response_format.json_schema.schema")
    return None


def _responses_format(body: Mapping[str, Any]) -> JsonFormat | None:
    match body.get("text"):
        case {"format": {"type": "json_object"}}:
            return JsonFormat()
        case {"format": {"type": "json_schema", "schema": dict(schema)}}:
            return JsonFormat(schema, place="text.format.schema")
    return None


def _messages_format(body: Mapping[str, Any]) -> JsonFormat | None:
    match body:
        case {"output_config": {"format": {"type": "json_schema", "schema": dict(schema)}}}:
            return JsonFormat(schema, place="output_config.format.schema")
        case {"output_format": {"type": "json_schema", "schema": dict(schema)}}:  # the beta's name for it
            return JsonFormat(schema, place="output_format.schema")
    return None


_FORMATS: Mapping[str, Callable[[Mapping[str, Any]], JsonFormat | None]] = {
    "chat": _chat_format,
    "responses": _responses_format,
    "messages": _messages_format,
}


def opened(call: Call, events: Sequence[Event]) -> list[Event] | None:
    """An answer's events with its text to be seen; None where they cannot be read, or are more than one answer."""
    finished = cast(Finished, events[-1])
    format = cast(UpstreamFormat, registry.BY_NAME[call.format])
    if type(call.body.get("n")) is int and call.body["n"] > 1:
        return None
    try:
        if finished.answer.body is not None:
            return [replace(finished, answer=_read(finished.answer, format, call))]
        if any(type(event) is Relay for event in events):
            return _read_frames(events, finished, format, call)
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


def _read_frames(events: Sequence[Event], finished: Finished, format: UpstreamFormat, call: Call) -> list[Event]:
    frames = b"".join([event.data for event in events if type(event) is Relay]) + finished.tail
    splitter = sse.Splitter()
    read = list(format.StreamDecoder(call).feed_many([*splitter.feed(frames), *splitter.end()]))
    started = next(replace(event, verbatim=False) for event in events if type(event) is Started)
    last = read[-1]
    assert type(last) is Finished, "it was whole as it came"
    answer = replace(finished.answer, stop_reason=last.answer.stop_reason, stop_sequence=last.answer.stop_sequence)
    return [started, *(event for event in read[1:-1] if event is not IDLE), Finished(answer)]


def text_of(events: Sequence[Event]) -> str | None:
    """What an opened answer says; None for one that was cut, refused, calls a tool or says nothing yet."""
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
    """An opened answer with ``text`` in place of its own, in one piece."""
    finished = cast(Finished, events[-1])
    answer = replace(finished.answer, parts=_with_text(finished.answer.parts, text), logprobs=())
    written: list[Event] = []
    said = False
    for event in events[:-1]:
        if not isinstance(event, Delta):
            written.append(event)
        elif not said:
            written.append(Delta(text))
            said = True
    return [*written, Finished(answer)]


def _with_text(parts: Sequence[Part], text: str) -> tuple[Part, ...]:
    written: list[Part] = []
    said = False
    for part in parts:
        if type(part) is not Text:
            written.append(part)
        elif not said:
            written.append(Text(text))
            said = True
    return tuple(written)


def again(call: Call, text: str, note: str) -> Call:
    """``call`` with the answer it got, and a word of ours to the model about it."""
    name = "input" if call.format == "responses" else "messages"
    before = call.body.get(name)
    if isinstance(before, str):
        before = [{"role": "user", "content": before}]
    answered = [{"role": "assistant", "content": text}] if text.strip() else []
    body = {**call.body, name: [*(before or ()), *answered, {"role": "user", "content": note}]}
    added = len(text.encode()) + len(note.encode())
    return replace(call, body=body, body_bytes=call.body_bytes + added)
