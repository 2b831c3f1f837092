"""OpenAI Responses, the client's side: what a request must look like, and which fields other formats know.

The fields follow the types of the openai SDK 3.52.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from marshmallow import ValidationError
from marshmallow import fields as base

from llm_service.core import errors
from llm_service.formats import schema_fields as fields
from llm_service.formats import sse, validation
from llm_service.formats.defaults import native_system
from llm_service.formats.rules import ExtraField

NAME = "responses"
PATHS = ("/v1/responses",)
KEEP_ALIVE = sse.KEEP_ALIVE

ROLES = ("user", "assistant", "system", "developer")
# A request needs no ``input`` if it has one of these: each brings an input of its own.
_INSTEAD_OF_INPUT = ("prompt", "previous_response_id", "conversation")

# The fields that become fields of ``Conversation``, whichever format the upstream speaks.
COMMON: Final = frozenset(
    {
        "model",
        "input",
        "instructions",
        "max_output_tokens",
        "temperature",
        "top_p",
        "stream",
        "stream_options",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "text",
        "reasoning",
        "include",
        "user",
        "safety_identifier",
        "service_tier",
    }
)
# Every other field, by the name that all formats share. The target's format decides what happens to it.
EXTRAS: Final[Mapping[str, ExtraField]] = {
    "access_programs": ExtraField("access_programs"),
    "background": ExtraField("background", (False,)),
    "client_metadata": ExtraField("client_metadata"),
    "context_management": ExtraField("context_management", ([],)),
    "conversation": ExtraField("conversation"),
    "image": ExtraField("image"),
    "max_tool_calls": ExtraField("max_tool_calls"),
    "metadata": ExtraField("metadata", ({},)),
    "moderation": ExtraField("moderation"),
    "previous_response_id": ExtraField("previous_response_id"),
    "prompt": ExtraField("prompt"),
    "prompt_cache_key": ExtraField("prompt_cache_key"),
    "prompt_cache_options": ExtraField("prompt_cache_options", ({},)),
    "prompt_cache_retention": ExtraField("prompt_cache_retention"),
    "store": ExtraField("store", (False,)),
    "top_logprobs": ExtraField("top_logprobs", (0,)),
    "truncation": ExtraField("truncation", ("disabled",)),
}
# The members of ``text`` that are extra fields.
TEXT_EXTRAS: Final[Mapping[str, ExtraField]] = {"verbosity": ExtraField("verbosity", ("medium",))}
# The value of ``include`` that is an extra field: it asks for what chat calls ``logprobs``.
INCLUDE_LOGPROBS: Final = "message.output_text.logprobs"

# The value of ``include`` that asks for reasoning as the vendor encrypts it, so that it can be sent back.
ENCRYPTED_REASONING: Final = "reasoning.encrypted_content"

# What this format calls the fields of ``Conversation`` that have another name there.
FIELD_NAMES: Final[Mapping[str, str]] = {
    "strict": "tools[].strict",
    "max_tokens": "max_output_tokens",
    "effort": "reasoning.effort",
    "thoughts": "input[].reasoning",
    "cache": "prompt_cache_breakpoint",
    "format": "text.format",
    "tier": "service_tier",
}


class Input(fields._Strict, base.Raw):
    """A string, or a list of items. An item is a message with a role, or it has a type.

    This checks only what all items have in common. What an item of one type needs is
    checked where the item is read, or by the vendor.
    """

    def __init__(self, help: str, **options: Any) -> None:
        listed = {"type": "array", "items": {"type": "object"}, "maxItems": fields.MAX_MESSAGES}
        super().__init__(help, metadata={"oneOf": [{"type": "string"}, listed]}, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if isinstance(value, str):
            return value
        if not isinstance(value, list):
            raise ValidationError(" must be a string or a list of items")
        if len(value) > fields.MAX_MESSAGES:
            raise ValidationError(f" must have at most {fields.MAX_MESSAGES} items")
        for index, item in enumerate(value):
            if problem := _item_problem(item):
                raise ValidationError(f"[{index}]{problem}")
        return value


def _item_problem(item: Any) -> str | None:
    """What is wrong with an item: the rest of its path, a space, and the rule."""
    if type(item) is not dict:
        return " must be an object"
    kind = item.get("type")
    if not isinstance(kind, str | None):
        return ".type must be a string"
    if kind is not None and kind != "message":
        return None
    if kind is None and item.keys() <= {"id", "type"} and isinstance(item.get("id"), str):
        return None  # a reference to an item that OpenAI keeps
    if item.get("role") not in ROLES:
        return f".role must be one of {', '.join(ROLES)}"
    content = item.get("content")
    if content is None:
        return ".content is required"
    problem = None if type(content) is str else fields._not_parts(content)
    return f".content{problem}" if problem else None


class WordOrObject(fields._Strict, base.Raw):
    """A string, or an object."""

    rule = "a string or an object"

    def __init__(self, help: str, **options: Any) -> None:
        super().__init__(help, metadata={"oneOf": [{"type": "string"}, {"type": "object"}]}, **options)

    def accepts(self, value: Any) -> bool:
        return isinstance(value, (str, dict))


class RequestSchema(fields.WireSchema):
    """``POST /v1/responses``. Fields not listed here pass to OpenAI as they are."""

    model = fields.Word("A model of this service, or an alias.", 256, filled=True, required=True)
    input = Input("The input: text, or a list of messages, tool calls and their results.")
    instructions = fields.Word("System prompt.")
    max_output_tokens = fields.Integer("The most tokens to generate, reasoning included.", 1, fields.MAX_TOKENS)
    temperature = fields.Number("Sampling temperature.", 0, 2)
    top_p = fields.Number("Nucleus sampling.", 0, 1)
    stream = fields.Flag("Answer as server-sent events.")
    stream_options = fields.JsonObject("include_obfuscation: pad the events.")
    tools = fields.JsonList("Tools the model may call.")
    tool_choice = WordOrObject("How the model should use the tools.")
    parallel_tool_calls = fields.Flag("Whether several tools may be called at once.")
    max_tool_calls = fields.Integer("The most calls of OpenAI's own tools.", 1, fields.MAX_TOKENS)
    text = fields.JsonObject("The format and the verbosity of the answer.")
    reasoning = fields.JsonObject("The effort, and whether to summarise the reasoning.")
    include = fields.JsonList("What else the answer should include.")
    top_logprobs = fields.Integer("How many of the most likely tokens to return at each position.", 0, 20)
    metadata = fields.JsonObject("Up to 16 key-value pairs that OpenAI keeps.")
    store = fields.Flag("Whether OpenAI keeps the answer. This service sends false unless you send true.")
    background = fields.Flag("Answer later. This needs storage.")
    previous_response_id = fields.Word("Continue a stored answer.")
    conversation = WordOrObject("The stored conversation to continue.")
    prompt = fields.JsonObject("A prompt template that OpenAI keeps.")
    user = fields.Word("Your end user. An older name of safety_identifier.")
    safety_identifier = fields.Word("A stable name of your end user.")


_SCHEMA = RequestSchema()


def check(body: Any) -> dict[str, Any]:
    """``body`` if it is a well-formed request, else InvalidRequest naming the field."""
    validation.check(_SCHEMA, body)
    if body.get("input") is None and all(body.get(name) is None for name in _INSTEAD_OF_INPUT):
        raise errors.InvalidRequest("input is required.", param="input")
    checked: dict[str, Any] = body
    return checked


def prompt(body: Mapping[str, Any]) -> list[Any]:
    """The JSON values that hold the prompt, for its keyed hash."""
    return [body.get("instructions"), body.get("input"), body.get("prompt"), *native_system(body)]
