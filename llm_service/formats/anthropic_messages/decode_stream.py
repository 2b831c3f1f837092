"""Anthropic Messages, the upstream's streams: read for crossing, tapped for relaying.

A stream is whole only with a ``message_stop`` after a ``stop_reason``. Events of
unknown types are borne anywhere, as Anthropic asks of its clients; known ones
out of order mean that something between the vendor and us lost a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

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
from llm_service.formats import decoding
from llm_service.formats.anthropic_messages.decode_answer import (
    STOP_REASONS,
    characters_of,
    explanation,
    in_band,
    read_usage,
    stop_sequence,
)
from llm_service.formats.anthropic_messages.schema import NAME
from llm_service.formats.decoding import broken


class Stream(decoding.Stream):
    """What ``Reader`` and ``Passthrough`` both learn from the events of one stream."""

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
        self._open = 0  # content blocks begun and not stopped
        self._characters = 0
        self._opening = Usage()  # as told by message_start
        self._usage: dict[str, Any] = {}
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None
        self.finished = False

    def _follow(self, event: dict[str, Any]) -> str:
        """Take note of ``event``; its type."""
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
                broken("a content block ended that had not begun")
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
            broken("message_start is not the one first event")
        self._begun = True
        self._model = decoding.model_name(message.get("model"))
        self._note_usage(message.get("usage"))
        self._opening = self._counted()
        # It only counts the first piece: without a message_delta's word the output is estimated.
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
        """What message_delta tells is cumulative and wins over message_start."""
        if type(usage) is dict:
            self._usage.update((name, value) for name, value in usage.items() if value is not None)

    def _started(self, *, verbatim: bool) -> Started:
        return Started(model=self._model, usage=self._opening, verbatim=verbatim)

    def _counted(self) -> Usage:
        return read_usage(self._usage, self._characters, self._call)

    def _answer(self) -> Answer:
        return Answer(
            usage=self._counted(),
            stop_reason=STOP_REASONS.get(self._stop_reason or "", "other"),
            stop_sequence=self._stop_sequence,
            model=self._model,
        )


class StreamDecoder(Stream):
    """A stream that crosses: its blocks as events."""

    __slots__ = ("_blocks", "_calls", "_kind", "_signature")

    def __init__(self, call: Call | None = None) -> None:
        super().__init__(call)
        self._blocks = 0
        self._calls = 0  # of tools, so far
        self._kind = ""  # of the open block
        self._signature = ""

    def _read(self, event: dict[str, Any]) -> Iterator[Event]:
        match self._follow(event):
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
                    # A call that max_tokens cut has no end of its own.
                    self._open = 0
                    yield from self._close_block()
                if self._stop_reason == "refusal" and (words := explanation(event["delta"])):
                    yield RefusalDelta(words)
            case "message_stop":
                yield Finished(self._answer())
            case "ping" if self._begun:
                yield IDLE  # the vendor is alive, and the client should hear so

    def _open_block(self, event: Mapping[str, Any]) -> Iterator[Event]:
        """A block begins: its first piece, usually none."""
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
                if given := block.get("input"):  # whole at once, as some servers have it
                    yield ToolCallDelta(self._calls, orjson.dumps(given).decode())
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
            yield ToolCallEnd(self._calls)
            self._calls += 1
        elif self._kind == "thinking":
            yield ThinkingEnd(self._signature, NAME)
        self._kind = ""

    def _piece(self, event: Mapping[str, Any]) -> Event | None:
        delta = event["delta"]
        if self._stop_reason is not None or event.get("index") != self._blocks - 1:
            broken("its content blocks are out of order")
        kind = delta.get("type")
        wanted = _PIECES.get(kind) if type(kind) is str else None
        if wanted is None:
            return None  # of a kind nobody knows yet
        block, name = wanted
        text = delta.get(name)
        if type(text) is not str or self._kind != block:
            broken("a piece came outside a block of its kind")
        if kind == "signature_delta":
            self._signature += text
        elif not text:
            return None
        elif kind == "text_delta":
            return Delta(text)
        elif kind == "input_json_delta":
            return ToolCallDelta(self._calls, text)
        else:
            return ThinkingDelta(text)
        return None


# The deltas by their type: which block they belong to and where they hold their text.
_PIECES: Mapping[Any, tuple[str, str]] = {
    "text_delta": ("text", "text"),
    "input_json_delta": ("tool_use", "partial_json"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("thinking", "signature"),
}
