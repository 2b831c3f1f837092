"""OpenAI Chat Completions, the upstream's streams as events.

Real servers send streams without usage, with the usage in the chunk of the finish
reason, with comments as keep-alives and with ``reasoning_content``: all of these are
accepted. A stream without ``[DONE]`` is rejected, and so is a ``[DONE]`` without a
finish reason: that answer was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from llm_service.core import identifiers
from llm_service.core.call import Call
from llm_service.core.content import TokenLogprob
from llm_service.core.events import (
    IDLE,
    Answer,
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
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from llm_service.formats import decoding, sse, tool_calls
from llm_service.formats.decoding import broken
from llm_service.formats.openai_chat.decode_answer import (
    STOP_REASONS,
    call_id,
    characters_of,
    check_arguments,
    choices_asked,
    in_band,
    logprobs_asked,
    read_logprobs,
    read_usage,
    stop_reason,
)


class ChunkStream(decoding.Stream):
    """What ``StreamDecoder`` and ``Passthrough`` both read from the chunks of one stream."""

    __slots__ = ("_call", "_characters", "_finish_reason", "_first", "_refused", "_tier", "_usage", "finished")

    def __init__(self, call: Call | None = None) -> None:
        self._call = call
        self._characters = 0
        self._finish_reason: str | None = None
        self._first: dict[str, Any] | None = None
        self._refused = False
        self._tier: Any = None
        self._usage: Any = None
        self.finished = False

    def _end(self) -> Answer:
        if self._finish_reason is None:
            broken("it ended without a finish_reason")
        self.finished = True
        return Answer(
            usage=read_usage(self._usage, self._characters, self._call, self._tier),
            stop_reason="refusal" if self._refused else STOP_REASONS.get(self._finish_reason, "other"),
            model=self._model(),
        )

    def _model(self) -> str:
        return identifiers.model_name(self._first.get("model")) if self._first else ""

    def _chunk(self, data: bytes) -> dict[str, Any]:
        """The chunk in ``data``. Its usage and its service tier are kept for the end of the stream."""
        chunk = decoding.parse_json(data)
        if chunk.get("error"):
            raise in_band(chunk)
        if type(chunk.get("choices")) is not list:
            if chunk.get("object") == "error":  # vLLM: the chunk itself is the error object
                raise in_band(chunk)
            broken("a chunk has no choices")
        usage = chunk.get("usage")
        if usage is not None:
            self._usage = usage
        tier = chunk.get("service_tier")
        if tier is not None:
            self._tier = tier
        return chunk


def read_finish_reason(choice: dict[str, Any]) -> str:
    reason = choice["finish_reason"]
    if type(reason) is not str:
        broken("a finish_reason is not a string")
    return reason


def read_delta(choice: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A choice and its delta. Some servers leave the delta out of the last chunk."""
    if type(choice) is not dict:
        broken("a choice is not an object")
    delta = choice.get("delta")
    if delta is None:
        delta = {}
    if type(delta) is not dict:
        broken("a delta is not an object")
    return choice, delta


def _text_of(delta: dict[str, Any], name: str) -> str:
    text = delta.get(name) or ""
    if type(text) is not str:
        broken("a delta's content is not a string")
    return text


class _OtherChoice:
    """What is known of a choice that is not the first."""

    __slots__ = ("finish_reason", "refused")

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.refused = False

    def stop_reason(self) -> StopReason:
        if self.finish_reason is None:
            broken("it ended without a finish_reason")
        return stop_reason(self.finish_reason, refused=self.refused, called=False)


