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
    Message,
    Part,
    Reasoning,
    RedactedThinking,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_service.core.conversation import Conversation
from llm_service.formats import rules, storage, validation
from llm_service.formats.openai_responses.encode_answer import read_carried
from llm_service.formats.openai_responses.parts import Dropped, read_parts
from llm_service.formats.openai_responses.schema import NAME
from llm_service.formats.rules import REJECT, TRANSLATE, FieldRule, drop_unless, reject_unless
from llm_service.formats.tool_calls import check_choice, check_names, check_pairs, read_arguments
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
# An item's own id and status are the vendor's bookkeeping: another vendor has no use for them.
_EVERY_ITEM: Mapping[str, FieldRule] = {"type": TRANSLATE, "id": TRANSLATE, "status": TRANSLATE}
ITEM_CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
    "message": {**_EVERY_ITEM, "role": TRANSLATE, "content": TRANSLATE, "phase": drop_unless()},
    "function_call": {
        **_EVERY_ITEM,
        **dict.fromkeys(("call_id", "name", "arguments"), TRANSLATE),
        "async": reject_unless(False),
        "caller": reject_unless({"type": "direct"}),
        "namespace": REJECT,
    },
    "function_call_output": {
        **_EVERY_ITEM,
        **dict.fromkeys(("call_id", "output"), TRANSLATE),
        "name": drop_unless(),
        "caller": reject_unless({"type": "direct"}),
        "namespace": REJECT,
    },
    "reasoning": {**_EVERY_ITEM, **dict.fromkeys(("summary", "encrypted_content", "content"), TRANSLATE)},
}
TOOL_CROSSING: Mapping[str, FieldRule] = {
    **dict.fromkeys(("type", "name", "parameters", "strict", "description"), TRANSLATE),
    "allowed_callers": reject_unless(["direct"]),
    "async": reject_unless(False),
    "defer_loading": reject_unless(False),
    "output_schema": drop_unless(),
}
TEXT_CROSSING: Mapping[str, FieldRule] = {"format": TRANSLATE, "verbosity": drop_unless("medium")}
FORMAT_CROSSING: Mapping[str, FieldRule] = dict.fromkeys(("type", "name", "schema", "strict", "description"), TRANSLATE)
REASONING_CROSSING: Mapping[str, FieldRule] = {
    **dict.fromkeys(("effort", "summary", "generate_summary"), TRANSLATE),
    "context": drop_unless("auto"),
    "mode": reject_unless("standard"),
}
_EFFORTS: tuple[str, ...] = get_args(Effort)

# What this format calls the fields of ``Conversation``, where its word is another one.
FIELD_NAMES: Mapping[str, str] = {
    "max_tokens": "max_output_tokens",
    "effort": "reasoning.effort",
    "thoughts": "input[].reasoning",
    "cache": "prompt_cache_breakpoint",
    "format": "text.format",
    "tier": "service_tier",
}


def read_request(body: Mapping[str, Any], headers: Mapping[str, str] = _NO_HEADERS) -> Conversation:
    """A checked body as a conversation. ``instructions`` and leading system messages become its system prompt.

    Raises UnsupportedParameter naming what cannot cross, InvalidRequest what is no
    well-formed item, tool or format.
    """
    field = storage.wanted(body)
    if field is not None:
        validation.unsupported(field, "it needs an answer that OpenAI keeps")
    dropped: Dropped = dict.fromkeys(rules.cross(body, CROSSING))
    turns = _Turns(body.get("instructions"))
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    for index, item in enumerate(items):
        _read_item(turns, item, "input" if isinstance(given, str) else f"input[{index}]", dropped)
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
        tools=tuple(_read_tool(tool, f"tools[{at}]", dropped) for at, tool in enumerate(body.get("tools") or ())),
        tool_choice=_read_choice(body.get("tool_choice")),
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


class _Turns:
    """Items as turns: what the assistant thinks, says and asks for is one, what tools answer the user's next."""

    def __init__(self, instructions: str | None) -> None:
        self.system = [Text(instructions)] if instructions else []
        self._turns: list[tuple[Any, list[tuple[Part, str]]]] = []

    def say(self, role: str, parts: list[tuple[Part, str]], place: str) -> None:
        if role in ("system", "developer"):
            self._instruct(parts, place)
            return
        last = self._turns[-1] if self._turns else None
        # A user's words after tools' results belong to their turn; two messages of the user's stay two.
        if last is not None and last[0] == role and (role == "assistant" or type(last[1][-1][0]) is ToolResult):
            last[1].extend(parts)
        elif parts:
            self._turns.append((role, parts))

    def _instruct(self, parts: list[tuple[Part, str]], place: str) -> None:
        if self._turns:
            self._turns.append(("system", parts))
            return
        for part, where in parts:
            if type(part) is not Text:
                validation.unsupported(where or place, "a system message holds text there")
            self.system.append(part)

    def answer(self, result: ToolResult, place: str) -> None:
        if not self._turns or self._turns[-1][0] != "user":
            self._turns.append(("user", []))
        said = self._turns[-1][1]
        # Before what the user says: a result is the first thing after the call.
        at = next((at for at, (part, _) in enumerate(said) if type(part) is not ToolResult), len(said))
        said.insert(at, (result, place))

    def messages(self) -> list[Message]:
        return [
            Message(role, tuple(part for part, _ in parts), tuple(place for _, place in parts))
            for role, parts in self._turns
        ]


