"""Anthropic Messages, the upstream's side: a stream as events, for a client of another format.

A stream is complete only if a ``message_stop`` follows a ``stop_reason``. Events of unknown types are accepted
anywhere, as Anthropic asks of its clients. Known events in a wrong order mean that a part of the stream was lost on its
way from the vendor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from llm_service.core import identifiers
from llm_service.core.call import Call
from llm_service.core.content import RedactedThinking
from llm_service.core.events import (
    IDLE,
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
from llm_service.core.usage import Usage
from llm_service.formats import decoding, tool_calls
from llm_service.formats.anthropic_messages.decode_answer import (
    STOP_REASONS,
    characters_of,
    explanation,
    in_band,
    read_usage,
    stop_reason,
    stop_sequence,
)
from llm_service.formats.anthropic_messages.schema import NAME
from llm_service.formats.decoding import broken


class Stream(decoding.Stream):
    """What ``StreamDecoder`` and ``Passthrough`` both read from the events of one stream: its order, end and usage."""

    __slots__ = (
        "_begun",
        "_call",
        "_characters",
        "_model",
        "_open",
        "_opening",
        "_stop_reason",
        "_stop_sequence",
        "_usage",
        "finished",
    )

    def __init__(self, call: Call | None = None) -> None:
        self._call = call
        self._begun = False
        self._model = ""
        self._open = 0  # the number of content blocks that started and did not stop yet
        self._characters = 0
        self._opening = Usage()  # as reported by message_start
        self._usage: dict[str, Any] = {}
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None
        self.finished = False

    def _note_event(self, event: dict[str, Any]) -> str:
        """Note what ``event`` says about the stream, and return its type."""
        kind = event.get("type")
        if kind == "content_block_delta":
            delta = event.get("delta")
            if self._open < 1 or type(delta) is not dict:
                broken("a delta came outside a content block")
            text = delta.get("text")
            self._characters += len(text) if type(text) is str else characters_of(delta)
        elif kind == "content_block_start":
            if not self._begun:
                broken("a content block came before message_start")
            self._open += 1
        elif kind == "content_block_stop":
            self._open -= 1
            if self._open < 0:
                broken("a content block ended that had not started")
        elif kind == "message_start":
            self._start(event.get("message"))
        elif kind == "message_delta":
            self._close(event)
        elif kind == "message_stop":
            if self._stop_reason is None:
                broken("it ended without a stop_reason")
            self.finished = True
        elif kind == "error":
            raise in_band(event)
        elif type(kind) is not str:
            broken("an event has no type")
        return kind

    def _start(self, message: Any) -> None:
        if self._begun or type(message) is not dict:
            broken("message_start is not the first event, or came twice")
        self._begun = True
        self._model = identifiers.model_name(message.get("model"))
        self._note_usage(message.get("usage"))
        self._opening = read_usage(self._usage, 0, None)
        # message_start only counts the first token of the output. If no message_delta reports the whole output, it is
        # estimated.
        self._usage.pop("output_tokens", None)

    def _close(self, event: Mapping[str, Any]) -> None:
        delta = event.get("delta")
        if not self._begun or type(delta) is not dict:
            broken("a message_delta came out of order")
        self._note_usage(event.get("usage"))
        reason = delta.get("stop_reason")
        if reason is not None:
            if type(reason) is not str:
                broken("a stop_reason is not a string")
            self._stop_reason, self._stop_sequence = reason, stop_sequence(delta)

    def _note_usage(self, usage: Any) -> None:
        """Counts in message_delta are cumulative: they replace those in message_start, which are never higher."""
        if type(usage) is dict:
            self._usage = decoding.merge_counts(self._usage, usage)

    def _started(self, *, verbatim: bool) -> Started:
        return Started(model=self._model, usage=self._opening, verbatim=verbatim)

    def _counted(self) -> Usage:
        return read_usage(self._usage, self._characters, self._call)

    def reported(self) -> Usage | None:
        return self._counted() if decoding.has_counts(self._usage) else None

    def _answer(self) -> Answer:
        return Answer(
            usage=self._counted(),
            stop_reason=STOP_REASONS.get(self._stop_reason or "", "other"),
            stop_sequence=self._stop_sequence,
            model=self._model,
        )


class StreamDecoder(Stream):
    """A stream for a client of another format: its content blocks as events."""

    __slots__ = ("_arguments", "_blocks", "_calls", "_kind", "_signature", "_valid_arguments")

    def __init__(self, call: Call | None = None) -> None:
        super().__init__(call)
        self._arguments: list[str] = []  # the pieces of the open tool call's input
        self._blocks = 0
        self._calls = 0  # the number of tool calls that ended
        self._kind = ""  # the type of the open block
        self._signature = ""
        self._valid_arguments = True  # whether the input of every tool call is a JSON object

    def _read(self, event: dict[str, Any]) -> Iterator[Event]:
        match self._note_event(event):
            case "content_block_delta":
                piece = self._piece(event)
                if piece is not None:
                    yield piece
            case "content_block_start":
                yield from self._open_block(event)
            case "content_block_stop":
                if event.get("index") != self._blocks - 1:
                    broken("its content blocks are out of order")
                yield from self._close_block()
            case "message_start":
                yield self._started(verbatim=False)
            case "message_delta":
                if self._stop_reason is not None and self._open:
                    # The vendor does not end a tool call that max_tokens cut off.
                    self._open = 0
                    yield from self._close_block()
                if self._stop_reason == "refusal" and (text := explanation(event["delta"])):
                    yield RefusalDelta(text)
            case "message_stop":
                self._check_end()
                yield Finished(self._answer())
            case "ping" if self._begun:
                yield IDLE  # the vendor is alive, so the client gets a sign of life too

    def _check_end(self) -> None:
        """Raises UpstreamBroken if a tool call is not whole and the stop_reason does not say that it was cut.

        Raises an UpstreamError for a stop_reason that other formats cannot express.
        """
        if stop_reason(self._stop_reason or "") not in ("max_tokens", "refusal") and not self._valid_arguments:
            broken("a tool call's input is not a JSON object")

    def _open_block(self, event: Mapping[str, Any]) -> Iterator[Event]:
        """The events of a block that starts. Most blocks start without content."""
        block = event.get("content_block")
        if type(block) is not dict or self._open > 1 or event.get("index") != self._blocks:
            broken("its content blocks are out of order")
        if self._stop_reason is not None:
            broken("a content block came after the stop_reason")
        self._blocks += 1
        self._kind = str(block.get("type"))
        match block:
            case {"type": "text", "text": str(text)}:
                self._characters += len(text)
                if text:
                    yield Delta(text)
            case {"type": "tool_use", "id": str(id), "name": str(name)} if id and name:
                decoding.check_calls(self._call, self._calls + 1)
                yield ToolCallStart(self._calls, id, name)
                if given := block.get("input"):  # some servers send the whole input at once
                    self._arguments.append(orjson.dumps(given).decode())
                    yield ToolCallDelta(self._calls, self._arguments[-1])
            case {"type": "thinking"}:
                signature = block.get("signature")
                self._signature = signature if type(signature) is str else ""
                thought = block.get("thinking")
                if type(thought) is str and thought:
                    self._characters += len(thought)
                    yield ThinkingDelta(thought)
            case {"type": "redacted_thinking", "data": str(data)}:
                yield RedactedThinking(data, NAME)
            case _:
                broken("it has a content block that has no counterpart in the client's format")

    def _close_block(self) -> Iterator[Event]:
        if self._kind == "tool_use":
            if not tool_calls.is_arguments("".join(self._arguments)):
                self._valid_arguments = False
            self._arguments.clear()
            yield ToolCallEnd(self._calls)
            self._calls += 1
        elif self._kind == "thinking":
            yield ThinkingEnd(self._signature, NAME)
        self._kind = ""

    def _piece(self, event: Mapping[str, Any]) -> Event | None:
        """The event of a delta; None for an empty one, a signature and a type that is not known."""
        delta = event["delta"]
        if self._stop_reason is not None or event.get("index") != self._blocks - 1:
            broken("its content blocks are out of order")
        kind = delta.get("type")
        known = _PIECES.get(kind) if type(kind) is str else None
        if known is None:
            return None  # a type that this service does not know yet
        block, name = known
        text = delta.get(name)
        if type(text) is not str or self._kind != block:
            broken("a delta came outside a block of its type")
        if kind == "signature_delta":
            self._signature += text
        elif not text:
            return None
        elif kind == "text_delta":
            return Delta(text)
        elif kind == "input_json_delta":
            self._arguments.append(text)
            return ToolCallDelta(self._calls, text)
        else:
            return ThinkingDelta(text)
        return None


# For each type of delta, the type of its block and the field that holds its text.
_PIECES: Mapping[Any, tuple[str, str]] = {
    "text_delta": ("text", "text"),
    "input_json_delta": ("tool_use", "partial_json"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("thinking", "signature"),
}
