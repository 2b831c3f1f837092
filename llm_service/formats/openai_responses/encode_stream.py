"""OpenAI Responses, the client's side: one stream as the ladder of events that its SDKs climb.

Every item is added, filled piece by piece and told once more as a whole, and so
are its parts; every event has a number. The strict helper of OpenAI's SDK refuses
a stream that leaves out a rung.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import orjson

from llm_service.core import errors
from llm_service.core.call import Call
from llm_service.core.content import RedactedThinking
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
from llm_service.formats import sse
from llm_service.formats.openai_responses import encode_answer, schema
from llm_service.formats.openai_responses import errors as responses_errors


class _Item:
    """The open item: what it is, and what was said in it so far."""

    __slots__ = ("call_id", "content", "id", "kind", "name", "pieces")

    def __init__(self, kind: str, id: str, call_id: str = "", name: str = "") -> None:
        self.kind, self.id = kind, id
        self.call_id, self.name = call_id, name
        self.content: list[dict[str, Any]] = []  # a message's finished parts
        self.pieces: list[str] = []  # of the open part, of the arguments or of the summary


class StreamEncoder:
    """One stream as ``response.*`` events."""

    KEEP_ALIVE: ClassVar[bytes] = schema.KEEP_ALIVE
    __slots__ = ("_call", "_item", "_model", "_output", "_sequence", "_verbatim")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._model = call.model
        self._sequence = 0
        self._output: list[dict[str, Any]] = []  # finished items
        self._item: _Item | None = None
        self._verbatim = False

    def feed(self, event: Event) -> bytes:
        """The bytes for ``event``; none for those the client does not see."""
        write = _WRITERS.get(type(event))
        return write(self, event) if write is not None else b""

    def error(self, failure: errors.ServiceError, request_id: str = "") -> bytes:
        """The failure as the stream's last event: no terminal event follows.

        Flat as OpenAI documents it, and nested as it sends it: the second makes its SDKs raise.
        """
        told = responses_errors.error(failure, request_id or self._call.request_id)["error"]
        flat = {"code": told["code"], "message": told["message"], "param": told["param"]}
        return self._event("error", **flat, error=told)

    def _event(self, kind: str, **facts: Any) -> bytes:
        number = self._sequence
        self._sequence = number + 1
        return sse.json_frame({"type": kind, **facts, "sequence_number": number}, kind.encode())

    def _place(self) -> dict[str, Any]:
        assert self._item is not None
        return {"item_id": self._item.id, "output_index": len(self._output)}

    # ---- the answer's own beginning and end

    def _relay(self, event: Relay) -> bytes:
        self._sequence += event.data.count(b"\n\n")
        return event.data

    def _start(self, event: Started) -> bytes:
        self._model = event.model or self._model
        self._verbatim = event.verbatim
        if event.verbatim:
            return b""
        response = encode_answer.response_object(self._call, self._model, "in_progress", [])
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def _finish(self, event: Finished) -> bytes:
        if self._verbatim:
            return _priced(event.tail, event.answer.cost_nanousd)
        closing = self._close_item(event.answer)
        response = encode_answer.final_response(self._call, self._model, event.answer, self._output)
        return closing + self._event(f"response.{response['status']}", response=response)

    # ---- items

    def _open_item(self, kind: str, prefix: str, call_id: str = "", name: str = "") -> bytes:
        closing = self._close_item()
        item = self._item = _Item(kind, encode_answer.item_id(self._call, prefix, len(self._output)), call_id, name)
        if kind == "function_call":
            told = encode_answer.function_item(item.id, call_id, name, "", "in_progress")
        elif kind == "reasoning":
            told = encode_answer.reasoning_item(item.id, "")
        else:
            told = encode_answer.message_item(item.id, [], "in_progress")
        return closing + self._event("response.output_item.added", output_index=len(self._output), item=told)

    def _close_item(self, answer: Answer | None = None, encrypted: str | None = None) -> bytes:
        """The end of the open item, if there is one; ``answer`` when it ends with the answer."""
        item = self._item
        if item is None:
            return b""
        if item.kind == "function_call":
            arguments = "".join(item.pieces)
            closing = self._event(
                "response.function_call_arguments.done", **self._place(), name=item.name, arguments=arguments
            )
            whole = encode_answer.function_item(item.id, item.call_id, item.name, arguments)
        elif item.kind == "reasoning":
            text = "".join(item.pieces)
            closing = self._close_summary(text)
            whole = encode_answer.reasoning_item(item.id, text, encrypted)
        else:
            closing = self._close_part()
            refused = any(part["type"] == "refusal" for part in item.content)
            status = encode_answer.ending(answer.stop_reason if answer else None, refused=refused)[0]
            whole = encode_answer.message_item(item.id, item.content, status)
        closing += self._event("response.output_item.done", output_index=len(self._output), item=whole)
        self._output.append(whole)
        self._item = None
        return closing

    # ---- a message and its parts

    def _say(self, kind: str, text: str) -> bytes:
        """A piece of text (``text``) or of a refusal (``refusal``)."""
        if not text:
            return b""
        opening = b""
        if self._item is None or self._item.kind not in ("text", "refusal"):
            opening = self._open_item(kind, "msg")
        elif self._item.kind != kind:
            opening = self._close_part()
        item = self._item
        assert item is not None
        if not item.pieces:
            item.kind = kind
            opening += self._event("response.content_part.added", **self._part(), part=_part(kind, ""))
        item.pieces.append(text)
        if kind == "text":
            return opening + self._event("response.output_text.delta", **self._part(), delta=text, logprobs=[])
        return opening + self._event("response.refusal.delta", **self._part(), delta=text)

    def _part(self) -> dict[str, Any]:
        assert self._item is not None
        return {**self._place(), "content_index": len(self._item.content)}

    def _close_part(self) -> bytes:
        item = self._item
        assert item is not None
        text = "".join(item.pieces)
        part = _part(item.kind, text)
        if item.kind == "text":
            closing = self._event("response.output_text.done", **self._part(), text=text, logprobs=[])
        else:
            closing = self._event("response.refusal.done", **self._part(), refusal=text)
        closing += self._event("response.content_part.done", **self._part(), part=part)
        item.content.append(part)
        item.pieces = []
        return closing

    # ---- reasoning

    def _think(self, event: ThinkingDelta) -> bytes:
        if not event.text:
            return b""
        opening = b"" if self._is("reasoning") else self._open_item("reasoning", "rs")
        item = self._item
        assert item is not None
        if not item.pieces:
            opening += self._event(
                "response.reasoning_summary_part.added",
                **self._place(),
                summary_index=0,
                part=encode_answer.summary_part(""),
            )
        item.pieces.append(event.text)
        return opening + self._event(
            "response.reasoning_summary_text.delta", **self._place(), summary_index=0, delta=event.text
        )

    def _close_summary(self, text: str) -> bytes:
        if not text:
            return b""
        place = {**self._place(), "summary_index": 0}
        return self._event("response.reasoning_summary_text.done", **place, text=text) + self._event(
            "response.reasoning_summary_part.done", **place, part=encode_answer.summary_part(text)
        )

    def _end_thinking(self, event: ThinkingEnd) -> bytes:
        encrypted = encode_answer.carried(event.vendor, event.signature) if event.signature else None
        if not self._is("reasoning"):
            if encrypted is None:
                return b""
            return self._open_item("reasoning", "rs") + self._close_item(encrypted=encrypted)
        return self._close_item(encrypted=encrypted)

    def _redact(self, event: RedactedThinking) -> bytes:
        encrypted = encode_answer.carried(event.vendor, event.data, redacted=True)
        return self._open_item("reasoning", "rs") + self._close_item(encrypted=encrypted)

    def _is(self, kind: str) -> bool:
        return self._item is not None and self._item.kind == kind

    # ---- tool calls

    def _call_tool(self, event: ToolCallStart) -> bytes:
        return self._open_item("function_call", "fc", event.id, event.name)

    def _argue(self, event: ToolCallDelta) -> bytes:
        if not event.arguments:
            return b""
        assert self._item is not None, "pieces of a call come between its start and its end"
        self._item.pieces.append(event.arguments)
        return self._event("response.function_call_arguments.delta", **self._place(), delta=event.arguments)

    def _end_call(self, event: ToolCallEnd) -> bytes:
        assert self._item is not None, "a call ends once"
        none = b"" if self._item.pieces else self._argue(ToolCallDelta(event.index, "{}"))
        return none + self._close_item()


def _part(kind: str, text: str) -> dict[str, Any]:
    return encode_answer.text_part(text) if kind == "text" else encode_answer.refusal_part(text)


_WRITERS: dict[type, Callable[[StreamEncoder, Any], bytes]] = {
    Relay: StreamEncoder._relay,
    Delta: lambda frames, event: frames._say("text", event.text),
    RefusalDelta: lambda frames, event: frames._say("refusal", event.text),
    ThinkingDelta: StreamEncoder._think,
    ThinkingEnd: StreamEncoder._end_thinking,
    RedactedThinking: StreamEncoder._redact,
    ToolCallStart: StreamEncoder._call_tool,
    ToolCallDelta: StreamEncoder._argue,
    ToolCallEnd: StreamEncoder._end_call,
    Started: StreamEncoder._start,
    Finished: StreamEncoder._finish,
}


def _priced(tail: bytes, cost_nanousd: int | None) -> bytes:
    """The terminal event of a verbatim stream with the cost added to its usage."""
    name, data = sse.parse(tail)
    event = orjson.loads(data)
    return sse.json_frame({**event, "response": encode_answer.with_cost(event["response"], cost_nanousd)}, name)
