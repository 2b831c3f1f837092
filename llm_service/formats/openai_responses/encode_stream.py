"""OpenAI Responses, the client's side: one stream as the sequence of events that OpenAI's SDKs require.

Every item is added, filled piece by piece, and sent once more as a whole. So are its
parts. Every event has a number. The strict helper of OpenAI's SDK fails at a stream that
leaves out one of these events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import orjson

from llm_service.core import errors
from llm_service.core.call import Call
from llm_service.core.content import RedactedThinking, TokenLogprob
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
from llm_service.formats import sse
from llm_service.formats.openai_responses import encode_answer, encode_tool_calls, schema
from llm_service.formats.openai_responses import errors as responses_errors
from llm_service.formats.openai_responses.encode_tool_calls import CallNames, StreamedCall


class _Item:
    """The open item: its kind, and its content so far."""

    __slots__ = ("call", "content", "id", "kind", "logprobs", "pieces")

    def __init__(self, kind: str, id: str, call: StreamedCall | None = None) -> None:
        self.kind, self.id, self.call = kind, id, call
        self.content: list[dict[str, Any]] = []  # the finished parts of a message
        self.pieces: list[str] = []  # of the open part or of the summary
        self.logprobs: list[TokenLogprob] = []  # of the open part


class StreamEncoder:
    """One stream as ``response.*`` events."""

    KEEP_ALIVE: ClassVar[bytes] = schema.KEEP_ALIVE
    __slots__ = ("_call", "_item", "_model", "_names", "_output", "_sequence", "_verbatim")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._model = call.model
        self._names = CallNames(call)
        self._sequence = 0
        self._output: list[dict[str, Any]] = []  # finished items
        self._item: _Item | None = None
        self._verbatim = False

    def feed(self, event: Event) -> bytes:
        """The bytes for ``event``; none for events that the client does not see."""
        write = _WRITERS.get(type(event))
        return write(self, event) if write is not None else b""

    def error(self, failure: errors.ServiceError, request_id: str = "") -> bytes:
        """The failure as the stream's last events, ``error`` and ``response.failed``, as OpenAI sends them.

        OpenAI's SDKs raise an exception at ``error`` and read no further. Codex does not know that event: it needs
        ``response.failed``, or it takes the failure for a lost connection. OpenAI documents the error's fields in the
        event ``error`` itself, but sends them in its member ``error``. The event has both: the SDKs raise an exception
        only for the second. Neither event repeats the request or the output: clients write errors to their logs.
        """
        written = responses_errors.error(failure, request_id or self._call.request_id)["error"]
        flat = {"code": written["code"], "message": written["message"], "param": written["param"]}
        code = written["code"] or ("invalid_prompt" if failure.status < 500 else "server_error")  # it must have one
        error = {"code": code, "message": written["message"]}
        failed = encode_answer.failed_response(self._call, self._model, error)
        return self._event("error", **flat, error=written) + self._event("response.failed", response=failed)

    def _event(self, kind: str, **fields: Any) -> bytes:
        number = self._sequence
        self._sequence = number + 1
        return sse.json_frame({"type": kind, **fields, "sequence_number": number}, kind.encode())

    def _item_path(self) -> dict[str, Any]:
        assert self._item is not None
        return {"item_id": self._item.id, "output_index": len(self._output)}

    # ---- the start and the end of the answer

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
            return _with_cost(event.tail, event.answer.cost_nanousd)
        closing = self._close_item(event.answer)
        response = encode_answer.final_response(self._call, self._model, event.answer, self._output)
        return closing + self._event(f"response.{response['status']}", response=response)

    # ---- items

    def _open_item(self, kind: str, prefix: str, call: StreamedCall | None = None) -> bytes:
        closing = self._close_item()
        item = self._item = _Item(kind, encode_answer.item_id(self._call, prefix, len(self._output)), call)
        if call is not None:
            opened = call.opened(item.id)
        elif kind == "reasoning":
            opened = encode_answer.reasoning_item(item.id, "")
        else:
            opened = encode_answer.message_item(item.id, [], "in_progress")
        return closing + self._event("response.output_item.added", output_index=len(self._output), item=opened)

    def _close_item(self, answer: Answer | None = None, encrypted: str | None = None) -> bytes:
        """Close the open item, if there is one. ``answer`` is given if the item ends with the answer."""
        item = self._item
        if item is None:
            return b""
        if item.call is not None:
            cut = answer is not None
            closing = self._call_events(item.call.end(cut))
            whole = item.call.closed(item.id, cut)
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

    def _add_text(self, kind: str, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> bytes:
        """A piece of text (``kind`` is ``text``) or of a refusal (``refusal``)."""
        if not text and not logprobs:
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
            opening += self._event("response.content_part.added", **self._part_path(), part=_part(kind, ""))
        item.pieces.append(text)
        if kind == "refusal":
            return opening + self._event("response.refusal.delta", **self._part_path(), delta=text)
        item.logprobs += logprobs
        written = encode_answer.write_logprobs(logprobs)
        return opening + self._event("response.output_text.delta", **self._part_path(), delta=text, logprobs=written)

    def _part_path(self) -> dict[str, Any]:
        assert self._item is not None
        return {**self._item_path(), "content_index": len(self._item.content)}

    def _close_part(self) -> bytes:
        item = self._item
        assert item is not None
        text = "".join(item.pieces)
        part = _part(item.kind, text, item.logprobs)
        if item.kind == "text":
            logprobs = part["logprobs"]
            closing = self._event("response.output_text.done", **self._part_path(), text=text, logprobs=logprobs)
        else:
            closing = self._event("response.refusal.done", **self._part_path(), refusal=text)
        closing += self._event("response.content_part.done", **self._part_path(), part=part)
        item.content.append(part)
        item.pieces, item.logprobs = [], []
        return closing

    # ---- reasoning

    def _add_reasoning(self, event: ThinkingDelta) -> bytes:
        if not event.text:
            return b""
        opening = b"" if self._is("reasoning") else self._open_item("reasoning", "rs")
        item = self._item
        assert item is not None
        if not item.pieces:
            opening += self._event(
                "response.reasoning_summary_part.added",
                **self._item_path(),
                summary_index=0,
                part=encode_answer.summary_part(""),
            )
        item.pieces.append(event.text)
        return opening + self._event(
            "response.reasoning_summary_text.delta", **self._item_path(), summary_index=0, delta=event.text
        )

    def _close_summary(self, text: str) -> bytes:
        if not text:
            return b""
        path = {**self._item_path(), "summary_index": 0}
        return self._event("response.reasoning_summary_text.done", **path, text=text) + self._event(
            "response.reasoning_summary_part.done", **path, part=encode_answer.summary_part(text)
        )

    def _end_reasoning(self, event: ThinkingEnd) -> bytes:
        encrypted = encode_answer.carried(event.vendor, event.signature) if event.signature else None
        if not self._is("reasoning"):
            if encrypted is None:
                return b""
            return self._open_item("reasoning", "rs") + self._close_item(encrypted=encrypted)
        return self._close_item(encrypted=encrypted)

    def _add_redacted(self, event: RedactedThinking) -> bytes:
        encrypted = encode_answer.carried(event.vendor, event.data, redacted=True)
        return self._open_item("reasoning", "rs") + self._close_item(encrypted=encrypted)

    def _is(self, kind: str) -> bool:
        return self._item is not None and self._item.kind == kind

    # ---- tool calls

    def _open_call(self, event: ToolCallStart) -> bytes:
        tool = self._names.of(event.name)
        return self._open_item("call", encode_tool_calls.prefix(tool), StreamedCall(event.id, tool))

    def _add_arguments(self, event: ToolCallDelta) -> bytes:
        assert self._item is not None, "a piece of a call comes between its start and its end"
        assert self._item.call is not None, "the pieces of a call come one after the other"
        return self._call_events(self._item.call.add(event.arguments))

    def _close_call(self, event: ToolCallEnd) -> bytes:
        assert self._item is not None, "a call ends once"
        return self._close_item()

    def _call_events(self, events: Iterable[tuple[str, dict[str, Any]]]) -> bytes:
        return b"".join([self._event(kind, **self._item_path(), **fields) for kind, fields in events])


def _part(kind: str, text: str, logprobs: Iterable[TokenLogprob] = ()) -> dict[str, Any]:
    return encode_answer.text_part(text, logprobs) if kind == "text" else encode_answer.refusal_part(text)


_WRITERS: dict[type, Callable[[StreamEncoder, Any], bytes]] = {
    Relay: StreamEncoder._relay,
    Delta: lambda encoder, event: encoder._add_text("text", event.text),
    ChoiceDelta: lambda encoder, event: encoder._add_text("text", event.text, event.logprobs),
    RefusalDelta: lambda encoder, event: encoder._add_text("refusal", event.text),
    ThinkingDelta: StreamEncoder._add_reasoning,
    ThinkingEnd: StreamEncoder._end_reasoning,
    RedactedThinking: StreamEncoder._add_redacted,
    ToolCallStart: StreamEncoder._open_call,
    ToolCallDelta: StreamEncoder._add_arguments,
    ToolCallEnd: StreamEncoder._close_call,
    Started: StreamEncoder._start,
    Finished: StreamEncoder._finish,
}


def _with_cost(tail: bytes, cost_nanousd: int | None) -> bytes:
    """The terminal event of a verbatim stream with the cost added to its usage."""
    name, data = sse.parse(tail)
    event = orjson.loads(data)
    return sse.json_frame({**event, "response": encode_answer.with_cost(event["response"], cost_nanousd)}, name)
