"""OpenAI Chat Completions, the upstream's side: requests out, plain answers and errors in.

"Upstream" is OpenAI or any server that speaks its API (a provider row), so
nothing here trusts counts or completeness.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from llm_service.catalog import Target
from llm_service.conversation import Answer, Call, Conversation, Part, StopReason, Text, Usage
from llm_service.dialects import fields, upstream
from llm_service.dialects.chat_client import NAME
from llm_service.dialects.upstream import Counts, VendorError, broken
from llm_service.errors import (
    UpstreamError,
    UpstreamOverloaded,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
)

STOP_REASONS: Mapping[str, StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_IN_BAND: tuple[tuple[type[UpstreamError], frozenset[str]], ...] = (
    (UpstreamQuotaExhausted, frozenset({"insufficient_quota", "credit_balance_exhausted"})),
    (UpstreamRateLimited, frozenset({"rate_limit_exceeded", "rate_limit_error", "requests", "tokens", "429"})),
    (UpstreamOverloaded, frozenset({"server_is_overloaded", "slow_down", "service_unavailable_error", "503"})),
    (UpstreamRejected, frozenset({"invalid_request_error", "400"})),
)
_MOST_STOPS: Final = 4
# safety_identifier takes 128 characters by the SDK's word, 64 by the OpenAPI file's.
_LONGEST_USER: Final = 64


def write_request(call: Call, conversation: Conversation, target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The conversation as a request to ``target``, and the names of the client's fields left out.

    The system prompt becomes one leading ``system`` message (``developer`` for
    reasoning models), its blocks as text parts. ``temperature``, ``top_p`` and
    ``stop`` are left out where the model refuses them.

    Raises UnsupportedParameter naming what OpenAI cannot take.
    """
    dropped = []
    # A server that still wants max_tokens may not know the newer fields either.
    current = target.provider.max_tokens_field == "max_completion_tokens"
    _refuse_prefill(call, conversation)
    body: dict[str, Any] = {"model": target.model, "messages": _messages(conversation, target)}
    if conversation.max_tokens is not None:
        body[target.provider.max_tokens_field] = conversation.max_tokens
    if len(conversation.stop) > _MOST_STOPS:
        fields.unsupported(fields.client_field(call, "stop"), f"it takes at most {_MOST_STOPS} stop sequences")
    sampling = {"temperature": conversation.temperature, "top_p": conversation.top_p, "stop": list(conversation.stop)}
    for name, value in sampling.items():
        if value is None or value == []:
            continue
        if target.sampling:
            body[name] = value
        else:
            dropped.append(fields.client_field(call, name))
    if conversation.top_k is not None:
        dropped.append("top_k")
    if conversation.user is not None:
        body["safety_identifier" if current else "user"] = _user(conversation.user)
    if call.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
        if current:
            body["stream_options"]["include_obfuscation"] = False  # padding, of no use behind TLS of our own
    return body, tuple(dropped)


def _refuse_prefill(call: Call, conversation: Conversation) -> None:
    """OpenAI would begin a new turn after a last message of the assistant's, not continue it."""
    if conversation.messages and conversation.messages[-1].role == "assistant":
        path = fields.message_path(call, conversation, len(conversation.messages) - 1)
        fields.unsupported(f"{path}.role", "the last message must be the user's, an answer cannot be continued")


def _messages(conversation: Conversation, target: Target) -> list[dict[str, Any]]:
    system = "system" if target.sampling else "developer"
    messages = []
    if conversation.system:
        messages.append({"role": system, "content": _content(conversation.system)})
    for message in conversation.messages:
        role = system if message.role == "system" else message.role
        messages.append({"role": role, "content": _content(message.parts)})
    return messages


def _content(parts: tuple[Part, ...]) -> Any:
    """A lone text as a string, which every server takes; else a list of parts."""
    if len(parts) == 1:
        return parts[0].text
    return [_WRITERS[type(part)](part) for part in parts]


# One row per part that can cross.
_WRITERS: Mapping[type, Callable[[Part], dict[str, Any]]] = {Text: lambda part: {"type": "text", "text": part.text}}


def _user(user: str) -> str:
    """The end user's name, as a digest when it is too long: still stable, still one per user."""
    return user if len(user) <= _LONGEST_USER else hashlib.sha256(user.encode()).hexdigest()


