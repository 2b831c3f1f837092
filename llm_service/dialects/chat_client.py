"""OpenAI Chat Completions, the client's side: requests in, replies, chunks and errors out.

Field by field this follows the openai SDK 3.52 and its OpenAPI file; what
crosses to another vendor follows the table ``CROSSING``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar

import orjson

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
    Role,
    Started,
    Text,
    Usage,
)
from llm_service.dialects import fields, sse
from llm_service.dialects.fields import REFUSED, TRANSLATED, Fate, dropped_unless, refused_unless
from llm_service.prices import as_dollars

NAME = "chat"
KEEP_ALIVE = sse.KEEP_ALIVE
DONE = sse.frame(b"[DONE]")

_ROLES = ("developer", "system", "user", "assistant", "tool", "function")
_CROSSING_ROLES: Mapping[str, Role] = {
    "developer": "system",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
}
_NO_HEADERS: Mapping[str, str] = {}

FINISH_REASONS: Mapping[str | None, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class RequestSchema(fields.WireSchema):
    """``POST /v1/chat/completions``. Fields not listed here pass to OpenAI as they are."""

    model = fields.Word("A model of this service, or an alias.", 256, filled=True, required=True)
    messages = fields.Messages("The conversation so far.", _ROLES, silent=("assistant", "function"), required=True)
    max_completion_tokens = fields.Integer("Most tokens to generate, reasoning included.", 1, fields.MAX_TOKENS)
    max_tokens = fields.Integer("Older name of max_completion_tokens.", 1, fields.MAX_TOKENS)
    temperature = fields.Number("Sampling temperature.", 0, 2)
    top_p = fields.Number("Nucleus sampling.", 0, 1)
    stop = fields.StopSequences("Where to stop.", 4)
    n = fields.Integer("How many choices.", 1, 128)
    stream = fields.Flag("Answer as server-sent events.")
    stream_options = fields.StreamOptions("include_usage: send a last chunk with the usage.")
    frequency_penalty = fields.Number("Penalty for frequent tokens.", -2, 2)
    presence_penalty = fields.Number("Penalty for repeated tokens.", -2, 2)
    logit_bias = fields.JsonObject("Bias by token id.")
    logprobs = fields.Flag("Return log probabilities.")
    top_logprobs = fields.Integer("How many alternatives per token.", 0, 20)
    seed = fields.Integer("Best-effort determinism.", -(2**63), 2**63 - 1)
    tools = fields.JsonList("Tools the model may call.")
    parallel_tool_calls = fields.Flag("Whether several tools may be called at once.")
    response_format = fields.JsonObject("The format of the answer.")
    metadata = fields.JsonObject("Up to 16 pairs kept by OpenAI.")
    user = fields.Word("Your end user; older name of safety_identifier.")
    safety_identifier = fields.Word("A stable name of your end user.")


_SCHEMA = RequestSchema()

# A hint is dropped and named; what would change the answer is refused (translation rules of both vendors).
CROSSING: Mapping[str, Fate] = {
    **dict.fromkeys(("model", "messages", "max_completion_tokens", "max_tokens", "temperature", "top_p"), TRANSLATED),
    **dict.fromkeys(("stop", "stream", "stream_options", "user", "safety_identifier"), TRANSLATED),
    "metadata": dropped_unless({}),
    "parallel_tool_calls": dropped_unless(),
    "prediction": dropped_unless(),
    "prompt_cache_key": dropped_unless(),
    "prompt_cache_options": dropped_unless(),
    "prompt_cache_retention": dropped_unless(),
    "seed": dropped_unless(),
    "service_tier": dropped_unless("auto", "default"),
    "store": dropped_unless(False),
    "verbosity": dropped_unless("medium"),
    "frequency_penalty": refused_unless(0),
    "function_call": REFUSED,
    "functions": refused_unless([]),
    "logit_bias": refused_unless({}),
    "logprobs": refused_unless(False),
    "modalities": refused_unless(["text"]),
    "moderation": REFUSED,
    "n": refused_unless(1),
    "presence_penalty": refused_unless(0),
    "reasoning_effort": REFUSED,
    "response_format": refused_unless({"type": "text"}),
    "tool_choice": refused_unless("auto", "none"),
    "tools": refused_unless([]),
    "top_logprobs": refused_unless(0),
    "audio": REFUSED,
    "web_search_options": REFUSED,
}
_MESSAGE_CROSSING: Mapping[str, Fate] = {
    "role": TRANSLATED,
    "content": TRANSLATED,
    "refusal": TRANSLATED,
    "name": dropped_unless(),
    "annotations": dropped_unless([]),
    "tool_calls": refused_unless([]),
    "function_call": REFUSED,
    "audio": REFUSED,
}
_PART_CROSSING: Mapping[str, Fate] = {
    "type": TRANSLATED,
    "text": TRANSLATED,
    "refusal": TRANSLATED,
    "prompt_cache_breakpoint": dropped_unless(),
}


def check(body: Any) -> dict[str, Any]:
    """``body`` if it is a well-formed request, else InvalidRequest naming the field."""
    return fields.check(_SCHEMA, body)


def prompt(body: Mapping[str, Any]) -> list[Any]:
    """The JSON values that hold the prompt, for its keyed hash."""
    return [body.get("messages")]


def read_request(body: Mapping[str, Any], headers: Mapping[str, str] = _NO_HEADERS) -> Conversation:
    """A checked body as a conversation. Leading system and developer messages become its system prompt.

    Raises UnsupportedParameter naming what cannot cross.
    """
    dropped = dict.fromkeys(fields.cross(body, CROSSING))
    system: list[Any] = []
    messages: list[Message] = []
    for index, given in enumerate(body["messages"]):
        path = f"messages[{index}]"
        role = _role(given["role"], path)
        # A plain turn, the usual case, has nothing to look for.
        if len(given) > 2 or "content" not in given:
            dropped.update((f"messages[].{name}", None) for name in fields.cross(given, _MESSAGE_CROSSING, f"{path}."))
        parts = _parts(given, path, dropped)
        if role == "system" and not messages:
            system += parts
        else:
            messages.append(Message(role, parts))
    stop = body.get("stop")
    return Conversation(
        messages=tuple(messages),
        system=tuple(system),
        max_tokens=_first_given(body, "max_completion_tokens", "max_tokens"),
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        user=_first_given(body, "safety_identifier", "user"),
        dropped=tuple(dropped),
    )


def _first_given(body: Mapping[str, Any], *names: str) -> Any:
    return next((body[name] for name in names if body.get(name) is not None), None)


def _role(role: str, path: str) -> Role:
    crossing = _CROSSING_ROLES.get(role)
    if crossing is None:
        fields.unsupported(f"{path}.role")
    return crossing


def _parts(message: Mapping[str, Any], path: str, dropped: dict[str, None]) -> tuple[Part, ...]:
    content = message.get("content")
    if isinstance(content, str):
        return (Text(content),)
    if content is None:
        if message.get("refusal") is None:
            raise errors.InvalidRequest(f"{path}.content is required.", param=f"{path}.content")
        return (Text(fields.text_of(message, path, "refusal")),)
    parts = []
    for index, part in enumerate(content):
        place = f"{path}.content[{index}]"
        read = _PARTS.get(part["type"])
        if read is None:
            fields.unsupported(place)
        dropped.update((name, None) for name in fields.cross(part, _PART_CROSSING, f"{place}."))
        parts.append(read(part, place))
    if not parts:
        raise errors.InvalidRequest(f"{path}.content must not be empty.", param=f"{path}.content")
    return tuple(parts)


# One row per content part that can cross.
_PARTS: Mapping[str, Callable[[Mapping[str, Any], str], Part]] = {
    "text": lambda part, place: Text(fields.text_of(part, place)),
    "refusal": lambda part, place: Text(fields.text_of(part, place, "refusal")),
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


def write_reply(call: Call, answer: Answer) -> dict[str, Any]:
    """The reply's JSON object; a verbatim one is the vendor's own with ``usage.cost_usd`` added."""
    if answer.body is not None:
        return _with_cost(answer.body, answer.cost_nanousd)
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
    finish_reason = FINISH_REASONS.get(answer.stop_reason, "stop")
    return {
        "id": f"chatcmpl-{call.id}",
        "object": "chat.completion",
        "created": call.created,
        "model": answer.model or call.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
        "usage": usage_object(answer.usage, answer.cost_nanousd),
        "system_fingerprint": None,
    }


def _with_cost(body: Mapping[str, Any], cost_nanousd: int | None) -> dict[str, Any]:
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return dict(body)
    return {**body, "usage": {**usage, "cost_usd": as_dollars(cost_nanousd)}}


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Whether the client asked for the usage chunk (``stream_options.include_usage``)."""
    return (body.get("stream_options") or {}).get("include_usage") is True


