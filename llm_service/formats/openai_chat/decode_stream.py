"""OpenAI Chat Completions, the upstream's streams as events.

Real servers send streams without usage, with the usage in the chunk of the finish reason, with comments as keep-alives
and with ``reasoning_content``: all of these are accepted. A stream is complete if each of its choices has a finish
reason and ``[DONE]`` follows, or the proper end of its body. A ``[DONE]`` without a finish reason is rejected: that
answer was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from llm_service.core.call import Call
from llm_service.core.content import Refusal, Text, Thinking, TokenLogprob
from llm_service.core.events import (
    IDLE,
    Choice,
    ChoiceDelta,
    Delta,
    Event,
    Finished,
    RefusalDelta,
    Started,
    StopReason,
    ThinkingDelta,
    ThinkingEnd,
)
from llm_service.formats import decoding, sse
from llm_service.formats.decoding import broken
from llm_service.formats.lenient_json import HalfJoiner
from llm_service.formats.openai_chat import finish_reasons
from llm_service.formats.openai_chat.decode_answer import choices_asked, logprobs_asked, read_logprobs
from llm_service.formats.openai_chat.decode_calls import CallSequencer
from llm_service.formats.openai_chat.decode_chunk import ChunkStream, index_of
from llm_service.formats.openai_chat.decode_pieces import THOUGHTS, Piece, characters_of, pieces_of

# The kinds of text, each with the field that has it.
_FIELDS: Final[Mapping[type[Piece], str]] = {Text: "content", Refusal: "refusal", Thinking: THOUGHTS[0]}


class _Choice:
    """What is known of a choice so far."""

    __slots__ = ("called", "reason", "refused")

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self.called = self.refused = False

    def stop_reason(self) -> StopReason | None:
        known = self.reason
        return known and finish_reasons.stop_reason(known, refused=self.refused, called=self.called)


class StreamDecoder(ChunkStream):
    """A stream that is translated: its choices as events, its tool calls one after the other.

    There is one choice unless the client asked for several. Tool calls and reasoning are read from the first one only.
    """

    __slots__ = (
        "_asked",
        "_calls",
        "_careful",
        "_choice",
        "_joiner",
        "_late",
        "_others",
        "_scored",
        "_thinking",
    )

    _JOINED = frozenset({"content", "text", "refusal", "arguments", *THOUGHTS})

    def __init__(self, call: Call | None = None) -> None:
        super().__init__(call)
        self._asked = choices_asked(call)
        self._scored = logprobs_asked(call)
        self._choice = _Choice()
        self._others: dict[int, _Choice] = {}  # by index
        self._calls: CallSequencer | None = None
        self._late: list[Event] = []  # text that came in the middle of a tool call, to be reported after it
        self._thinking = False
        self._joiner: HalfJoiner | None = None  # once the stream has had half a character
        self._careful = self._scored  # whether a chunk of text may hold more than its text, or less

    def feed_many(self, blocks: Iterable[bytes]) -> Iterator[Event]:
        for block in blocks:
            if self.finished:
                return
            event, data = sse.parse(block)
            if not data:
                if self._begun:
                    yield IDLE  # a comment: the vendor is alive, so the client gets a keep-alive too
            elif data.startswith(b"[DONE]"):
                yield from self._finish(marked=True)
            elif self._begun:
                yield from self._read(self._chunk(data, event))
            elif events := list(self._read(self._chunk(data, event))):
                yield from self._begin(events)

    def end(self) -> Iterator[Event]:
        if not self.finished and self._choice.reason is not None:
            yield from self._finish(marked=False)

    def _begin(self, events: list[Event]) -> Iterator[Event]:
        """``events``, after ``Started`` if they are the first ones: until then another target can be asked."""
        if not self._begun:
            self._begun = True
            yield Started(model=self._model())
        yield from events

    def _read(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        for choice in chunk["choices"]:
            if type(choice) is not dict:
                broken("a choice is not an object")
            delta = choice.get("delta")
            if type(delta) is not dict:
                delta = self._message_of(choice)
            if choice.get("index"):
                yield from self._read_other(chunk, choice, delta)
                continue
            content = delta.get("content")
            if type(content) is str and content and len(delta) == 1 and not self._careful:  # most chunks
                self._characters += len(content)
                if self._thinking or self._calls is not None or self._choice.reason is not None:
                    yield from self._say(Delta(content))
                else:
                    yield Delta(content)
            elif len(delta) == 1 and "tool_calls" in delta:
                self._characters += characters_of(delta)
                if delta["tool_calls"]:
                    yield from self._read_calls(delta["tool_calls"])
            elif delta or self._scored:
                self._characters += characters_of(delta)
                yield from self._read_delta(delta, self._logprobs(choice))
            if choice.get("finish_reason") or "error" in choice:
                self._end_choice(self._choice, chunk, choice)

    def _end_choice(self, known: _Choice, chunk: Mapping[str, Any], choice: Mapping[str, Any]) -> None:
        self._note_last_usage(chunk, choice)
        known.reason = finish_reasons.read(choice) or known.reason

    def _leniently(self, data: bytes) -> Any:
        self._joiner = self._joiner or HalfJoiner()
        self._careful = True
        return super()._leniently(data)

    def _pieces(self, delta: Mapping[str, Any], index: int) -> Iterator[Piece]:
        """The pieces of text of a delta, with the halves of characters joined."""
        joiner = self._joiner
        for piece in pieces_of(delta):
            text = piece.text if joiner is None else joiner.join((index, type(piece)), piece.text)
            if text:
                yield replace(piece, text=text)

    def _read_other(
        self, chunk: Mapping[str, Any], choice: Mapping[str, Any], delta: Mapping[str, Any]
    ) -> Iterator[Event]:
        """The events of a piece of any choice but the first."""
        index = index_of(choice)
        if not 0 < index < self._asked:
            broken("it has more than one choice" if self._asked == 1 else "it has more choices than were asked for")
        if delta.get("tool_calls") or delta.get("function_call"):
            broken("it calls a tool that it was not given")
        other = self._others.setdefault(index, _Choice())
        self._characters += characters_of(delta)
        logprobs = self._logprobs(choice)
        for piece in self._pieces(delta, index):
            if type(piece) is Text:
                other.reason = None
                yield ChoiceDelta(piece.text, logprobs, index)
                logprobs = ()
            elif type(piece) is Refusal:
                other.reason, other.refused = None, True
                yield RefusalDelta(piece.text, index)
        if logprobs:
            yield ChoiceDelta("", logprobs, index)
        if choice.get("finish_reason") or "error" in choice:
            self._end_choice(other, chunk, choice)

    def _logprobs(self, choice: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
        return read_logprobs(choice.get("logprobs")) if self._scored else ()

    def _read_delta(self, delta: Mapping[str, Any], logprobs: tuple[TokenLogprob, ...]) -> Iterator[Event]:
        for piece in self._pieces(delta, 0):
            self._choice.reason = None  # some servers send a finish_reason in every chunk
            if type(piece) is Thinking:
                if self._calls is None:
                    self._thinking = True
                    yield ThinkingDelta(piece.text)
            elif type(piece) is Refusal:
                self._choice.refused = True
                yield from self._say(RefusalDelta(piece.text))
            elif logprobs:
                yield from self._say(ChoiceDelta(piece.text, logprobs))
                logprobs = ()
            else:
                yield from self._say(Delta(piece.text))
        if logprobs:
            yield from self._say(ChoiceDelta("", logprobs))
        calls, older = delta.get("tool_calls"), delta.get("function_call")
        if calls or older:
            yield from self._read_calls(calls or [{"function": older}])

    def _read_calls(self, given: Any) -> Iterator[Event]:
        if self._calls is None:
            if not decoding.has_tools(self._call):
                broken("it calls a tool that it was not given")
            self._calls = CallSequencer(self._call)
        if self._thinking:
            yield from self._end_thinking()
        self._choice.called, self._choice.reason = True, None
        yield from self._calls.feed(given)

    def _say(self, piece: Delta | RefusalDelta) -> Iterator[Event]:
        self._choice.reason = None
        if self._thinking:
            yield from self._end_thinking()
        if self._calls is not None:
            yield from self._calls.end_whole()
            if not self._calls.idle:
                self._late.append(piece)
                return
            yield from self._take_late()
        yield piece

    def _take_late(self) -> list[Event]:
        late, self._late = self._late, []
        return late

    def _end_thinking(self) -> Iterator[Event]:
        if self._thinking:
            self._thinking = False
            yield ThinkingEnd()

    def _last(self, *, cut: bool) -> Iterator[Event]:
        """What is left at the end: half a character, the end of the reasoning and of the tool calls."""
        if self._joiner is not None:
            for kind, field in _FIELDS.items():
                if half := self._joiner.rest((0, kind)):
                    yield from self._read_delta({field: half}, ())
        yield from self._end_thinking()
        if self._calls is not None:
            yield from self._calls.end(cut=cut)
            yield from self._take_late()

    def _finish(self, *, marked: bool) -> Iterator[Event]:
        choices = {0: self._choice, **dict(sorted(self._others.items()))}
        answer = self._answer({index: choice.stop_reason() for index, choice in choices.items()}, marked=marked)
        if self._others:
            ended = [Choice(index, choice.stop_reason()) for index, choice in choices.items()]
            answer = replace(answer, choices=tuple(ended))
        events = [*self._last(cut=self._choice.reason == "max_tokens"), Finished(answer)]
        self.finished = True
        yield from self._begin(events)
