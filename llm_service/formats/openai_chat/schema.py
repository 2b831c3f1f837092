"""OpenAI Chat Completions, the client's side: the fields of a request.

Field by field this follows the openai SDK 3.52 and its OpenAPI file. When the request crosses to another
format, ``COMMON`` and ``EXTRAS`` say what its reader does with each field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_service.formats import schema_fields as fields
from llm_service.formats import sse, validation
from llm_service.formats.defaults import native_system
from llm_service.formats.rules import ExtraField

NAME = "chat"
PATHS = ("/v1/chat/completions",)
KEEP_ALIVE = sse.KEEP_ALIVE
ROLES = ("developer", "system", "user", "assistant", "tool", "function")
# Our own field in OpenAI's format: Claude's thinking, which the client must send back unchanged.
THINKING = "claude_thinking"
# The field in which LiteLLM keeps the fields of an answer that it does not know.
PROVIDERS_OWN = "provider_specific_fields"
# Fields of an assistant's message that OpenAI does not have: other servers, OpenRouter and LiteLLM write them.
UNSIGNED_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking_blocks", PROVIDERS_OWN)


class RequestSchema(fields.WireSchema):
    """``POST /v1/chat/completions``. Fields that are not listed here pass to OpenAI unchanged."""

    model = fields.Word("A model of this service, or an alias.", 256, filled=True, required=True)
    messages = fields.Messages("The conversation so far.", ROLES, silent=("assistant", "function"), required=True)
    max_completion_tokens = fields.Integer("The most tokens to generate, reasoning included.", 1, fields.MAX_TOKENS)
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
    reasoning_effort = fields.Word("How much to think: none, minimal, low, medium, high, xhigh or max.", 64)
    service_tier = fields.Word("How to process the request.", 64)
    user = fields.Word("Your end user; older name of safety_identifier.")
    safety_identifier = fields.Word("A stable name of your end user.")


_SCHEMA = RequestSchema()

# The fields that become fields of ``Conversation``.
COMMON: Final = frozenset(
    {
        "model",
        "messages",
        "max_completion_tokens",
        "max_tokens",
        "temperature",
        "top_p",
        "stop",
        "stream",
        "stream_options",
        "user",
        "safety_identifier",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "functions",
        "function_call",
        "response_format",
        "reasoning_effort",
        "service_tier",
    }
)

# All other fields of this API. Other formats use the same names for them in ``Conversation.extras``.
EXTRAS: Final[Mapping[str, ExtraField]] = {
    field.name: field
    for field in (
        ExtraField("audio"),
        ExtraField("frequency_penalty", (0,)),
        ExtraField("logit_bias", ({},)),
        ExtraField("logprobs", (False,)),
        ExtraField("metadata", ({},)),
        ExtraField("modalities", (["text"],)),
        ExtraField("moderation"),
        ExtraField("n", (1,)),
        ExtraField("prediction"),
        ExtraField("presence_penalty", (0,)),
        ExtraField("prompt_cache_key"),
        ExtraField("prompt_cache_options"),
        ExtraField("prompt_cache_retention"),
        ExtraField("seed"),
        ExtraField("store", (False,)),
        ExtraField("top_logprobs", (0,)),
        ExtraField("verbosity", ("medium",)),
        ExtraField("web_search_options"),
    )
}

# What this format calls the fields of ``Conversation`` that have another name here.
FIELD_NAMES: Mapping[str, str] = {
    "strict": "tools[].function.strict",
    "reasoning": "reasoning_effort",
    "effort": "reasoning_effort",
    "thoughts": "messages[].claude_thinking",
    "cache": "prompt_cache_breakpoint",
    "format": "response_format",
    "tier": "service_tier",
    "detail": "image_url.detail",
}


def check(body: Any) -> dict[str, Any]:
    """``body`` itself if it is well-formed. Raises InvalidRequest naming the field otherwise."""
    return validation.check(_SCHEMA, body)


def prompt(body: Mapping[str, Any]) -> list[Any]:
    """The JSON values that hold the prompt, for its keyed hash."""
    return [body.get("messages"), *native_system(body)]


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Whether the client asked for the usage chunk (``stream_options.include_usage``)."""
    return (body.get("stream_options") or {}).get("include_usage") is True
