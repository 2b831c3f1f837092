"""Anthropic Messages, the client's side: tools and ``tool_choice``, for a model of another format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_service.core.content import Tool, ToolChoice
from llm_service.formats import media, rules, tool_calls, validation
from llm_service.formats.anthropic_messages.decode_messages import Dropped
from llm_service.formats.rules import TRANSLATE, FieldRule, drop_unless, reject_unless

TOOL_CROSSING: Mapping[str, FieldRule] = {
    **dict.fromkeys(("type", "name", "description", "input_schema", "strict", "cache_control"), TRANSLATE),
    "allowed_callers": reject_unless(["direct"]),
    "defer_loading": reject_unless(False),
    "eager_input_streaming": drop_unless(False),
    "input_examples": drop_unless([]),
}
CHOICE_CROSSING: Mapping[str, FieldRule] = dict.fromkeys(("type", "name", "disable_parallel_tool_use"), TRANSLATE)


def read_tools(given: Any, dropped: Dropped) -> tuple[Tool, ...]:
    """The tools of a request. Raises InvalidRequest and UnsupportedParameter with the path of what is wrong."""
    read = []
    for index, tool in enumerate(given or ()):
        path = f"tools[{index}]"
        if not isinstance(tool, dict):
            validation.invalid(path, "must be an object")
        if tool.get("type", "custom") not in ("custom", None):
            validation.unsupported(f"{path}.type", "only Anthropic has this tool")
        dropped.update((f"tools[].{name}", None) for name in rules.cross(tool, TOOL_CROSSING, f"{path}."))
        description = validation.text_at(tool, path, "description", filled=False) if tool.get("description") else None
        strict = tool.get("strict")
        if not isinstance(strict, bool | None):
            validation.invalid(f"{path}.strict", "must be true or false")
        hint = tool.get("cache_control")
        cache = media.read_cache(hint, media.EPHEMERAL, media.ANTHROPIC_TTL, f"{path}.cache_control")
        schema, name = validation.object_at(tool, path, "input_schema"), validation.text_at(tool, path, "name")
        read.append(Tool(name, description, schema, strict, cache, path=f"{path}.input_schema"))
    tool_calls.check_names(read)
    return tuple(read)


_MODES: Mapping[str, ToolChoice] = {
    "auto": ToolChoice("auto"),
    "any": ToolChoice("required"),
    "none": ToolChoice("none"),
}


def read_choice(given: Any) -> tuple[ToolChoice | None, bool | None]:
    """The tool choice, and whether the model may call several tools at once; None where the client does not say."""
    if given is None:
        return None, None
    rules.cross(given, CHOICE_CROSSING, "tool_choice.")
    single = given.get("disable_parallel_tool_use")
    if not isinstance(single, bool | None):
        validation.invalid("tool_choice.disable_parallel_tool_use", "must be true or false")
    parallel = None if single is None else not single
    if given.get("type") == "tool":
        return ToolChoice("tool", validation.text_at(given, "tool_choice", "name")), parallel
    kind = given.get("type")
    choice = _MODES.get(kind) if isinstance(kind, str) else None
    if choice is None:
        validation.invalid("tool_choice.type", "must be auto, any, tool or none")
    return choice, parallel