def forward(call: Call, target: Target) -> dict[str, Any]:
    """The client's own body for ``target``; a stream is made to tell its usage, which the client may not see."""
    body = {**call.body, "model": target.model}
    if call.stream:
        body["stream_options"] = {**(call.body.get("stream_options") or {}), "include_usage": True}
    return body


def read_usage(given: Any, characters: int, call: Call | None, service_tier: Any = None) -> Usage:
    """The vendor's usage object, estimated where it is missing or cannot be believed.

    ``service_tier`` is the answer's, which tells how it was billed (the request's is only a wish).
    """
    counts = Counts(given)
    prompt = counts.required("prompt_tokens", upstream.estimated_input(call))
    completion = counts.required("completion_tokens", upstream.estimated_output(characters))
    cached = counts.optional("prompt_tokens_details", "cached_tokens", most=prompt)
    written = counts.optional("prompt_tokens_details", "cache_write_tokens", most=prompt - cached)
    heard = counts.optional("prompt_tokens_details", "audio_tokens", most=prompt)
    seen = counts.optional("prompt_tokens_details", "image_tokens", most=prompt - heard)
    reasoning = counts.optional("completion_tokens_details", "reasoning_tokens", most=completion)
    spoken = counts.optional("completion_tokens_details", "audio_tokens", most=completion - reasoning)
    drawn = counts.optional("completion_tokens_details", "image_tokens", most=completion - reasoning - spoken)
    return Usage(
        prompt,
        completion,
        cached,
        written,
        reasoning_tokens=reasoning,
        exact=counts.exact,
        input_audio_tokens=heard,
        input_image_tokens=seen,
        output_audio_tokens=spoken,
        output_image_tokens=drawn,
        tier=upstream.tier(service_tier),
    )


def read_reply(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer. Raises UpstreamBroken when it is none, or not one text."""
    choice = _choices(body)[0]
    message = choice.get("message")
    if not isinstance(message, dict) or not isinstance(choice.get("finish_reason"), str):
        broken("a choice has no message or no finish_reason")
    if message.get("tool_calls") or message.get("function_call"):
        broken("it calls a tool that it was not given")
    content, refusal = message.get("content"), message.get("refusal")
    text = content if content is not None else refusal
    if not isinstance(text, str | None):
        broken("the message's content is not a string")
    return Answer(
        usage=read_usage(body.get("usage"), len(text or ""), call, body.get("service_tier")),
        stop_reason="refusal" if refusal else STOP_REASONS.get(choice["finish_reason"], "other"),
        parts=(Text(text),) if text else (),
        model=upstream.model_name(body.get("model")),
    )


def read_verbatim(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer that the client gets as it is. Raises UpstreamBroken when it is none."""
    choices = _choices(body)
    messages = [choice.get("message") for choice in choices]
    characters = sum(characters_of(message) for message in messages if isinstance(message, dict))
    return Answer(
        usage=read_usage(body.get("usage"), characters, call, body.get("service_tier")),
        stop_reason=STOP_REASONS.get(str(choices[0].get("finish_reason")), "other"),
        model=upstream.model_name(body.get("model")),
        body=body,
    )


def _choices(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    if body.get("error"):  # some servers say 200 and mean 500
        raise in_band(body)
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        broken("it has no choices")
    return choices


def characters_of(delta: Mapping[str, Any]) -> int:
    """How much text a delta or a message holds, whatever its kind, for an estimate."""
    total = sum(
        len(value)
        for name in ("content", "refusal", "reasoning_content", "reasoning")
        if isinstance(value := delta.get(name), str)
    )
    calls = delta.get("tool_calls")
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    for function in (*functions, delta.get("function_call")):
        if isinstance(function, dict) and isinstance(arguments := function.get("arguments"), str):
            total += len(arguments)
    return total


def in_band(chunk: Mapping[str, Any]) -> UpstreamError:
    return upstream.in_band(NAME, read_error(chunk), _IN_BAND)


def read_error(body: object, status: int = 0) -> VendorError:
    """OpenAI's ``{"error": {...}}``, or what other servers send in its place: a string, or the object bare."""
    if not isinstance(body, dict):
        return VendorError()
    error = body.get("error", body)
    if isinstance(error, dict):
        return VendorError.of(error)
    return VendorError.of({"message": error})