def _read_item(turns: _Turns, item: Mapping[str, Any], place: str, dropped: Dropped) -> None:
    kind = item.get("type") or "message"
    fates = ITEM_CROSSING.get(kind)
    if fates is None:
        validation.unsupported(place)
    dropped.update((f"input[].{name}", None) for name in rules.cross(item, fates, f"{place}."))
    if kind == "message":
        where = f"{place}.content" if place != "input" else place
        turns.say(item["role"], read_parts(item["content"], where, dropped), where)
    elif kind == "function_call":
        arguments = read_arguments(item.get("arguments"), f"{place}.arguments")
        call = ToolCall(text_at(item, place, "call_id"), text_at(item, place, "name"), arguments)
        turns.say("assistant", [(call, place)], place)
    elif kind == "function_call_output":
        call_id = text_at(item, place, "call_id")
        parts = tuple(part for part, _ in read_parts(item.get("output"), f"{place}.output", dropped))
        turns.answer(ToolResult(call_id, parts), place)  # type: ignore[arg-type]
    else:
        turns.say("assistant", [(_read_thinking(item, place), place)], place)


def _read_thinking(item: Mapping[str, Any], place: str) -> Part:
    """Reasoning with its vendor's word beside it: another's as it was carried, or OpenAI's own."""
    text = "\n\n".join(
        validation.text_of(part, f"{place}.{name}")
        for name in ("summary", "content")
        for part in item.get(name) or ()
        if isinstance(part, dict)
    )
    encrypted = "" if item.get("encrypted_content") is None else validation.text_of(item, place, "encrypted_content")
    carried = read_carried(encrypted)
    if carried is not None:
        vendor, signature, redacted = carried
        return RedactedThinking(signature, vendor) if redacted else Thinking(text, signature, vendor)
    return Thinking(text, own_signature(item.get("id"), encrypted) if encrypted else "", NAME)


def own_signature(id: Any, encrypted: str) -> str:
    """What OpenAI wants to see again beside a summary: the item's id and its encrypted content."""
    return f"{id if isinstance(id, str) else ''}:{encrypted}"


def _read_include(include: Any, dropped: Dropped) -> None:
    """Encrypted reasoning is always there, and the rest is about tools of OpenAI's own."""
    for index, name in enumerate(include or ()):
        if name == "message.output_text.logprobs":
            validation.unsupported(f"include[{index}]")
        if name != "reasoning.encrypted_content":
            dropped["include"] = None


def _read_tool(tool: Any, place: str, dropped: Dropped) -> Tool:
    if not isinstance(tool, dict):
        invalid(place, "must be an object")
    if tool.get("type") != "function":
        validation.unsupported(place, "only functions have a counterpart there")
    dropped.update((f"tools[].{name}", None) for name in rules.cross(tool, TOOL_CROSSING, f"{place}."))
    schema, strict = tool.get("parameters"), tool.get("strict")
    if not isinstance(schema, dict | None):
        invalid(f"{place}.parameters", "must be an object")
    if not isinstance(strict, bool | None):
        invalid(f"{place}.strict", "must be true or false")
    description = None if tool.get("description") is None else text_at(tool, place, "description", filled=False)
    return Tool(text_at(tool, place, "name"), description, schema, strict, place=place)


def _read_choice(choice: Any) -> ToolChoice | None:
    if choice is None:
        return None
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            invalid("tool_choice", "must be one of auto, none, required, or an object")
        return ToolChoice(choice)  # type: ignore[arg-type]
    if choice.get("type") == "function":
        return ToolChoice("tool", text_at(choice, "tool_choice", "name"))
    if choice.get("type") != "allowed_tools":
        validation.unsupported("tool_choice")
    mode, tools = choice.get("mode"), choice.get("tools")
    if mode not in ("auto", "required") or not isinstance(tools, list):
        invalid("tool_choice", "must have a mode, auto or required, and a list of tools")
    names = []
    for index, tool in enumerate(tools):
        place = f"tool_choice.tools[{index}]"
        if not isinstance(tool, dict) or tool.get("type") != "function":
            validation.unsupported(place, "only functions have a counterpart there")
        names.append(text_at(tool, place, "name"))
    return ToolChoice(mode, allowed=tuple(names))


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
