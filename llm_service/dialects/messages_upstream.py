"""Anthropic Messages, the upstream's side: requests out, plain answers and errors in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from llm_service.catalog import Target
from llm_service.conversation import Answer, Call, Conversation, Part, StopReason, Text, Usage
from llm_service.dialects import fields, upstream
from llm_service.dialects.messages_client import NAME
from llm_service.dialects.upstream import Counts, VendorError, broken
from llm_service.errors import (
    UpstreamError,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
)

STOP_REASONS: Mapping[str, StopReason] = {
    "end_turn": "end_turn",
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "refusal": "refusal",
}
_IN_BAND: upstream.Kinds = (
    (UpstreamQuotaExhausted, frozenset({"billing_error"})),
    (UpstreamOverloaded, frozenset({"overloaded_error"})),
    (UpstreamRateLimited, frozenset({"rate_limit_error"})),
    (UpstreamTimeout, frozenset({"timeout_error"})),
    (UpstreamFailed, frozenset({"api_error"})),
    (
        UpstreamRejected,
        frozenset({"invalid_request_error", "authentication_error", "permission_error", "not_found_error"}),
    ),
)
# Anthropic requires max_tokens; this is for a target whose own limit the catalogue does not know.
DEFAULT_MAX_TOKENS: Final = 4096
# Blocks that carry no answer: the model's own thinking, which only Anthropic's clients can use.
SILENT_BLOCKS: Final = ("thinking", "redacted_thinking")


def write_request(call: Call, conversation: Conversation, target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The conversation as a request to ``target``, and the names of the client's fields left out.

    * The system prompt becomes the top-level ``system``, block by block. A system
      message further on keeps its place but not its rank: it goes into the user's
      turn there, marked ``System: ``, and its role is named among the fields left
      out. Hoisting it would change the order of the conversation without a word,
      and older models refuse the role.
    * ``temperature`` above 1 (OpenAI's scale ends at 2) becomes 1, as in
      Anthropic's own compatibility layer. Beside it ``top_p`` is left out: models
      from Claude 4 on refuse both together. Models without sampling get neither.
    * ``max_tokens`` is required there: the model's own limit when the client gave none.

    Raises UnsupportedParameter naming what Anthropic cannot take.
    """
    dropped: list[str] = []
    body: dict[str, Any] = {
        "model": target.model,
        "max_tokens": conversation.max_tokens or target.max_output or DEFAULT_MAX_TOKENS,
        "messages": _messages(call, conversation, dropped),
    }
    if system := [{"type": "text", "text": text.text} for text in conversation.system if text.text]:
        body["system"] = system
    if conversation.stop:
        if any(not stop.strip() for stop in conversation.stop):
            fields.unsupported(fields.client_field(call, "stop"), "a stop sequence there needs more than white space")
        body["stop_sequences"] = list(conversation.stop)
    _sampling(conversation, target, body, dropped)
    if conversation.user is not None:
        body["metadata"] = {"user_id": conversation.user}
    if call.stream:
        body["stream"] = True
    return body, tuple(dropped)


def _sampling(conversation: Conversation, target: Target, body: dict[str, Any], dropped: list[str]) -> None:
    both = conversation.temperature is not None and conversation.top_p is not None
    for name in ("temperature", "top_p", "top_k"):
        value = getattr(conversation, name)
        if value is None:
            continue
        if not target.sampling or (name == "top_p" and both):
            dropped.append(name)
        else:
            body[name] = min(value, 1) if name == "temperature" else value


def _messages(call: Call, conversation: Conversation, dropped: list[str]) -> list[dict[str, Any]]:
    said = conversation.messages
    if not said:
        fields.unsupported("messages", "it needs at least one message of the user's")
    if said[0].role == "assistant":
        path = fields.message_path(call, conversation, 0)
        fields.unsupported(f"{path}.role", "a conversation begins with the user there")
    if said[-1].role == "assistant":
        path = fields.message_path(call, conversation, len(said) - 1)
        fields.unsupported(f"{path}.role", "the last message must be the user's, current models refuse a prefill")
    written = []
    for index, message in enumerate(said):
        role, mark = message.role, ""
        if message.role == "system":
            role, mark = "user", "System: "
            dropped.append(f"{fields.message_path(call, conversation, index)}.role")
        blocks = [_WRITERS[type(part)](part) for part in message.parts if part.text]  # an empty text is a 400
        if not blocks:
            path = fields.message_path(call, conversation, index)
            fields.unsupported(f"{path}.content", "a message must not be empty")
        if mark:
            blocks[0]["text"] = mark + blocks[0]["text"]
        lone = len(blocks) == 1 and len(message.parts) == 1
        written.append({"role": role, "content": blocks[0]["text"] if lone else blocks})
    return written


