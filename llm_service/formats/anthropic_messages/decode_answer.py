"""Anthropic Messages, the upstream's side: plain answers, usage and errors as values of this service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from llm_service.core import identifiers
from llm_service.core.call import Call
from llm_service.core.content import Part, RedactedThinking, Refusal, Text, Thinking, ToolCall
from llm_service.core.errors import (
    UpstreamError,
)
from llm_service.core.events import Answer, StopReason
from llm_service.core.usage import Usage
from llm_service.formats import decoding
from llm_service.formats.anthropic_messages.schema import NAME
from llm_service.formats.decoding import Counts, VendorError, broken

STOP_REASONS: Mapping[str, StopReason] = {
    "end_turn": "end_turn",
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "refusal": "refusal",
}


# The names of the counts: those of this format, and those of chat completions, which some servers use here too.
PROMPT_TOKENS: Final = ("input_tokens", "prompt_tokens")
OUTPUT_TOKENS: Final = ("output_tokens", "completion_tokens")


def read_usage(given: Any, characters: int, call: Call | None) -> Usage:
    """The vendor's usage object. Counts that are missing or impossible are estimated, from ``characters`` of output.

    Anthropic's ``input_tokens`` does not include the tokens that the cache read or wrote; ``Usage.input_tokens`` is
    the whole prompt.
    """
    counts = Counts(given)
    cached = counts.optional("cache_read_input_tokens", maximum=decoding.MAX_TOKENS)
    written = counts.optional("cache_creation_input_tokens", maximum=decoding.MAX_TOKENS)
    written_1h = counts.optional("cache_creation", "ephemeral_1h_input_tokens", maximum=written)
    plain, expected = counts.known(*PROMPT_TOKENS), decoding.estimated_input(call)
    if plain is None or (plain == 0 < expected and not cached and not written):  # the cache may hold a whole prompt
        plain = counts.estimated(max(0, expected - cached - written))
    output = counts.required(OUTPUT_TOKENS, decoding.estimated_output(characters))
    output, thinking = counts.reasoning(plain + cached + written, output, "output_tokens_details", "thinking_tokens")
    searches = counts.optional("server_tool_use", "web_search_requests", maximum=decoding.MAX_SEARCHES)
    fields = given if isinstance(given, dict) else {}
    return Usage(
        plain + cached + written,
        output,
        cached,
        written,
        written_1h,
        thinking,
        counts.exact,
        web_searches=searches,
        # Each of the three has its own price: https://platform.claude.com/docs/en/about-claude/pricing
        tier=decoding.service_tier(fields.get("service_tier"), fields.get("speed"), fields.get("inference_geo")),
        lost=counts.lost,
    )


def reported_usage(body: Mapping[str, Any], call: Call | None) -> Usage | None:
    """What a plain answer that failed reports as its usage, None if it reports none."""
    return read_usage(body.get("usage"), 0, call) if decoding.has_counts(body.get("usage")) else None


def read_answer(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer, for a client of another format.

    Raises UpstreamBroken if ``body`` is not an answer, or has content that other formats cannot express.
    """
    parts = [part for block in content_of(body) if (part := _read_block(block)) is not None]
    decoding.check_calls(call, sum(type(part) is ToolCall for part in parts))
    reason = stop_reason(body["stop_reason"])
    if reason == "refusal" and (text := explanation(body)):
        parts.append(Refusal(text))
    return Answer(
        usage=read_usage(body.get("usage"), characters_in(body), call),
        stop_reason=reason,
        stop_sequence=stop_sequence(body),
        parts=tuple(parts),
        model=identifiers.model_name(body.get("model")),
    )


def _read_block(block: Mapping[str, Any]) -> Part | None:
    match block:
        case {"type": "text", "text": str(text)}:
            return Text(text) if text else None
        case {"type": "tool_use", "id": str(id), "name": str(name), "input": dict(given)} if id and name:
            return ToolCall(id, name, orjson.dumps(given).decode())
        case {"type": "thinking", "thinking": str(text), "signature": str(signature)}:
            return Thinking(text, signature, NAME)
        case {"type": "redacted_thinking", "data": str(data)}:
            return RedactedThinking(data, NAME)
    broken("it has a content block that has no counterpart in the client's format")


def explanation(given: Mapping[str, Any]) -> str:
    """Why the model refused to answer; "" if it does not say."""
    details = given.get("stop_details")
    text = details.get("explanation") if isinstance(details, dict) else None
    return text if isinstance(text, str) else ""


def content_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The content blocks of a plain answer. Raises UpstreamBroken if ``body`` is not one, and its in-band error."""
    if body.get("type") == "error":
        raise in_band(body)
    content = body.get("content")
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        broken("it has no content")
    if not isinstance(body.get("stop_reason"), str):
        broken("it has no stop_reason")
    return content


def characters_in(body: Mapping[str, Any]) -> int:
    """The number of characters in a plain answer."""
    return sum(characters_of(block) for block in body["content"])


def characters_of(delta: Mapping[str, Any]) -> int:
    """The number of characters in a delta or a block of any type, for an estimate of its tokens."""
    return sum(len(value) for name in ("text", "partial_json", "thinking") if isinstance(value := delta.get(name), str))


def stop_reason(word: str) -> StopReason:
    """Why the answer ended, for a client of another format.

    Raises an UpstreamError for a word that has no counterpart, such as ``pause_turn``: the answer may go on or was
    cut, and must not look complete.
    """
    known = STOP_REASONS.get(word)
    if known is None:
        raise decoding.in_band(NAME, VendorError.of({"code": word}))
    return known


def stop_sequence(given: Mapping[str, Any]) -> str | None:
    value = given.get("stop_sequence")
    return value if isinstance(value, str) else None


def in_band(event: Mapping[str, Any]) -> UpstreamError:
    """The error that an answer with status 200 reports."""
    return decoding.in_band(NAME, read_error(event))


def read_error(body: object, status: int = 0) -> VendorError:
    """The vendor's error from Anthropic's ``{"type": "error", "error": {...}}``. Its code is ``details.error_code``."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return VendorError()
    details = error.get("details")
    return VendorError.of(error, details.get("error_code") if isinstance(details, dict) else None)