# Error type and code by our code, where the vendor has its own words; else by status.
_SPOKEN: Mapping[str, tuple[str, str | None]] = {
    "invalid_request": ("invalid_request_error", None),
    "upstream_rejected": ("invalid_request_error", None),
    "upstream_rate_limited": ("rate_limit_error", "rate_limit_exceeded"),
    "upstream_quota_exhausted": ("insufficient_quota", "insufficient_quota"),
    "upstream_overloaded": ("service_unavailable_error", "server_is_overloaded"),
}


def status(failure: errors.ServiceError) -> int:
    """The HTTP status OpenAI's SDKs expect for it. OpenAI tells missing money by 429."""
    return 429 if failure.status == 402 else failure.status


def error(failure: errors.ServiceError, request_id: str) -> dict[str, Any]:
    """The error's JSON object. OpenAI's own type and code are kept where OpenAI was asked."""
    code: str | None
    # Not for the service's own credentials: the caller would take them for its key.
    ours = failure.vendor.get("dialect") == NAME and failure.code != "upstream_authentication"
    if ours and failure.vendor.get("type"):
        kind, code = failure.vendor["type"], failure.vendor.get("code")
    elif failure.code in _SPOKEN:
        kind, code = _SPOKEN[failure.code]
    elif failure.status == 402:
        kind, code = "insufficient_quota", "insufficient_quota"
    elif failure.status == 429:
        kind, code = (failure.limit.name if failure.limit else "requests"), failure.code
    else:
        kind, code = ("invalid_request_error" if failure.status < 500 else "server_error"), failure.code
    return {"error": {"message": failure.message, "type": kind, "param": failure.param, "code": code}}


