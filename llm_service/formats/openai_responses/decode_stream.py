"""OpenAI Responses, the upstream's answers read for crossing: plain ones and streams.

Items may be told interleaved; here one comes after the other, in the order in
which they began. What is told twice, piece by piece and as a whole, must agree
where a lost piece would do harm: in the arguments of a tool.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm_service.core.call import Call
from llm_service.core.content import Part, RedactedThinking, Refusal, Text, Thinking, ToolCall
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
from llm_service.core.identifiers import model_name
from llm_service.formats import decoding as upstream
from llm_service.formats import tool_calls as tools
from llm_service.formats.decoding import broken
from llm_service.formats.openai_responses.decode_answer import characters_of, check_answer, items, stop_reason, usage_of
from llm_service.formats.openai_responses.decode_request import own_signature
from llm_service.formats.openai_responses.passthrough import Stream
from llm_service.formats.openai_responses.schema import NAME

# The text of a reasoning summary's parts, put together.
_BETWEEN = "\n\n"


def read_answer(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer. Raises UpstreamBroken when it is none, or has something that was not asked for."""
    check_answer(body)
    if body["status"] not in ("completed", "incomplete"):
        broken("it is not finished")
    for item in body["output"]:
        if item.get("type") == "function_call":
            _check_call(item, call, cut=body["status"] == "incomplete")
    return Answer(
        usage=usage_of(body, call, characters_of(body["output"])),
        stop_reason=stop_reason(body),
        parts=tuple(part for item in body["output"] for part in _parts(item)),
        model=model_name(body.get("model")),
    )


def _parts(item: Mapping[str, Any]) -> Iterator[Part]:
    match item.get("type"):
        case "message":
            for part in items(item.get("content")):
                if part.get("type") == "refusal":
                    yield Refusal(_string(part, "refusal"))
                elif text := _string(part, "text"):
                    yield Text(text)
        case "function_call":
            yield ToolCall(*_called(item), _string(item, "arguments"))
        case "reasoning":
            thought = _thought(item)
            if thought is not None:
                yield thought
        case _:
            broken("it has an item that was not asked for")


def _check_call(item: Mapping[str, Any], call: Call | None, *, cut: bool) -> None:
    """Raises UpstreamBroken for a tool that was not offered, and for arguments that are no JSON object unless
    the answer was ``cut`` in them."""
    if not upstream.has_tools(call):
        broken("it calls a tool that it was not given")
    if not cut and not tools.is_arguments(_string(item, "arguments")):
        broken("a tool call's arguments are not a JSON object")


def _called(item: Mapping[str, Any]) -> tuple[str, str]:
    id, name = _string(item, "call_id"), _string(item, "name")
    if not id or not name:
        broken("a tool call has no id or no name")
    return id, name


def _string(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if type(value) is not str:
        broken(f"a {name} is not a string")
    return value


def _thought(item: Mapping[str, Any]) -> Thinking | RedactedThinking | None:
    """A reasoning item; without a summary only OpenAI can read it."""
    texts = [_string(part, "text") for part in (*items(item.get("summary")), *items(item.get("content")))]
    encrypted = item.get("encrypted_content")
    signature = own_signature(item.get("id"), encrypted) if type(encrypted) is str and encrypted else ""
    if any(texts):
        return Thinking(_BETWEEN.join(texts), signature, NAME)
    return RedactedThinking(signature, NAME) if signature else None


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
                yield from self._tell(self._item(event), ThinkingDelta(_BETWEEN), _BETWEEN)
            case _:
                make = _PIECES.get(kind)
                if make is not None:
                    item, piece = self._item(event), _string(event, "delta")
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
            _check_call(given, self._call, cut=True)
            self._calls += 1
            yield from self._tell(item, ToolCallStart(item.number, *_called(given)))

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
            self._sound = self._sound and tools.is_arguments(_string(whole, "arguments"))
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
        arguments = _string(whole, "arguments")
        if not item.told and arguments:
            yield ToolCallDelta(item.number, arguments)
        elif item.told and "".join(item.told) != arguments:
            broken("a piece of a tool's arguments is missing")
        yield ToolCallEnd(item.number)
        return
    for part in () if item.told else _parts(whole):
        match part:
            case Text(text):
                yield Delta(text)
            case Refusal(text):
                yield RefusalDelta(text)
            case Thinking(text):
                yield ThinkingDelta(text)
    if item.kind == "reasoning":
        thought = _thought(whole)
        if type(thought) is RedactedThinking and not item.told:
            yield thought
        elif thought is not None:
            signature = thought.data if type(thought) is RedactedThinking else thought.signature  # type: ignore[union-attr]
            yield ThinkingEnd(signature, NAME)
