"""OpenAI Responses, the upstream's streams, read for a client of another format.

The vendor may interleave output items. The events that leave here hold one item after
the other, in the order in which the items began. The vendor sends an item twice, piece
by piece and as a whole. Both must agree in the arguments of a tool call, where a lost
piece would do harm.

A stream is complete only with ``response.completed`` or ``response.incomplete``. A
``response.failed`` and an ``error`` end it as well, but not as an answer. Events of
unknown types are accepted anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from llm_service.core import identifiers
from llm_service.core.call import Call
from llm_service.core.content import RedactedThinking, Refusal, Text, Thinking, TokenLogprob
from llm_service.core.events import (
    Answer,
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
from llm_service.formats import custom_tools, decoding, tool_calls
from llm_service.formats.decoding import broken
from llm_service.formats.openai_chat.decode_answer import logprobs_asked
from llm_service.formats.openai_responses import decode_answer
from llm_service.formats.openai_responses.decode_answer import TOOL_CALLS, string_at
from llm_service.formats.openai_responses.schema import NAME

_ENDS = ("response.completed", "response.incomplete")
_FAILURES = ("response.failed", "response.cancelled", "error")


class Stream(decoding.Stream):
    """What ``StreamDecoder`` and ``Passthrough`` both learn from the events of one stream."""

    __slots__ = ("_begun", "_call", "_characters", "_model", "_response", "finished")

    def __init__(self, call: Call | None = None) -> None:
        self._call = call
        self._begun = False
        self._characters = 0
        self._model = ""
        self._response: Mapping[str, Any] = {}  # the whole response in the terminal event
        self.finished = False

    def _follow(self, event: dict[str, Any]) -> str:
        """Note what ``event`` says about the answer, and return its type."""
        kind = event.get("type")
        if type(kind) is not str:
            if event.get("error"):  # some servers report a failure this way
                raise decode_answer.in_band(event)
            broken("an event has no type")
        delta = event.get("delta")
        if type(delta) is str:
            if not self._begun:
                broken("a delta came before response.created")
            self._characters += len(delta)
        elif kind in _FAILURES:
            failed = event.get("response")
            self._response = failed if type(failed) is dict else {}
            raise decode_answer.in_band(event)
        elif kind in _ENDS or kind == "response.created":
            self._note(kind, event.get("response"))
        return kind

    def _note(self, kind: str, response: Any) -> None:
        if type(response) is not dict or self._begun is (kind == "response.created"):
            broken("response.created is not the one first event")
        self._begun = True
        self._model = identifiers.model_name(response.get("model")) or self._model
        if kind in _ENDS:
            self._response = response  # before it is checked: it may report usage
            decode_answer.check_answer(response)
            if kind == "response.incomplete":  # if the event and the status in it differ, the answer is not whole
                self._response = {**response, "status": "incomplete"}
            self.finished = True

    def reported(self) -> Usage | None:
        return decode_answer.reported_usage(self._response, self._call)

    def _answer(self) -> Answer:
        characters = max(self._characters, decode_answer.count_characters(self._response.get("output")))
        return Answer(
            usage=decode_answer.usage_of(self._response, self._call, characters),
            stop_reason=decode_answer.stop_reason(self._response),
            model=self._model,
        )


class _Item:
    """An output item of a stream: its kind, the pieces that came, and the events that wait for earlier items."""

    __slots__ = ("done", "kind", "number", "pieces", "waiting")

    def __init__(self, kind: str, number: int) -> None:
        self.kind = kind
        self.number = number  # of a tool call: its index among the tool calls
        self.pieces: list[str] = []
        self.waiting: list[Event] = []
        self.done = False


class StreamDecoder(Stream):
    """A stream that crosses."""

    __slots__ = ("_calls", "_items", "_logprobs_asked", "_open", "_valid_arguments")

    def __init__(self, call: Call | None = None) -> None:
        super().__init__(call)
        self._calls = 0
        self._items: dict[int, _Item] = {}  # by their output_index
        self._logprobs_asked = logprobs_asked(call)
        self._valid_arguments = True  # whether the arguments of every tool call are JSON
        self._open: list[_Item] = []  # items that are not finished; the events of the first one are passed on

    def _read(self, event: dict[str, Any]) -> Iterator[Event]:
        kind = self._follow(event)
        if self.finished:
            yield from self._end()
            return
        match kind:
            case "response.created":
                yield Started(model=self._model)
            case "response.output_item.added":
                yield from self._begin(event)
            case "response.output_item.done":
                yield from self._done(event)
            case "response.reasoning_summary_part.added" if self._item(event).pieces:
                separator = decode_answer.SUMMARY_SEPARATOR
                yield from self._pass_on(self._item(event), ThinkingDelta(separator), separator)
            case "response.output_text.delta" if self._logprobs_asked:
                text, logprobs = string_at(event, "delta"), decode_answer.read_logprobs(event.get("logprobs"))
                if text or logprobs:
                    yield from self._pass_on(self._item(event), ChoiceDelta(text, logprobs), text)
            case _:
                make = _PIECES.get(kind)
                if make is not None:
                    item, piece = self._item(event), string_at(event, "delta")
                    if piece:
                        yield from self._pass_on(item, make(item, piece), piece)

    def _item(self, event: Mapping[str, Any]) -> _Item:
        index = event.get("output_index")
        item = self._items.get(index) if type(index) is int else None
        if item is None or item.done:
            broken("a piece came outside an output item")
        return item

    def _begin(self, event: Mapping[str, Any]) -> Iterator[Event]:
        given = event.get("item")
        if type(given) is not dict or given.get("type") not in ("message", "reasoning", *TOOL_CALLS):
            broken("it has an item that was not asked for")
        index = event.get("output_index")
        if not self._begun or type(index) is not int or index in self._items:
            broken("its output items are out of order")
        item = self._items[index] = _Item(given["type"], self._calls)
        self._open.append(item)
        if item.kind in TOOL_CALLS:
            decode_answer.check_call(given, self._call, cut=True)
            self._calls += 1
            yield from self._pass_on(item, ToolCallStart(item.number, *decode_answer.call_names(given)))

    def _pass_on(self, item: _Item, event: Event, piece: str = "") -> Iterator[Event]:
        """``event``, unless an earlier item is still open: then the event waits."""
        if piece:
            item.pieces.append(piece)
        if self._open and self._open[0] is item:
            yield event
        else:
            item.waiting.append(event)

    def _done(self, event: Mapping[str, Any]) -> Iterator[Event]:
        item, whole = self._item(event), event.get("item")
        if type(whole) is not dict or whole.get("type") != item.kind:
            broken("an item ended with another type than it began with")
        if item.kind == "function_call":
            valid = tool_calls.is_arguments(string_at(whole, "arguments"))
            self._valid_arguments = self._valid_arguments and valid
        logprobs = decode_answer.logprobs_of(whole) if self._logprobs_asked else ()
        for last in _rest_of(item, whole, logprobs):
            yield from self._pass_on(item, last)
        item.done = True
        while self._open and self._open[0].done:
            self._open.pop(0)
            if self._open:
                yield from self._open[0].waiting
                self._open[0].waiting.clear()

    def _end(self) -> Iterator[Event]:
        """The last events. Items that are still open were cut together with the answer.

        Raises UpstreamBroken if the answer claims to be complete and an item is still open.
        """
        whole = not decode_answer.is_cut(self._response)
        if self._open and whole:
            broken("it ended before one of its items")
        if not self._valid_arguments and whole:
            broken("a tool call's arguments are not a JSON object")
        for number, item in enumerate(self._open):
            if number:
                yield from item.waiting
            if item.kind in TOOL_CALLS and not item.done:
                yield ToolCallEnd(item.number)
        answer = self._answer()
        if self._calls and answer.stop_reason == "end_turn":  # some servers leave the output out of the last event
            answer = replace(answer, stop_reason="tool_use")
        yield Finished(answer)


_PIECES: Mapping[str, Any] = {
    "response.output_text.delta": lambda item, piece: Delta(piece),
    "response.refusal.delta": lambda item, piece: RefusalDelta(piece),
    "response.reasoning_summary_text.delta": lambda item, piece: ThinkingDelta(piece),
    "response.reasoning_text.delta": lambda item, piece: ThinkingDelta(piece),
    "response.function_call_arguments.delta": lambda item, piece: ToolCallDelta(item.number, piece),
    "response.custom_tool_call_input.delta": lambda item, piece: ToolCallDelta(
        item.number, custom_tools.wrap_piece(piece, first=not item.pieces)
    ),
}


def _rest_of(item: _Item, whole: Mapping[str, Any], logprobs: tuple[TokenLogprob, ...]) -> Iterator[Event]:
    """The events that end an item, with its content if no piece of it came before."""
    if item.kind == "function_call":
        arguments = string_at(whole, "arguments")
        if not item.pieces and arguments:
            yield ToolCallDelta(item.number, arguments)
        elif item.pieces and "".join(item.pieces) != arguments:
            broken("a piece of a tool's arguments is missing")
        yield ToolCallEnd(item.number)
        return
    if item.kind == "custom_tool_call":
        text = string_at(whole, "input")
        if item.pieces and "".join(item.pieces) != text:
            broken("a piece of a tool's input is missing")
        yield ToolCallDelta(item.number, custom_tools.WRAPPED_END if item.pieces else custom_tools.wrap(text))
        yield ToolCallEnd(item.number)
        return
    for part in () if item.pieces else decode_answer.read_item(whole):
        match part:
            case Text(text):
                yield ChoiceDelta(text, logprobs) if logprobs else Delta(text)
                logprobs = ()
            case Refusal(text):
                yield RefusalDelta(text)
            case Thinking(text):
                yield ThinkingDelta(text)
    if item.kind == "reasoning":
        thought = decode_answer.read_reasoning(whole)
        if type(thought) is RedactedThinking and not item.pieces:
            yield thought
        elif thought is not None:
            signature = thought.data if type(thought) is RedactedThinking else thought.signature  # type: ignore[union-attr]
            yield ThinkingEnd(signature, NAME)
