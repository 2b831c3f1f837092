"""OpenAI Responses, the client's side: a request as a conversation, for a model of another vendor.

What becomes of each field is in the tables ``CROSSING``, ``ITEM_CROSSING`` and
``TOOL_CROSSING``; that of the parts in ``responses_parts``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from llm_service.core.content import (
    Effort,
    JsonFormat,
    Reasoning,
)
from llm_service.core.conversation import Conversation
from llm_service.formats import rules, storage, validation
from llm_service.formats.openai_responses import decode_messages, decode_tools
from llm_service.formats.openai_responses.decode_messages import Dropped
from llm_service.formats.openai_responses.schema import FIELD_NAMES
from llm_service.formats.rules import REJECT, TRANSLATE, FieldRule, drop_unless, reject_unless
from llm_service.formats.tool_calls import check_choice, check_names, check_pairs
from llm_service.formats.validation import invalid, text_at

_NO_HEADERS: Mapping[str, str] = {}

# A hint is dropped and named; what would change the answer is refused (translation rules of both vendors).
CROSSING: Mapping[str, FieldRule] = {
    **dict.fromkeys(("model", "input", "instructions", "max_output_tokens", "temperature", "top_p"), TRANSLATE),
    **dict.fromkeys(("stream", "stream_options", "tools", "tool_choice", "parallel_tool_calls"), TRANSLATE),
    **dict.fromkeys(("text", "reasoning", "include", "user", "safety_identifier", "service_tier"), TRANSLATE),
    "max_tool_calls": drop_unless(),
    "metadata": drop_unless({}),
    "prompt_cache_key": drop_unless(),
    "prompt_cache_options": drop_unless({}),
    "prompt_cache_retention": drop_unless(),
    "access_programs": REJECT,
    "background": reject_unless(False),
    "context_management": reject_unless([]),
    "conversation": REJECT,
    "image": REJECT,
    "moderation": REJECT,
    "previous_response_id": REJECT,
    "prompt": REJECT,
    "store": reject_unless(False),
    "top_logprobs": reject_unless(0),
    "truncation": reject_unless("disabled"),
}
TEXT_CROSSING: Mapping[str, FieldRule] = {"format": TRANSLATE, "verbosity": drop_unless("medium")}
FORMAT_CROSSING: Mapping[str, FieldRule] = dict.fromkeys(("type", "name", "schema", "strict", "description"), TRANSLATE)
REASONING_CROSSING: Mapping[str, FieldRule] = {
    **dict.fromkeys(("effort", "summary", "generate_summary"), TRANSLATE),
    "context": drop_unless("auto"),
    "mode": reject_unless("standard"),
}
_EFFORTS: tuple[str, ...] = get_args(Effort)


def read_request(body: Mapping[str, Any], headers: Mapping[str, str] = _NO_HEADERS) -> Conversation:
    """A checked body as a conversation. ``instructions`` and leading system messages become its system prompt.

    Raises UnsupportedParameter naming what cannot cross, InvalidRequest what is no
    well-formed item, tool or format.
    """
    field = storage.wanted(body)
    if field is not None:
        validation.unsupported(field, "it needs an answer that OpenAI keeps")
    dropped: Dropped = dict.fromkeys(rules.cross(body, CROSSING))
    turns = decode_messages.Turns(body.get("instructions"))
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    for index, item in enumerate(items):
        decode_messages.read_item(turns, item, "input" if isinstance(given, str) else f"input[{index}]", dropped)
    _read_include(body.get("include"), dropped)
    messages = tuple(turns.messages())
    if not messages:
        invalid("input", "must have a message of the user's")
    check_pairs(messages, "call_id")
    safety_identifier = body.get("safety_identifier")
    conversation = Conversation(
        messages=messages,
        system=tuple(turns.system),
        max_tokens=body.get("max_output_tokens"),
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        user=body.get("user") if safety_identifier is None else safety_identifier,
        tools=decode_tools.read_tools(body.get("tools"), dropped),
        tool_choice=decode_tools.read_choice(body.get("tool_choice")),
        parallel_tool_calls=body.get("parallel_tool_calls"),
        format=_read_format(body.get("text") or {}, dropped),
        reasoning=_read_reasoning(body.get("reasoning"), dropped),
        tier=_read_tier(body.get("service_tier")),
        dropped=tuple(dropped),
        field_names=FIELD_NAMES,
    )
    check_names(conversation.tools)
    check_choice(conversation, "tool_choice")
    return conversation


def _read_include(include: Any, dropped: Dropped) -> None:
    """Encrypted reasoning is always there, and the rest is about tools of OpenAI's own."""
    for index, name in enumerate(include or ()):
        if name == "message.output_text.logprobs":
            validation.unsupported(f"include[{index}]")
        if name != "reasoning.encrypted_content":
            dropped["include"] = None


def _read_format(text: Mapping[str, Any], dropped: Dropped) -> JsonFormat | None:
    place = "text.format"
    dropped.update((f"text.{name}", None) for name in rules.cross(text, TEXT_CROSSING, "text."))
    given = text.get("format")
    if given is None:
        return None
    if not isinstance(given, dict):
        invalid(place, "must be an object")
    rules.cross(given, FORMAT_CROSSING, f"{place}.")
    match given.get("type"):
        case "text":
            return None
        case "json_object":
            return JsonFormat(place=place)
        case "json_schema":
            schema = given.get("schema")
            if not isinstance(schema, dict):
                invalid(f"{place}.schema", "must be an object")
            told = given.get("description")
            description = None if told is None else text_at(given, place, "description", filled=False)
            name = text_at(given, place, "name")
            return JsonFormat(schema, name, description, given.get("strict") is True or None, place=place)
    invalid(f"{place}.type", "must be one of text, json_object, json_schema")


def _read_reasoning(given: Mapping[str, Any] | None, dropped: Dropped) -> Reasoning | None:
    if not given:
        return None
    dropped.update((f"reasoning.{name}", None) for name in rules.cross(given, REASONING_CROSSING, "reasoning."))
    effort = given.get("effort")
    if effort is not None and effort not in _EFFORTS:
        invalid("reasoning.effort", f"must be one of {', '.join(_EFFORTS)}")
    summary = given.get("summary") or given.get("generate_summary")
    if effort is None and summary is None:
        return None
    return Reasoning(effort, summary=True if summary else None)


def _read_tier(tier: Any) -> str | None:
    if tier is None:
        return None
    if not isinstance(tier, str):
        invalid("service_tier", "must be a string")
    return "standard" if tier == "default" else tier