# One row per part that can cross.
_WRITERS: Mapping[type, Callable[[Part], dict[str, Any]]] = {Text: lambda part: {"type": "text", "text": part.text}}


def forward(call: Call, target: Target) -> dict[str, Any]:
    """The client's own body for ``target``."""
    return {**call.body, "model": target.model}


def read_usage(given: Any, characters: int, call: Call | None) -> Usage:
    """The vendor's usage object, estimated where it is missing or cannot be believed.

    Anthropic's ``input_tokens`` leaves out the cache; ours is the whole prompt.
    """
    counts = Counts(given)
    cached = counts.optional("cache_read_input_tokens", most=upstream.MOST_TOKENS)
    written = counts.optional("cache_creation_input_tokens", most=upstream.MOST_TOKENS)
    written_1h = counts.optional("cache_creation", "ephemeral_1h_input_tokens", most=written)
    plain = counts.required("input_tokens", max(0, upstream.estimated_input(call) - cached - written))
    output = counts.required("output_tokens", upstream.estimated_output(characters))
    thinking = counts.optional("output_tokens_details", "thinking_tokens", most=output)
    searches = counts.optional("server_tool_use", "web_search_requests", most=upstream.MOST_SEARCHES)
    words = given if isinstance(given, dict) else {}
    return Usage(
        plain + cached + written,
        output,
        cached,
        written,
        written_1h,
        thinking,
        counts.exact,
        web_searches=searches,
        # Each has a price of its own: https://platform.claude.com/docs/en/about-claude/pricing
        tier=upstream.tier(words.get("service_tier"), words.get("speed"), words.get("inference_geo")),
    )


def read_reply(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer. Raises UpstreamBroken when it is none, or not text."""
    parts = []
    for block in _content(body):
        kind = block.get("type")
        if kind in SILENT_BLOCKS:
            continue
        if kind != "text" or not isinstance(block.get("text"), str):
            broken("it has a content block that is not text")
        if block["text"]:
            parts.append(Text(block["text"]))
    return Answer(
        usage=read_usage(body.get("usage"), _characters(body), call),
        stop_reason=STOP_REASONS.get(str(body.get("stop_reason")), "other"),
        stop_sequence=stop_sequence(body),
        parts=tuple(parts),
        model=upstream.model_name(body.get("model")),
    )


def read_verbatim(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer that the client gets as it is. Raises UpstreamBroken when it is none."""
    _content(body)
    return Answer(
        usage=read_usage(body.get("usage"), _characters(body), call),
        stop_reason=STOP_REASONS.get(str(body.get("stop_reason")), "other"),
        model=upstream.model_name(body.get("model")),
        body=body,
    )


def _content(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    if body.get("type") == "error":
        raise in_band(body)
    content = body.get("content")
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        broken("it has no content")
    if not isinstance(body.get("stop_reason"), str):
        broken("it has no stop_reason")
    return content


def _characters(body: Mapping[str, Any]) -> int:
    return sum(characters_of(block) for block in body["content"])


def characters_of(delta: Mapping[str, Any]) -> int:
    """How much text a delta or a block holds, whatever its kind, for an estimate."""
    return sum(len(value) for name in ("text", "partial_json", "thinking") if isinstance(value := delta.get(name), str))


def stop_sequence(given: Mapping[str, Any]) -> str | None:
    value = given.get("stop_sequence")
    return value if isinstance(value, str) else None


def in_band(event: Mapping[str, Any]) -> UpstreamError:
    return upstream.in_band(NAME, read_error(event), _IN_BAND)


def read_error(body: object, status: int = 0) -> VendorError:
    """Anthropic's ``{"type": "error", "error": {...}}``; its code is ``details.error_code``."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return VendorError()
    details = error.get("details")
    return VendorError.of(error, details.get("error_code") if isinstance(details, dict) else None)
