"""Anthropic Messages, the client's side: streams for the client."""

from __future__ import annotations

from typing import Any, ClassVar

from llm_service.core.call import Call
from llm_service.core.content import RedactedThinking
from llm_service.core.errors import ServiceError
from llm_service.core.events import (
    Answer,
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
from llm_service.core.usage import Usage
from llm_service.formats import reasoning, sse
from llm_service.formats.anthropic_messages import errors
from llm_service.formats.anthropic_messages.encode_answer import stop_fields, usage_object
from llm_service.formats.anthropic_messages.schema import KEEP_ALIVE


def event_frame(kind: str, **fields: Any) -> bytes:
    """One event. The SDKs ignore data that has no ``event:`` line."""
    return sse.json_frame({"type": kind, **fields}, kind.encode())


_PING = event_frame("ping")


class StreamEncoder:
    """One stream as Anthropic's events: content blocks one after the other, with indexes from 0."""

    KEEP_ALIVE: ClassVar[bytes] = KEEP_ALIVE
    __slots__ = ("_before_text", "_blocks", "_call", "_kind", "_refusal", "_verbatim")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._kind = ""  # the type of the open block
        self._blocks = 0  # the number of blocks that started
        self._before_text = b""  # the bytes of a text delta up to its text
        self._refusal: list[str] = []
        self._verbatim = False

    def feed(self, event: Event) -> bytes:
        """The bytes for ``event``; b"" for events that the client does not see."""
        if type(event) is Relay:
            return event.data
        if type(event) is Delta:  # the most frequent event: only its text is encoded
            opening = self._open("text", text="") if self._kind != "text" else b""
            return opening + self._before_text + sse.json_text(event.text) + b"}}\n\n"
        return self._feed_rare(event)

    def _feed_rare(self, event: Event) -> bytes:
        match event:
            case ToolCallDelta(_, arguments):
                return self._delta(type="input_json_delta", partial_json=arguments)
            case ToolCallStart(_, id, name):
                opening = self._open("tool_use", id=id, name=name, input={})
                return opening + self._delta(type="input_json_delta", partial_json="")
            case ToolCallEnd():
                return self._close()
            case RefusalDelta(text):
                self._refusal.append(text)  # the closing events say that it is one
                opening = self._open("text", text="") if self._kind != "text" else b""
                return opening + self._delta(type="text_delta", text=text) if text else b""
            case ThinkingDelta(text):
                return self._thinking() + self._delta(type="thinking_delta", thinking=text)
            case ThinkingEnd(signature, vendor):
                signed = reasoning.sign(signature, vendor)
                return self._thinking() + self._delta(type="signature_delta", signature=signed) + self._close()
            case RedactedThinking(data, vendor):
                return self._open("redacted_thinking", data=reasoning.sign(data, vendor)) + self._close()
            case Started():
                self._verbatim = event.verbatim
                return b"" if event.verbatim else self._opening(event)
            case Finished(answer, tail):
                return tail if self._verbatim else self._closing(answer)
        return b""

    def error(self, failure: ServiceError, request_id: str = "") -> bytes:
        """The failure as the last event of the stream. No ``message_stop`` follows it."""
        return sse.json_frame(errors.error(failure, request_id or self._call.request_id), b"error")

    def _opening(self, started: Started) -> bytes:
        message: dict[str, Any] = {
            "id": f"msg_{self._call.id}",
            "type": "message",
            "role": "assistant",
            "model": started.model or self._call.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            # The SDK's stream helper needs a usage here. OpenAI reports its counts only at the end.
            "usage": usage_object(started.usage or Usage()),
        }
        return event_frame("message_start", message=message)

    def _open(self, kind: str, **fields: Any) -> bytes:
        closing = self._close()
        self._kind = kind
        self._blocks += 1
        if kind == "text":
            self._before_text = self._delta(type="text_delta", text="").removesuffix(b'""}}\n\n')
        start = event_frame("content_block_start", index=self._blocks - 1, content_block={"type": kind, **fields})
        return closing + start + (_PING if self._blocks == 1 else b"")

    def _thinking(self) -> bytes:
        return b"" if self._kind == "thinking" else self._open("thinking", thinking="", signature="")

    def _delta(self, **delta: str) -> bytes:
        return event_frame("content_block_delta", index=self._blocks - 1, delta=delta)

    def _close(self) -> bytes:
        if not self._kind:
            return b""
        self._kind = ""
        return event_frame("content_block_stop", index=self._blocks - 1)

    def _closing(self, answer: Answer) -> bytes:
        stop = stop_fields(answer, "".join(self._refusal) or None)
        delta = event_frame("message_delta", delta=stop, usage=usage_object(answer.usage))
        return self._close() + delta + event_frame("message_stop")
