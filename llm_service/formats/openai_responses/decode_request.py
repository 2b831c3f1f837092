"""OpenAI Responses, the client's side: a request becomes a conversation, for an upstream that speaks another format.

Fields that all formats know become fields of ``Conversation``. The others become its
extra fields, and the target's format decides what happens to them. What happens to the
members of nested objects, which only this format has, is in the tables ``*_CROSSING``
here, in ``decode_messages`` and in ``decode_tools``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_service.core.content import JsonFormat, Reasoning
from llm_service.core.conversation import Conversation, Extra
from llm_service.formats import reasoning, rules, service_tiers, storage, validation
from llm_service.formats.openai_chat.decode_request import read_user
from llm_service.formats.openai_responses import decode_messages, decode_tools
from llm_service.formats.openai_responses.decode_parts import Dropped
from llm_service.formats.openai_responses.schema import (
    COMMON,
    ENCRYPTED_REASONING,
    EXTRAS,
    FIELD_NAMES,
    INCLUDE_LOGPROBS,
    TEXT_EXTRAS,
)
from llm_service.formats.openai_responses.tool_names import ToolNames
from llm_service.formats.rules import DROP, TRANSLATE, FieldRule, drop_unless, reject_unless
from llm_service.formats.tool_calls import check_choice, check_pairs
from llm_service.formats.validation import invalid, text_at

_NO_HEADERS: Mapping[str, str] = {}

TEXT_CROSSING: Mapping[str, FieldRule] = {"format": TRANSLATE, **dict.fromkeys(TEXT_EXTRAS, TRANSLATE)}
FORMAT_CROSSING: Mapping[str, FieldRule] = dict.fromkeys(("type", "name", "schema", "strict", "description"), TRANSLATE)
REASONING_CROSSING: Mapping[str, FieldRule] = {
    **dict.fromkeys(("effort", "summary", "generate_summary"), TRANSLATE),
    "context": drop_unless("auto"),
    "mode": reject_unless("standard"),
}


def read_request(body: Mapping[str, Any], headers: Mapping[str, str] = _NO_HEADERS) -> Conversation:
    """A checked body as a conversation. ``instructions`` and leading system messages become its system prompt.

    Raises UnsupportedParameter naming what no other format can express, and InvalidRequest
    naming an item, tool or format that is malformed.
    """
    _check_kept(body)
    dropped: Dropped = {}
    extras = _read_extras(body, dropped)
    names = ToolNames(body)
    tools = decode_tools.read_tools(body, names, dropped)
    turns = decode_messages.Turns(body.get("instructions"))
    decode_messages.read_input(turns, body["input"], names, dropped)
    messages = tuple(turns.messages())
    if not messages:
        if body["input"]:
            validation.unsupported("input[0]", "no item of the input holds anything that the model can read")
        invalid("input", "must have a message with the role user")
    check_pairs(messages, "call_id")
    if any(name not in (INCLUDE_LOGPROBS, ENCRYPTED_REASONING) for name in body.get("include") or ()):
        dropped["include"] = None  # the other values are about OpenAI's own tools
    conversation = Conversation(
        messages=messages,
        system=tuple(turns.system),
        max_tokens=body.get("max_output_tokens"),
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        user=read_user(body, dropped),
        tools=tools,
        tool_choice=decode_tools.read_choice(body.get("tool_choice"), body, names, tools),
        parallel_tool_calls=body.get("parallel_tool_calls"),
        format=_read_format(body.get("text") or {}),
        reasoning=_read_reasoning(body.get("reasoning"), dropped),
        tier=service_tiers.read(body),
        dropped=tuple(dropped),
        extras=extras,
        field_names=FIELD_NAMES,
    )
    check_choice(conversation, "tool_choice")
    return conversation


def _check_kept(body: Mapping[str, Any]) -> None:
    """Raises UnsupportedParameter naming a field that needs something which only OpenAI's Responses API keeps."""
    field = storage.wanted(body)
    if field is not None:
        validation.unsupported(field, "only the Responses API of OpenAI can keep a response and continue it")
    if body.get("prompt") is not None:
        validation.unsupported("prompt", "only the Responses API of OpenAI keeps prompt templates")


def _read_extras(body: Mapping[str, Any], dropped: Dropped) -> dict[str, Extra]:
    """The extra fields, those inside ``text`` and ``include`` included."""
    extras = rules.read_extras(body, COMMON, EXTRAS)
    text = {name: value for name, value in (body.get("text") or {}).items() if name in TEXT_EXTRAS}
    for name, extra in rules.read_extras(text, (), TEXT_EXTRAS, "text.").items():
        rules.add_extra(extras, name, extra)
    if "top_logprobs" in extras:  # chat completions take it only together with logprobs
        extras.setdefault("logprobs", Extra(True, "top_logprobs"))
    for index, name in enumerate(body.get("include") or ()):
        if name == INCLUDE_LOGPROBS:
            extras.setdefault("logprobs", Extra(True, f"include[{index}]"))
    return extras


def _read_format(text: Mapping[str, Any]) -> JsonFormat | None:
    path = "text.format"
    rules.cross(text, TEXT_CROSSING, "text.")
    given = text.get("format")
    if given is None:
        return None
    if not isinstance(given, dict):
        invalid(path, "must be an object")
    rules.cross(given, FORMAT_CROSSING, f"{path}.")
    match given.get("type"):
        case "text":
            return None
        case "json_object":
            return JsonFormat(path=path)
        case "json_schema":
            schema = given.get("schema")
            if not isinstance(schema, dict):
                invalid(f"{path}.schema", "must be an object")
            has_description = given.get("description") is not None
            description = text_at(given, path, "description", filled=False) if has_description else None
            name = text_at(given, path, "name")
            strict = given.get("strict") is True or None
            return JsonFormat(schema, name, description, strict, path=f"{path}.schema")
    invalid(f"{path}.type", "must be one of text, json_object, json_schema")


def _read_reasoning(given: Mapping[str, Any] | None, dropped: Dropped) -> Reasoning | None:
    if not given:
        return None
    rules.name_dropped(dropped, "reasoning", rules.cross(given, REASONING_CROSSING, "reasoning.", DROP))
    effort = given.get("effort")
    if effort is not None and effort not in reasoning.EFFORTS:
        invalid("reasoning.effort", f"must be one of {', '.join(reasoning.EFFORTS)}")
    summary = given.get("summary") or given.get("generate_summary")
    if effort is None and summary is None:
        return None
    return Reasoning(effort, summary=True if summary else None)
