"""OpenAI Responses, the upstream's answers read for crossing: plain ones and streams.

Items may be told interleaved; here one comes after the other, in the order in
which they began. What is told twice, piece by piece and as a whole, must agree
where a lost piece would do harm: in the arguments of a tool.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm_service.core.call import Call
from llm_service.core.content import RedactedThinking, Refusal, Text, Thinking
from llm_service.core.events import (
    Answer,
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
from llm_service.formats import decoding as upstream
from llm_service.formats import tool_calls as tools
from llm_service.formats.decoding import broken
from llm_service.formats.openai_responses import decode_answer
from llm_service.formats.openai_responses.schema import NAME

_ENDS = ("response.completed", "response.incomplete")
_FAILURES = ("response.failed", "response.cancelled", "error")


class Stream(upstream.Stream):
    """What ``Reader`` and ``Passthrough`` both learn from the events of one stream."""

    __slots__ = ("_begun", "_call", "_characters", "_model", "_response", "finished")

    def __init__(self, call: Call | None = None) -> None:
        self._call = call
        self._begun = False
        self._characters = 0
        self._model = ""
        self._response: Mapping[str, Any] = {}  # the answer's last and whole account of itself
        self.finished = False

    def _follow(self, event: dict[str, Any]) -> str:
        """Take note of ``event``; its type."""
        kind = event.get("type")
        if type(kind) is not str:
            if event.get("error"):  # some servers' way of failing
                raise decode_answer.in_band(event)
            broken("an event has no type")
        delta = event.get("delta")
        if type(delta) is str:
            if not self._begun:
                broken("a delta came before response.created")
            self._characters += len(delta)
        elif kind in _FAILURES:
            raise decode_answer.in_band(event)
        elif kind in _ENDS or kind == "response.created":
            self._note(kind, event.get("response"))
        return kind

    def _note(self, kind: str, response: Any) -> None:
        if type(response) is not dict or self._begun is (kind == "response.created"):
            broken("response.created is not the one first event")
        self._begun = True
        self._model = upstream.model_name(response.get("model")) or self._model
        if kind in _ENDS:
            decode_answer.check_answer(response)
            self._response = response
            self.finished = True

    def _answer(self) -> Answer:
        characters = max(self._characters, decode_answer.characters_of(self._response.get("output")))
        return Answer(
            usage=decode_answer.usage_of(self._response, self._call, characters),
            stop_reason=decode_answer.stop_reason(self._response),
            model=self._model,
        )


class _Item:
    """An output item of a stream: what it is, what was told of it, and what of that waits for its turn."""

    __slots__ = ("done", "kind", "number", "told", "waiting")

    def __init__(self, kind: str, number: int) -> None:
        self.kind = kind
        self.number = number  # of a tool call, among the tool calls
        self.told: list[str] = []
        self.waiting: list[Event] = []
        self.done = False


class StreamDecoder(Stream):
    """A stream that crosses."""

    __slots__ = ("_calls", "_order", "_places", "_sound")

    def __init__(self, call: Call | None = None) -> None:
        super().__init__(call)
        self._calls = 0
        self._places: dict[int, _Item] = {}
        self._sound = True  # whether every tool's arguments are JSON
        self._order: list[_Item] = []  # items not yet told to their end; the first one is being told

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
            case "response.reasoning_summary_part.added" if self._item(event).told:
                yield from self._tell(self._item(event), ThinkingDelta(decode_answer.BETWEEN), decode_answer.BETWEEN)
            case _:
                make = _PIECES.get(kind)
                if make is not None:
                    item, piece = self._item(event), decode_answer.string(event, "delta")
                    if piece:
                        yield from self._tell(item, make(item, piece), piece)

    def _item(self, event: Mapping[str, Any]) -> _Item:
        place = event.get("output_index")
        item = self._places.get(place) if type(place) is int else None
        if item is None or item.done:
            broken("a piece came outside an output item")
        return item

    def _begin(self, event: Mapping[str, Any]) -> Iterator[Event]:
        given = event.get("item")
        if type(given) is not dict or given.get("type") not in ("message", "function_call", "reasoning"):
            broken("it has an item that was not asked for")
        place = event.get("output_index")
        if not self._begun or type(place) is not int or place in self._places:
            broken("its output items are out of order")
        item = self._places[place] = _Item(given["type"], self._calls)
        self._order.append(item)
        if item.kind == "function_call":
            decode_answer.check_call(given, self._call, cut=True)
            self._calls += 1
            yield from self._tell(item, ToolCallStart(item.number, *decode_answer.called(given)))

    def _tell(self, item: _Item, event: Event, piece: str = "") -> Iterator[Event]:
        """``event``, unless another item is being told: then it waits."""
        if piece:
            item.told.append(piece)
        if self._order and self._order[0] is item:
            yield event
        else:
            item.waiting.append(event)

    def _done(self, event: Mapping[str, Any]) -> Iterator[Event]:
        item, whole = self._item(event), event.get("item")
        if type(whole) is not dict or whole.get("type") != item.kind:
            broken("an item is not what it was begun as")
        if item.kind == "function_call":
            self._sound = self._sound and tools.is_arguments(decode_answer.string(whole, "arguments"))
        for last in _rest(item, whole):
            yield from self._tell(item, last)
        item.done = True
        while self._order and self._order[0].done:
            self._order.pop(0)
            if self._order:
                yield from self._order[0].waiting
                self._order[0].waiting.clear()

    def _end(self) -> Iterator[Event]:
        """What is still open was cut with the answer, or was lost on the way."""
        if self._order and self._response.get("status") == "completed":
            broken("it ended before one of its items")
        if not self._sound and self._response.get("status") == "completed":
            broken("a tool call's arguments are not a JSON object")
        for number, item in enumerate(self._order):
            if number:
                yield from item.waiting
            if item.kind == "function_call" and not item.done:
                yield ToolCallEnd(item.number)
        yield Finished(self._answer())


_PIECES: Mapping[str, Any] = {
    "response.output_text.delta": lambda item, piece: Delta(piece),
    "response.refusal.delta": lambda item, piece: RefusalDelta(piece),
    "response.reasoning_summary_text.delta": lambda item, piece: ThinkingDelta(piece),
    "response.reasoning_text.delta": lambda item, piece: ThinkingDelta(piece),
    "response.function_call_arguments.delta": lambda item, piece: ToolCallDelta(item.number, piece),
}


def _rest(item: _Item, whole: Mapping[str, Any]) -> Iterator[Event]:
    """The end of an item, and what of it was told only as a whole."""
    if item.kind == "function_call":
        arguments = decode_answer.string(whole, "arguments")
        if not item.told and arguments:
            yield ToolCallDelta(item.number, arguments)
        elif item.told and "".join(item.told) != arguments:
            broken("a piece of a tool's arguments is missing")
        yield ToolCallEnd(item.number)
        return
    for part in () if item.told else decode_answer.parts(whole):
        match part:
            case Text(text):
                yield Delta(text)
            case Refusal(text):
                yield RefusalDelta(text)
            case Thinking(text):
                yield ThinkingDelta(text)
    if item.kind == "reasoning":
        thought = decode_answer.thought(whole)
        if type(thought) is RedactedThinking and not item.told:
            yield thought
        elif thought is not None:
            signature = thought.data if type(thought) is RedactedThinking else thought.signature  # type: ignore[union-attr]
            yield ThinkingEnd(signature, NAME)