class StreamDecoder(ChunkStream):
    """A stream that is translated: its choices as events, its tool calls one after the other.

    There is one choice unless the client asked for several. Tool calls and reasoning are read from the first one only.
    """

    __slots__ = ("_asked", "_calls", "_late", "_others", "_scored", "_thinking")

    def __init__(self, call: Call | None = None) -> None:
        super().__init__(call)
        self._asked = choices_asked(call)
        self._scored = logprobs_asked(call)
        self._others: dict[int, _OtherChoice] = {}  # by index
        self._calls: tool_calls.ToolCallSequencer | None = None
        self._late: list[Event] = []  # text that came in the middle of a tool call, to be reported after it
        self._thinking = False

    def feed_many(self, blocks: Iterable[bytes]) -> Iterator[Event]:
        for block in blocks:
            if self.finished:
                return
            _, data = sse.parse(block)
            if not data:
                if self._first is not None:
                    yield IDLE  # a comment: the vendor is alive, so the client gets a keep-alive too
            elif data.startswith(b"[DONE]"):
                yield from self._last_calls()
                yield Finished(self._end())
            else:
                yield from self._read(self._chunk(data))

    def _read(self, chunk: dict[str, Any]) -> Iterator[Event]:
        if self._first is None:
            self._first = chunk
            yield Started(model=self._model())
        for given in chunk["choices"]:
            choice, delta = read_delta(given)
            if choice.get("index", 0) != 0:
                yield from self._read_other(choice, delta)
                continue
            content = delta.get("content")
            if type(content) is str and content and len(delta) == 1 and not self._scored:  # most chunks
                self._characters += len(content)
                yield from self._say(Delta(content))
            elif delta or self._scored:
                self._characters += characters_of(delta)
                yield from self._read_delta(delta, self._logprobs(choice))
            if choice.get("finish_reason") is not None:
                self._finish_reason = read_finish_reason(choice)

    def _read_other(self, choice: dict[str, Any], delta: dict[str, Any]) -> Iterator[Event]:
        """The events of a piece of any choice but the first."""
        index = choice["index"]
        if type(index) is not int or not 0 < index < self._asked:
            broken("it has more than one choice" if self._asked == 1 else "it has more choices than were asked for")
        other = self._others.setdefault(index, _OtherChoice())
        self._characters += characters_of(delta)
        if delta.get("tool_calls") or delta.get("function_call"):
            broken("it calls a tool that it was not given")
        text, refusal = _text_of(delta, "content"), _text_of(delta, "refusal")
        logprobs = self._logprobs(choice)
        if other.finish_reason is not None and (text or refusal):
            broken("text came after the finish_reason")
        if text or logprobs:
            yield ChoiceDelta(text, logprobs, index)
        if refusal:
            other.refused = True
            yield RefusalDelta(refusal, index)
        if choice.get("finish_reason") is not None:
            other.finish_reason = read_finish_reason(choice)

    def _logprobs(self, choice: dict[str, Any]) -> tuple[TokenLogprob, ...]:
        return read_logprobs(choice.get("logprobs")) if self._scored else ()

    def _read_delta(self, delta: dict[str, Any], logprobs: tuple[TokenLogprob, ...]) -> Iterator[Event]:
        thought = delta.get("reasoning_content") or delta.get("reasoning")  # fields of other servers, not of OpenAI
        if thought and type(thought) is str and self._calls is None:
            self._thinking = True
            yield ThinkingDelta(thought)
        text, refusal = _text_of(delta, "content"), _text_of(delta, "refusal")
        if logprobs:
            yield from self._say(ChoiceDelta(text, logprobs))
        elif text:
            yield from self._say(Delta(text))
        if refusal:
            self._refused = True
            yield from self._say(RefusalDelta(refusal))
        calls = delta.get("tool_calls")
        if delta.get("function_call") or (calls and not decoding.has_tools(self._call)):
            broken("it calls a tool that it was not given")
        if calls:
            if type(calls) is not list:
                broken("its tool calls are not a list")
            yield from self._end_thinking()
            for call in calls:
                yield from self._read_call(call)

    def _say(self, piece: Delta | RefusalDelta) -> Iterator[Event]:
        if self._finish_reason is not None:
            broken("text came after the finish_reason")
        if self._thinking:
            yield from self._end_thinking()
        if self._calls is not None:
            yield from self._close_whole()
            if not self._calls.idle:
                self._late.append(piece)
                return
        yield piece

    def _end_thinking(self) -> Iterator[Event]:
        if self._thinking:
            self._thinking = False
            yield ThinkingEnd()

    def _read_call(self, call: Any) -> Iterator[Event]:
        if self._finish_reason is not None:
            broken("a tool call came after the finish_reason")
        function = call.get("function") if type(call) is dict else None
        if type(function) is not dict or type(index := call.get("index", 0)) is not int:
            broken("a tool call is not of a function, or has no index")
        calls = self._calls
        if calls is None:
            calls = self._calls = tool_calls.ToolCallSequencer()
        if index not in calls.order:
            name = function.get("name")
            if type(name) is not str or not name:
                broken("a tool call has no name")
            yield from self._close_whole()
            if calls.begin(index, call_id(call, len(calls.order), self._call), name):
                yield self._start(index)
        arguments = function.get("arguments")
        if arguments:
            if type(arguments) is not str:
                broken("a tool call's arguments are not a string")
            if calls.add(index, arguments):
                yield ToolCallDelta(calls.order[index], arguments)

    def _start(self, index: int) -> ToolCallStart:
        assert self._calls is not None
        id, name = self._calls.named(index)
        return ToolCallStart(self._calls.order[index], id, name)

    def _close_whole(self) -> Iterator[Event]:
        """End the open call if its arguments are complete, then all waiting calls whose arguments are complete."""
        calls = self._calls
        while calls is not None and (closed := calls.close_whole()) is not None:
            yield ToolCallEnd(calls.order[closed])
            yield from self._follow(calls)

    def _follow(self, calls: tool_calls.ToolCallSequencer) -> Iterator[Event]:
        following = calls.next()
        if following is not None:
            yield self._start(following)
            if arguments := calls.arguments(following):
                yield ToolCallDelta(calls.order[following], arguments)
        elif self._late:
            yield from self._late
            self._late.clear()

    def _last_calls(self) -> Iterator[Event]:
        """End the reasoning and the tool calls that are still open."""
        yield from self._end_thinking()
        calls = self._calls
        cut = self._finish_reason == "length"
        while calls is not None and (closed := calls.close()) is not None:
            check_arguments(calls.arguments(closed), cut=cut)
            yield ToolCallEnd(calls.order[closed])
            yield from self._follow(calls)

    def _end(self) -> Answer:
        answer = super()._end()
        reason = stop_reason(self._finish_reason or "", refused=self._refused, called=self._calls is not None)
        if not self._others:
            return replace(answer, stop_reason=reason)
        others = [Choice(index, other.stop_reason()) for index, other in sorted(self._others.items())]
        return replace(answer, stop_reason=reason, choices=(Choice(0, reason), *others))
