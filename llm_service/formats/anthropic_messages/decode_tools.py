"""Anthropic Messages, the client's side: tools and ``tool_choice``, for a model of another format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_service.core.content import Tool, ToolChoice
from llm_service.formats import media, rules, tool_calls, validation
from llm_service.formats.anthropic_messages.decode_messages import Dropped
from llm_service.formats.rules import DROP, TRANSLATE, FieldRule, drop_unless

# What happens to the members of a tool. Any other member is a hint, and is dropped.
TOOL_CROSSING: Mapping[str, FieldRule] = {
    **dict.fromkeys(("type", "name", "description", "input_schema", "strict", "cache_control"), TRANSLATE),
    # When and by whom a tool may be called: a model of another vendor is offered it at once, and may call it directly.
    "allowed_callers": drop_unless(["direct"]),
    "defer_loading": drop_unless(False),
    "eager_input_streaming": drop_unless(False),
    "input_examples": drop_unless([]),
}
CHOICE_CROSSING: Mapping[str, FieldRule] = dict.fromkeys(("type", "name", "disable_parallel_tool_use"), TRANSLATE)
_ONLY_ANTHROPIC: Final = "only Anthropic's models have this tool, and tool_choice forces its use: send auto"


def read_tools(given: Any, choice: ToolChoice | None, dropped: Dropped) -> tuple[Tool, ...]:
    """The client's own tools. The tools that Anthropic defines (``web_search_20250305``) are left out and named.

    Raises InvalidRequest and UnsupportedParameter with the path of what is wrong, also for a tool that is left out
    although ``choice`` forces its use.
    """
    read: list[Tool] = []
    left_out: dict[str, Any] = {}  # path -> name
    for index, tool in enumerate(given or ()):
        path = f"tools[{index}]"
        if not isinstance(tool, dict):
            validation.invalid(path, "must be an object")
        if _is_anthropics(tool, path):
            left_out[path] = tool.get("name")
            rules.name_dropped(dropped, "tools[]", [tool["type"]])
            continue
        rules.name_dropped(dropped, "tools[]", rules.cross(tool, TOOL_CROSSING, f"{path}.", DROP))
        description = validation.text_at(tool, path, "description", filled=False) if tool.get("description") else None
        strict = tool.get("strict")
        if not isinstance(strict, bool | None):
            validation.invalid(f"{path}.strict", "must be true or false")
        hint = tool.get("cache_control")
        cache = media.read_cache(hint, media.EPHEMERAL, media.ANTHROPIC_TTL, "cache_control", dropped)
        schema, name = validation.object_at(tool, path, "input_schema"), validation.text_at(tool, path, "name")
        read.append(Tool(name, description, schema, strict, cache, path=f"{path}.input_schema"))
    tool_calls.check_names(read)
    tool_calls.check_forced(choice, read, left_out, _ONLY_ANTHROPIC)
    return tuple(read)


def _is_anthropics(tool: Mapping[str, Any], path: str) -> bool:
    """Whether a tool is one that Anthropic defines: it has a type of its own, and no schema from the client."""
    kind = tool.get("type")
    if kind in (None, "custom") or "input_schema" in tool:
        return False
    if not isinstance(kind, str) or kind == "function":  # OpenAI's form of a tool
        validation.invalid(f"{path}.type", "must be custom, with a name and an input_schema, or a tool of Anthropic's")
    return True


_MODES: Mapping[str, ToolChoice] = {
    "auto": ToolChoice("auto"),
    "any": ToolChoice("required"),
    "none": ToolChoice("none"),
}


def read_choice(given: Any, dropped: Dropped) -> tuple[ToolChoice | None, bool | None]:
    """The tool choice, and whether the model may call several tools at once; None where the client does not say."""
    if given is None:
        return None, None
    rules.name_dropped(dropped, "tool_choice", rules.cross(given, CHOICE_CROSSING, "tool_choice.", DROP))
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
