"""This service's own small format: ``POST /v1/complete`` and ``/v1/stream``. Only clients speak it.

A request has either ``prompt`` or ``messages``. A plain reply is one flat object. A stream is ``data:`` lines:
``{"delta"}`` ..., ``{"done": true, ...}``, ``[DONE]``. Errors are RFC 9457 problem details. A field that is not listed
is rejected, because no vendor would report the mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from llm_service.core import errors
from llm_service.core.call import Call
from llm_service.core.content import Message, Text
from llm_service.core.conversation import Conversation
from llm_service.core.events import Answer, Delta, Event, Finished, RefusalDelta
from llm_service.core.money import as_dollars
from llm_service.formats import schema_fields as fields
from llm_service.formats import sse, validation
from llm_service.formats.bounds import Bounds
from llm_service.formats.defaults import json_format as json_format
from llm_service.formats.defaults import response_headers as response_headers
from llm_service.formats.defaults import with_turn as with_turn

NAME = "simple"
# The routes about the caller's own key answer in this format too.
PATHS = ("/v1/chat", "/v1/complete", "/v1/stream", "/v1/usage", "/v1/key")
ERROR_TYPE = "application/problem+json"
KEEP_ALIVE = sse.KEEP_ALIVE
DONE = sse.frame(b"[DONE]")

_NO_HEADERS: Mapping[str, str] = {}


class RequestSchema(fields.OursSchema):
    """``POST /v1/complete`` and ``POST /v1/stream``."""

    prompt = fields.Word("The prompt; instead of messages.", filled=True)
    messages = fields.Messages(
        "The conversation so far, with the user's message last; instead of prompt.",
        ("system", "user", "assistant"),
        last="user",
        parts=False,
    )
    model = fields.Word("A model of this service, or an alias; if missing, the default one.", 256, filled=True)
    system = fields.Word("The system prompt.")
    max_tokens = fields.Integer("The most tokens to generate.", 1, fields.MAX_TOKENS)
    temperature = fields.Number("Sampling temperature.", 0, 2)
    top_p = fields.Number("Nucleus sampling.", 0, 1)
    stop = fields.StopSequences("Strings at which the model stops.", 16)
    stream = fields.Flag("Send the answer as server-sent events.")


_SCHEMA = RequestSchema()
BOUNDS = Bounds()


def check(body: Any) -> dict[str, Any]:
    """``body`` if it is a well-formed request, else InvalidRequest naming the field. ``model`` may be missing."""
    checked = validation.check(_SCHEMA, body)
    if checked.get("prompt") is None and checked.get("messages") is None:
        raise errors.InvalidRequest("prompt or messages is required.", param="prompt")
    if checked.get("prompt") is not None and checked.get("messages") is not None:
        raise errors.InvalidRequest("prompt must not be sent together with messages.", param="prompt")
    return checked


def prompt(body: Mapping[str, Any]) -> list[Any]:
    """The JSON values that hold the prompt, for its keyed hash."""
    return [body.get("system"), body.get("prompt"), body.get("messages")]


def read_request(body: Mapping[str, Any], headers: Mapping[str, str] = _NO_HEADERS) -> Conversation:
    """A checked body as a conversation. Leading system messages join ``system``."""
    system = [Text(body["system"])] if body.get("system") else []
    messages: list[Message] = []
    if body.get("prompt") is not None:
        messages.append(Message("user", (Text(body["prompt"]),), ("prompt",)))
    for index, given in enumerate(body.get("messages") or ()):
        if given["role"] == "system" and not messages:
            system.append(Text(given["content"]))
            continue
        messages.append(Message(given["role"], (Text(given["content"]),), (f"messages[{index}].content",)))
    stop = body.get("stop")
    return Conversation(
        messages=tuple(messages),
        system=tuple(system),
        max_tokens=body.get("max_tokens"),
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
    )


def _outcome(call: Call, answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "id": call.id,
        "model": answer.model or call.model,
        "provider": answer.provider,
        "stop_reason": answer.stop_reason,
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": usage.cached_tokens,
            "cost_usd": as_dollars(answer.cost_nanousd),
            "exact": usage.exact,
        },
    }


def write_answer(call: Call, answer: Answer) -> dict[str, Any]:
    """The reply's JSON object."""
    return {**_outcome(call, answer), "text": answer.text}


def status(failure: errors.ServiceError) -> int:
    """The HTTP status."""
    return failure.status


def error(failure: errors.ServiceError, request_id: str) -> dict[str, Any]:
    """The error as problem details (RFC 9457); ``type`` is a stable name and not the address of a page."""
    problem = {
        "type": f"urn:llm-service:error:{failure.code}",
        "title": failure.code.replace("_", " ").capitalize(),
        "status": failure.status,
        "detail": failure.message,
        "code": failure.code,
        "request_id": request_id,
    }
    return problem if failure.param is None else {**problem, "param": failure.param}


def error_headers(failure: errors.ServiceError, now: datetime) -> dict[str, str]:
    """None, because this format has no vendor."""
    return {}


class StreamEncoder:
    """One stream as ``data:`` lines."""

    KEEP_ALIVE: ClassVar[bytes] = KEEP_ALIVE
    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def feed(self, event: Event) -> bytes:
        """The bytes for ``event``; none for an event that the client does not see."""
        match event:
            case Delta(text) | RefusalDelta(text):
                return sse.json_frame({"delta": text})
            case Finished(answer):
                return sse.json_frame({"done": True, **_outcome(self._call, answer)}) + DONE
        return b""

    def error(self, failure: errors.ServiceError, request_id: str = "") -> bytes:
        """The failure as the stream's last event, without ``[DONE]`` after it."""
        return sse.json_frame({"error": {"type": failure.code, "message": failure.message}})
