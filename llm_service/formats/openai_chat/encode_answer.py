"""OpenAI Chat Completions, the client's side: replies and chunks out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import orjson

from llm_service.core import errors
from llm_service.core.call import Call
from llm_service.core.content import RedactedThinking, Refusal, Text, Thinking, ToolCall
from llm_service.core.events import (
    Answer,
    Delta,
    Event,
    Finished,
    RefusalDelta,
    Relay,
    Started,
    StopReason,
    ThinkingDelta,
    ThinkingEnd,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from llm_service.core.money import as_dollars
from llm_service.core.usage import Usage
from llm_service.formats import reasoning, sse
from llm_service.formats.openai_chat import errors as chat_errors
from llm_service.formats.openai_chat.decode_messages import THINKING
from llm_service.formats.openai_chat.decode_request import KEEP_ALIVE, wants_usage
from llm_service.formats.openai_chat.encode_tool_calls import CallWriter

DONE = sse.frame(b"[DONE]")

FINISH_REASONS: Mapping[str | None, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def usage_object(usage: Usage, cost_nanousd: int | None) -> dict[str, Any]:
    """The vendor's usage with two fields of ours: ``cost_usd``, and ``exact`` when the counts are estimates."""
    written = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "cost_usd": as_dollars(cost_nanousd),
    }
    return written if usage.exact else {**written, "exact": False}


def write_answer(call: Call, answer: Answer) -> dict[str, Any]:
    """The reply's JSON object; a verbatim one is the vendor's own with ``usage.cost_usd`` added."""
    if answer.body is not None:
        return _with_cost(answer.body, answer.cost_nanousd)
    said = [part.text for part in answer.parts if type(part) is Text]
    refused = [part.text for part in answer.parts if type(part) is Refusal]
    calls = [part for part in answer.parts if type(part) is ToolCall]
    thoughts = [part for part in answer.parts if isinstance(part, Thinking | RedactedThinking)]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(said) if said or not (calls or refused) else None,
        "refusal": "".join(refused) if refused else None,
        "annotations": [],
    }
    told = CallWriter(call)
    message |= told.message(calls)
    if thoughts:
        message[THINKING] = [thought(part) for part in thoughts]
    finish_reason = finish_reason_of(answer.stop_reason, explained=bool(refused and not said), older=told.older)
    return {
        "id": f"chatcmpl-{call.id}",
        "object": "chat.completion",
        "created": call.created,
        "model": answer.model or call.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
        "usage": usage_object(answer.usage, answer.cost_nanousd),
        **_tier(answer),
        "system_fingerprint": None,
    }


def finish_reason_of(reason: StopReason | None, *, explained: bool, older: bool) -> str:
    """A refusal in the model's words is a plain stop there; one without, or in the middle of an answer, is the
    filter's: what was said until then must not look whole. A call of the ``older`` form has a reason of its own."""
    if older and reason == "tool_use":
        return "function_call"
    return "stop" if explained and reason == "refusal" else FINISH_REASONS.get(reason, "stop")


def thought(part: Thinking | RedactedThinking) -> dict[str, Any]:
    """Reasoning in the field of ours that carries it, to be sent back as it is."""
    if isinstance(part, Thinking):
        signature = reasoning.sign(part.signature, part.vendor)
        return {"type": "thinking", "thinking": part.text, "signature": signature}
    return {"type": "redacted_thinking", "data": part.data}


def _tier(answer: Answer) -> dict[str, str]:
    """How it was processed, where the vendor's word for it is one of OpenAI's."""
    tier = answer.usage.tier or "default"
    return {"service_tier": tier} if tier in ("default", "flex", "scale", "priority", "fast") else {}


def _with_cost(body: Mapping[str, Any], cost_nanousd: int | None) -> dict[str, Any]:
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return dict(body)
    return {**body, "usage": {**usage, "cost_usd": as_dollars(cost_nanousd)}}


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
        # With include_usage every chunk but the last carries a null.
        self._usage: dict[str, Any] = {"usage": None} if wants_usage(call.body) else {}
        self._verbatim = False
        self._calls = CallWriter(call)
        self._refused = self._said = False
        self._thoughts = 0  # runs of reasoning so far
        self._before, self._after = b"", b""  # a chunk around its text

    def feed(self, event: Event) -> bytes:
        """The bytes for ``event``; none for those the client does not see."""
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
        """The failure as the stream's last event: no ``[DONE]`` follows."""
        return sse.json_frame(chat_errors.error(failure, request_id or self._call.request_id))

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
        closing = self._chunk({}, reason, **_tier(answer))
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

    def _chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None, **facts: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return sse.json_frame({**self._head(), **facts, "choices": [choice], **self._usage})


def _priced(tail: bytes, cost_nanousd: int | None) -> bytes:
    """The end of a verbatim stream, the cost added to its usage chunk if it has one."""
    if tail == DONE:
        return tail
    block, blank, rest = tail.partition(b"\n\n")
    _, data = sse.parse(block + blank)
    chunk = orjson.loads(data)
    return sse.json_frame(_with_cost(chunk, cost_nanousd)) + rest
