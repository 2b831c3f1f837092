"""Anthropic Messages, the client's side: requests in, replies, events and errors out.

Field by field this follows the anthropic SDK 2.11; what crosses to another
vendor follows the table ``CROSSING``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from llm_service import errors
from llm_service.conversation import (
    Answer,
    Call,
    Conversation,
    Delta,
    Event,
    Finished,
    Message,
    Part,
    Relay,
    Started,
    Text,
    Usage,
)
from llm_service.dialects import fields, sse
from llm_service.dialects.fields import REFUSED, TRANSLATED, Fate, dropped_unless, refused_unless

NAME = "messages"
KEEP_ALIVE = sse.KEEP_ALIVE

# From this API version on, sampling parameters are refused (Anthropic's migration-2026-10-21).
_NO_SAMPLING_SINCE = "2026-10-21"
_SAMPLING = ("temperature", "top_p", "top_k")
_NO_HEADERS: Mapping[str, str] = {}


class RequestSchema(fields.WireSchema):
    """``POST /v1/messages``. Fields not listed here pass to Anthropic as they are."""

    model = fields.Word("A model of this service, or an alias.", 256, filled=True, required=True)
    max_tokens = fields.Integer(
        "Most tokens to generate; 0 only warms Anthropic's cache.", 0, fields.MAX_TOKENS, required=True
    )
    messages = fields.Messages("The conversation so far.", ("user", "assistant", "system"), first="user", required=True)
    system = fields.SystemPrompt("System prompt: a string or text blocks.")
    temperature = fields.Number("Sampling temperature (anthropic-version 2023-06-01 only).", 0, 1)
    top_p = fields.Number("Nucleus sampling (anthropic-version 2023-06-01 only).", 0, 1)
    top_k = fields.Integer("Sample from the top k (anthropic-version 2023-06-01 only).", 0, fields.MAX_TOKENS)
    stop_sequences = fields.StopSequences("Where to stop.", 8192, single=False)
    stream = fields.Flag("Answer as server-sent events.")
    metadata = fields.JsonObject("user_id: an opaque name of your end user.")
    tools = fields.JsonList("Tools the model may call.")
    tool_choice = fields.JsonObject("How the model should use the tools.")
    thinking = fields.JsonObject("Whether and how the model thinks.")
    output_config = fields.JsonObject("Effort and format of the answer.")


_SCHEMA = RequestSchema()

# A hint is dropped and named; what would change the answer is refused (translation rules of both vendors).
CROSSING: Mapping[str, Fate] = {
    **dict.fromkeys(("model", "messages", "max_tokens", "system", "stream", "metadata"), TRANSLATED),
    **dict.fromkeys(("temperature", "top_p", "top_k", "stop_sequences"), TRANSLATED),
    "cache_control": dropped_unless(),
    "diagnostics": dropped_unless(),
    "service_tier": dropped_unless("auto", "standard_only"),
    "speed": dropped_unless("standard"),
    "container": REFUSED,
    "context_management": REFUSED,
    "fallbacks": refused_unless([]),
    "inference_geo": REFUSED,
    "mcp_servers": refused_unless([]),
    "output_config": refused_unless({}),
    "thinking": refused_unless({"type": "disabled"}),
    "tool_choice": refused_unless({"type": "auto"}, {"type": "none"}),
    "tools": refused_unless([]),
}
_METADATA_CROSSING: Mapping[str, Fate] = {"user_id": TRANSLATED}
_MESSAGE_CROSSING: Mapping[str, Fate] = {"role": TRANSLATED, "content": TRANSLATED}
_TEXT_CROSSING: Mapping[str, Fate] = {
    "type": TRANSLATED,
    "text": TRANSLATED,
    "cache_control": dropped_unless(),
    "citations": refused_unless([]),
}


def check(body: Any) -> dict[str, Any]:
    """``body`` if it is a well-formed request, else InvalidRequest naming the field."""
    return fields.check(_SCHEMA, body)


def prompt(body: Mapping[str, Any]) -> list[Any]:
    """The JSON values that hold the prompt, for its keyed hash."""
    return [body.get("system"), body.get("messages")]


def read_request(body: Mapping[str, Any], headers: Mapping[str, str] = _NO_HEADERS) -> Conversation:
    """A checked body as a conversation. Thinking of earlier turns is left out: only its own vendor can read it.

    Raises InvalidRequest for sampling parameters under an API version without
    them, and UnsupportedParameter naming what cannot cross.
    """
    _check_version(body, headers)
    dropped = dict.fromkeys(fields.cross(body, CROSSING))
    if body["max_tokens"] == 0:
        fields.unsupported("max_tokens", "0 only warms Anthropic's own cache")
    messages: list[Message] = []
    for index, given in enumerate(body["messages"]):
        path = f"messages[{index}]"
        if len(given) > 2:
            fields.cross(given, _MESSAGE_CROSSING, f"{path}.")
        messages.append(Message(given["role"], _parts(given["content"], f"{path}.content", dropped)))
    system = body.get("system")
    metadata = body.get("metadata") or {}
    fields.cross(metadata, _METADATA_CROSSING, "metadata.")
    user = metadata.get("user_id")
    return Conversation(
        messages=tuple(messages),
        system=_parts(system, "system", dropped) if system else (),  # type: ignore[arg-type]
        max_tokens=body["max_tokens"],
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        top_k=body.get("top_k"),
        stop=tuple(body.get("stop_sequences") or ()),
        user=None if user is None else fields.text_of(metadata, "metadata", "user_id"),
        dropped=tuple(dropped),
    )


def _check_version(body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    if headers.get("anthropic-version", "") < _NO_SAMPLING_SINCE:
        return
    for name in _SAMPLING:
        if body.get(name) is not None:
            raise errors.InvalidRequest(f"{name}: Extra inputs are not permitted", param=name)


def _parts(content: Any, path: str, dropped: dict[str, None]) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Text(content),)
    parts = []
    for index, block in enumerate(content):
        place = f"{path}[{index}]"
        read = _BLOCKS.get(block["type"])
        if read is None:
            fields.unsupported(place)
        part = read(block, place, dropped)
        if part is not None:
            parts.append(part)
    if not parts:
        raise errors.UnsupportedParameter(f"{path} has nothing another vendor's model could read.", param=path)
    return tuple(parts)


def _read_text(block: Mapping[str, Any], place: str, dropped: dict[str, None]) -> Part:
    dropped.update(dict.fromkeys(fields.cross(block, _TEXT_CROSSING, f"{place}.")))
    return Text(fields.text_of(block, place))


def _leave_out(block: Mapping[str, Any], place: str, dropped: dict[str, None]) -> None:
    dropped["messages[].thinking"] = None


# One row per content block that can cross, or is left out on the way.
_BLOCKS: Mapping[str, Callable[[Mapping[str, Any], str, dict[str, None]], Part | None]] = {
    "text": _read_text,
    "thinking": _leave_out,
    "redacted_thinking": _leave_out,
}


def usage_object(usage: Usage) -> dict[str, Any]:
    """Anthropic's counts: ``input_tokens`` leaves out what the cache served or took."""
    written: dict[str, Any] = {
        "input_tokens": max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.reasoning_tokens:
        written["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return written


def _stop(answer: Answer) -> dict[str, Any]:
    reason = answer.stop_reason
    stop: dict[str, Any] = {
        "stop_reason": "end_turn" if reason is None or reason == "other" else reason,
        "stop_sequence": answer.stop_sequence,
    }
    if reason == "refusal":
        stop["stop_details"] = {"type": "refusal", "category": None, "explanation": None}
    return stop


def write_reply(call: Call, answer: Answer) -> dict[str, Any]:
    """The reply's JSON object; a verbatim one is the vendor's own."""
    if answer.body is not None:
        return dict(answer.body)
    return {
        "id": f"msg_{call.id}",
        "type": "message",
        "role": "assistant",
        "model": answer.model or call.model,
        "content": [{"type": "text", "text": answer.text}] if answer.text else [],
        **_stop(answer),
        "usage": usage_object(answer.usage),
    }


_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def status(failure: errors.ServiceError) -> int:
    """The HTTP status Anthropic's SDKs expect for it."""
    return 529 if isinstance(failure, errors.UpstreamOverloaded) else failure.status


def error(failure: errors.ServiceError, request_id: str) -> dict[str, Any]:
    """The error's JSON object; ``details`` names our code and the field. Anthropic's own type and
    code are kept where Anthropic was asked."""
    kind = _TYPES.get(failure.status, "invalid_request_error" if failure.status < 500 else "api_error")
    details: dict[str, Any] = {"error_code": failure.code}
    # Not for the service's own credentials: the caller would take them for its key.
    if failure.vendor.get("dialect") == NAME and failure.code != "upstream_authentication":
        if not isinstance(failure, errors.UpstreamOverloaded):  # told by 529, whatever the vendor's status was
            kind = failure.vendor.get("type") or kind
        details["error_code"] = failure.vendor.get("code") or failure.code
    if failure.param is not None:
        details["param"] = failure.param
    told = {"type": kind, "message": failure.message, "details": details}
    return {"type": "error", "error": told, "request_id": request_id}


def error_headers(failure: errors.ServiceError, now: datetime) -> dict[str, str]:
    """Anthropic's rate-limit headers, and a word to its SDKs not to retry what was retried here.

    ``now`` is aware: the reset is a moment in UTC (RFC 3339).
    """
    headers = {}
    if failure.limit is not None and failure.limit.name in ("requests", "tokens"):
        name = f"anthropic-ratelimit-{failure.limit.name}"
        reset = now + timedelta(seconds=failure.limit.reset)
        headers[f"{name}-limit"] = str(failure.limit.quota)
        headers[f"{name}-remaining"] = str(failure.limit.remaining)
        headers[f"{name}-reset"] = f"{reset:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(failure, errors.UpstreamError):
        headers["x-should-retry"] = "false"
    return headers


def event_frame(kind: str, **facts: Any) -> bytes:
    """One event; the SDKs drop data without its ``event:`` line."""
    return sse.json_frame({"type": kind, **facts}, kind.encode())


_PING = event_frame("ping")


class Frames:
    """One stream as Anthropic's events."""

    KEEP_ALIVE: ClassVar[bytes] = KEEP_ALIVE
    __slots__ = ("_call", "_open", "_verbatim")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._open = False  # whether the text block has begun
        self._verbatim = False

    def feed(self, event: Event) -> bytes:
        """The bytes for ``event``; none for those the client does not see."""
        match event:
            case Relay(data):
                return data
            case Delta(text):
                delta = event_frame("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
                return delta if self._open else self._open_block() + delta
            case Started():
                self._verbatim = event.verbatim
                return b"" if event.verbatim else self._opening(event)
            case Finished(answer, tail):
                return tail if self._verbatim else self._closing(answer)
        return b""

    def error(self, failure: errors.ServiceError, request_id: str = "") -> bytes:
        """The failure as the stream's last event: no ``message_stop`` follows."""
        return sse.json_frame(error(failure, request_id or self._call.request_id), b"error")

    def _opening(self, started: Started) -> bytes:
        message: dict[str, Any] = {
            "id": f"msg_{self._call.id}",
            "type": "message",
            "role": "assistant",
            "model": started.model or self._call.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            # The helper needs a usage here; OpenAI tells its counts only at the end.
            "usage": usage_object(started.usage or Usage()),
        }
        return event_frame("message_start", message=message)

    def _open_block(self) -> bytes:
        self._open = True
        return event_frame("content_block_start", index=0, content_block={"type": "text", "text": ""}) + _PING

    def _closing(self, answer: Answer) -> bytes:
        closed = event_frame("content_block_stop", index=0) if self._open else b""
        delta = event_frame("message_delta", delta=_stop(answer), usage=usage_object(answer.usage))
        return closed + delta + event_frame("message_stop")
