"""Anthropic Messages, the client's side: requests in.

Field by field this follows the anthropic SDK 2.11; what crosses to another
vendor follows the table ``CROSSING``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_service.core import errors
from llm_service.core.conversation import Conversation
from llm_service.formats import media, rules, sse, validation
from llm_service.formats import schema_fields as fields
from llm_service.formats import tool_calls as tools
from llm_service.formats.anthropic_messages import decode_messages as messages_parts
from llm_service.formats.rules import REJECT, TRANSLATE, FieldRule, drop_unless, reject_unless

NAME = "messages"
PATHS = ("/v1/messages",)
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
CROSSING: Mapping[str, FieldRule] = {
    **dict.fromkeys(("model", "messages", "max_tokens", "system", "stream", "metadata"), TRANSLATE),
    **dict.fromkeys(("temperature", "top_p", "top_k", "stop_sequences"), TRANSLATE),
    **dict.fromkeys(("tools", "tool_choice", "thinking", "output_config"), TRANSLATE),
    **dict.fromkeys(("cache_control", "service_tier"), TRANSLATE),
    "diagnostics": drop_unless(),
    "speed": drop_unless("standard"),
    "container": REJECT,
    "context_management": REJECT,
    "fallbacks": reject_unless([]),
    "inference_geo": REJECT,
    "mcp_servers": reject_unless([]),
}
_TIERS: Mapping[str, str] = {"auto": "auto", "standard_only": "standard"}


def check(body: Any) -> dict[str, Any]:
    """``body`` if it is a well-formed request, else InvalidRequest naming the field."""
    return validation.check(_SCHEMA, body)


def prompt(body: Mapping[str, Any]) -> list[Any]:
    """The JSON values that hold the prompt, for its keyed hash."""
    return [body.get("system"), body.get("messages")]


# What this format calls the fields of ``Conversation``, where its word is another one.
FIELD_NAMES: Mapping[str, str] = {
    "stop": "stop_sequences",
    "reasoning": "thinking",
    "effort": "output_config.effort",
    "thoughts": "messages[].thinking",
    "cache": "cache_control",
    "format": "output_config.format",
    "user": "metadata.user_id",
    "tier": "service_tier",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
}


def read_request(body: Mapping[str, Any], headers: Mapping[str, str] = _NO_HEADERS) -> Conversation:
    """A checked body as a conversation.

    Raises InvalidRequest for what is wrong, sampling parameters under an API version
    without them included, and UnsupportedParameter naming what cannot cross.
    """
    _check_version(body, headers)
    dropped = dict.fromkeys(rules.cross(body, CROSSING))
    if body["max_tokens"] == 0:
        validation.unsupported("max_tokens", "0 only warms Anthropic's own cache")
    metadata = body.get("metadata") or {}
    rules.cross(metadata, messages_parts.METADATA_CROSSING, "metadata.")
    user, tier = metadata.get("user_id"), body.get("service_tier")
    if tier is not None and tier not in _TIERS:
        validation.invalid("service_tier", f"must be {' or '.join(_TIERS)}")
    choice, parallel = messages_parts.read_choice(body.get("tool_choice"))
    format, effort = messages_parts.read_output(body.get("output_config"))
    hint = body.get("cache_control")
    conversation = Conversation(
        messages=messages_parts.read_messages(body["messages"], dropped),
        system=messages_parts.read_system(body.get("system"), dropped),
        max_tokens=body["max_tokens"],
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        top_k=body.get("top_k"),
        stop=tuple(body.get("stop_sequences") or ()),
        user=None if user is None else validation.text_of(metadata, "metadata", "user_id"),
        tools=messages_parts.read_tools(body.get("tools"), dropped),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        format=format,
        reasoning=messages_parts.read_thinking(body.get("thinking"), effort),
        tier=None if tier is None else _TIERS[tier],
        cache=media.read_cache(hint, media.EPHEMERAL, media.ANTHROPIC_TTL, "cache_control"),
        dropped=tuple(dropped),
        field_names=FIELD_NAMES,
    )
    tools.check_choice(conversation, "tool_choice")
    return conversation


def _check_version(body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    if headers.get("anthropic-version", "") < _NO_SAMPLING_SINCE:
        return
    for name in _SAMPLING:
        if body.get(name) is not None:
            raise errors.InvalidRequest(f"{name}: Extra inputs are not permitted", param=name)
