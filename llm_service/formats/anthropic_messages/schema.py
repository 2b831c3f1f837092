"""Anthropic Messages, the client's side: the fields of a request.

The fields are those of the anthropic SDK 2.11.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_service.formats import schema_fields, sse, validation
from llm_service.formats.rules import ExtraField

NAME = "messages"
PATHS = ("/v1/messages",)
KEEP_ALIVE = sse.KEEP_ALIVE
# The types of blocks that hold reasoning. Anthropic rejects one as the last block of a turn.
THINKING = ("thinking", "redacted_thinking")


class RequestSchema(schema_fields.WireSchema):
    """``POST /v1/messages``. Fields not listed here pass to Anthropic as they are."""

    model = schema_fields.Word("A model of this service, or an alias.", 256, filled=True, required=True)
    max_tokens = schema_fields.Integer(
        "The most tokens to generate; 0 only fills Anthropic's cache.",
        0,
        schema_fields.MAX_TOKENS,
        required=True,
    )
    messages = schema_fields.Messages(
        "The conversation so far.", ("user", "assistant", "system"), first="user", required=True
    )
    system = schema_fields.SystemPrompt("The system prompt: a string or text blocks.")
    temperature = schema_fields.Number("Sampling temperature (anthropic-version 2023-06-01 only).", 0, 1)
    top_p = schema_fields.Number("Nucleus sampling (anthropic-version 2023-06-01 only).", 0, 1)
    top_k = schema_fields.Integer(
        "Sample from the k most likely tokens (anthropic-version 2023-06-01 only).", 0, schema_fields.MAX_TOKENS
    )
    stop_sequences = schema_fields.StopSequences("Strings at which the model stops.", 8192, single=False)
    stream = schema_fields.Flag("Send the answer as server-sent events.")
    metadata = schema_fields.JsonObject("user_id: an opaque identifier of your end user.")
    tools = schema_fields.JsonList("The tools that the model may call.")
    tool_choice = schema_fields.JsonObject("How the model should use the tools.")
    thinking = schema_fields.JsonObject("Whether and how the model thinks.")
    output_config = schema_fields.JsonObject("The effort and the format of the answer.")


_SCHEMA = RequestSchema()

# What this format calls the fields of ``Conversation`` that have another name there.
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

# The fields that are read into fields of ``Conversation``.
COMMON: Final = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "stream", "metadata", "service_tier", "cache_control"),
        *("temperature", "top_p", "top_k", "stop_sequences"),
        *("tools", "tool_choice", "thinking", "output_config"),
    }
)
# The other fields of Anthropic's API; the target decides what happens to them. The last three are in its beta API.
EXTRAS: Mapping[str, ExtraField] = {
    "container": ExtraField("container"),
    "diagnostics": ExtraField("diagnostics"),
    "inference_geo": ExtraField("inference_geo"),
    "speed": ExtraField("speed", ("standard",)),
    "context_management": ExtraField("context_management"),
    "fallbacks": ExtraField("fallbacks", ([],)),
    "mcp_servers": ExtraField("mcp_servers", ([],)),
}


def check(body: Any) -> dict[str, Any]:
    """``body`` itself. Raises InvalidRequest naming the field that is wrong."""
    return validation.check(_SCHEMA, body)


def prompt(body: Mapping[str, Any]) -> list[Any]:
    """The JSON values that hold the prompt, for its keyed hash."""
    return [body.get("system"), body.get("messages")]
