"""OpenAI Chat Completions, the client's side: the events of an answer as chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import orjson

from llm_service.core import errors
from llm_service.core.call import Call
from llm_service.core.content import RedactedThinking
from llm_service.core.events import (
    Answer,
    ChoiceDelta,
    Delta,
    Event,
    Finished,
    RefusalDelta,
    Relay,
    Started,
    ThinkingDelta,
    ThinkingEnd,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from llm_service.formats import reasoning, sse
from llm_service.formats.openai_chat.encode_answer import (
    finish_reason_of,
    logprobs_object,
    service_tier_of,
    thought,
    usage_object,
    with_cost,
)
from llm_service.formats.openai_chat.encode_tool_calls import CallWriter
from llm_service.formats.openai_chat.errors import error
from llm_service.formats.openai_chat.schema import KEEP_ALIVE, THINKING, wants_usage

_NOTHING: Mapping[str, str] = {}
DONE = sse.frame(b"[DONE]")


class StreamEncoder:
    """One stream as ``chat.completion.chunk`` events."""

    KEEP_ALIVE: ClassVar[bytes] = KEEP_ALIVE
    __slots__ = (
        "_after",
        "_before",
        "_call",
        "_calls",
        "_model",
        "_refused",
        "_said",
        "_thoughts",
        "_usage",
        "_verbatim",
    )

    def __init__(self, call: Call) -> None:
        self._call = call
        self._model = call.model
        # With include_usage every chunk but the last has a null as its usage.
        self._usage: dict[str, Any] = {"usage": None} if wants_usage(call.body) else {}
        self._verbatim = False
        self._calls = CallWriter(call)
        self._refused = self._said = False
        self._thoughts = 0  # how many blocks of reasoning have begun
        self._before, self._after = b"", b""  # a chunk's bytes before and after its text

    def feed(self, event: Event) -> bytes:
        """The bytes for ``event``; empty for events that the client does not see."""
        if type(event) is Relay:
            return event.data
        if type(event) is Delta:  # most events: only the text is new
            self._said = True
            return self._before + sse.json_text(event.text) + self._after
        return self._feed_rare(event)

    def _feed_rare(self, event: Event) -> bytes:
        match event:
            case ToolCallStart() | ToolCallDelta() | ToolCallEnd():
                delta = self._calls.delta(event)
                return self._chunk(delta) if delta else b""
            case ChoiceDelta(text, logprobs):
                self._said = self._said or bool(text)
                return self._chunk({"content": text}, logprobs=logprobs_object(logprobs))
            case RefusalDelta(text):
                self._refused = True
                return self._chunk({"refusal": text})
            case ThinkingDelta(text):
                return self._thinking_chunk({"type": "thinking", "thinking": text})
            case ThinkingEnd(signature, vendor):
                chunk = self._thinking_chunk({"type": "thinking", "signature": reasoning.sign(signature, vendor)})
                self._thoughts += 1
                return chunk
            case RedactedThinking():
                self._thoughts += 1
                return self._thinking_chunk(thought(event), self._thoughts - 1)
            case Started():
                return self._opening(event)
            case Finished(answer, tail):
                return _priced(tail, answer.cost_nanousd) if self._verbatim else self._closing(answer)
        return b""

    def error(self, failure: errors.ServiceError, request_id: str = "") -> bytes:
        """The failure as the last event of the stream. No ``[DONE]`` follows it."""
        return sse.json_frame(error(failure, request_id or self._call.request_id))

    def _opening(self, started: Started) -> bytes:
        self._model = started.model or self._model
        self._verbatim = started.verbatim
        if started.verbatim:
            return b""
        self._before, self._after = self._chunk({"content": ""}).split(b'"content":""')
        self._before += b'"content":'
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def _closing(self, answer: Answer) -> bytes:
        explained = self._refused and not self._said
        reason = finish_reason_of(answer.stop_reason, explained=explained, older=self._calls.older)
        closing = self._chunk({}, reason, service_tier=service_tier_of(answer))
        if self._usage:
            usage = usage_object(answer.usage, answer.cost_nanousd)
            closing += sse.json_frame({**self._head(), "choices": [], "usage": usage})
        return closing + DONE

    def _head(self) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._call.id}",
            "object": "chat.completion.chunk",
            "created": self._call.created,
            "model": self._model,
            "system_fingerprint": None,
        }

    def _thinking_chunk(self, block: dict[str, Any], index: int | None = None) -> bytes:
        return self._chunk({THINKING: [{"index": self._thoughts if index is None else index, **block}]})

    def _chunk(
        self,
        delta: Mapping[str, Any],
        finish_reason: str | None = None,
        logprobs: Mapping[str, Any] | None = None,
        service_tier: Mapping[str, str] = _NOTHING,
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return sse.json_frame({**self._head(), **service_tier, "choices": [choice], **self._usage})


def _priced(tail: bytes, cost_nanousd: int | None) -> bytes:
    """The end of a verbatim stream, with the cost in its usage chunk if it has one."""
    if tail == DONE:
        return tail
    block, blank, rest = tail.partition(b"\n\n")
    _, data = sse.parse(block + blank)
    chunk = orjson.loads(data)
    return sse.json_frame(with_cost(chunk, cost_nanousd)) + rest