def error_headers(failure: errors.ServiceError, now: datetime) -> dict[str, str]:
    """OpenAI's rate-limit headers, and a word to its SDKs not to retry what was retried here."""
    headers = {}
    if failure.limit is not None and failure.limit.name in ("requests", "tokens"):
        name = failure.limit.name
        headers[f"x-ratelimit-limit-{name}"] = str(failure.limit.quota)
        headers[f"x-ratelimit-remaining-{name}"] = str(failure.limit.remaining)
        headers[f"x-ratelimit-reset-{name}"] = duration(failure.limit.reset)
    if isinstance(failure, errors.UpstreamError):
        headers["x-should-retry"] = "false"
    return headers


def duration(seconds: int) -> str:
    """Seconds as Go prints a duration: ``59s``, ``6m0s``, ``1h0m1s``."""
    minutes, rest = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


class Frames:
    """One stream as ``chat.completion.chunk`` events."""

    KEEP_ALIVE: ClassVar[bytes] = KEEP_ALIVE
    __slots__ = ("_call", "_model", "_usage", "_verbatim")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._model = call.model
        # With include_usage every chunk but the last carries a null.
        self._usage: dict[str, Any] = {"usage": None} if wants_usage(call.body) else {}
        self._verbatim = False

    def feed(self, event: Event) -> bytes:
        """The bytes for ``event``; none for those the client does not see."""
        match event:
            case Relay(data):
                return data
            case Delta(text):
                return self._chunk({"content": text})
            case Started():
                self._model = event.model or self._model
                self._verbatim = event.verbatim
                return b"" if event.verbatim else self._chunk({"role": "assistant", "content": "", "refusal": None})
            case Finished(answer, tail):
                return _priced(tail, answer.cost_nanousd) if self._verbatim else self._closing(answer)
        return b""

    def error(self, failure: errors.ServiceError, request_id: str = "") -> bytes:
        """The failure as the stream's last event: no ``[DONE]`` follows."""
        return sse.json_frame(error(failure, request_id or self._call.request_id))

    def _closing(self, answer: Answer) -> bytes:
        closing = self._chunk({}, FINISH_REASONS.get(answer.stop_reason, "stop"))
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

    def _chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return sse.json_frame({**self._head(), "choices": [choice], **self._usage})


def _priced(tail: bytes, cost_nanousd: int | None) -> bytes:
    """The end of a verbatim stream, the cost added to its usage chunk if it has one."""
    if tail == DONE:
        return tail
    block, blank, rest = tail.partition(b"\n\n")
    _, data = sse.parse(block + blank)
    chunk = orjson.loads(data)
    return sse.json_frame(_with_cost(chunk, cost_nanousd)) + rest
