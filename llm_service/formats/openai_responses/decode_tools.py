"""OpenAI Responses, the client's side: the tools, and which of them the model should use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_service.core.content import Tool, ToolChoice
from llm_service.formats import rules, validation
from llm_service.formats.openai_responses.decode_messages import Dropped
from llm_service.formats.rules import TRANSLATE, FieldRule, drop_unless, reject_unless
from llm_service.formats.validation import invalid, text_at

# What happens to the fields of a function. Other kinds of tools are rejected.
TOOL_CROSSING: Mapping[str, FieldRule] = {
    **dict.fromkeys(("type", "name", "parameters", "strict", "description"), TRANSLATE),
    "allowed_callers": reject_unless(["direct"]),
    "async": reject_unless(False),
    "defer_loading": reject_unless(False),
    "output_schema": drop_unless(),
}
_ONLY_FUNCTIONS = "only functions can be used with that model"


def read_tools(tools: Any, dropped: Dropped) -> tuple[Tool, ...]:
    """Raises InvalidRequest and UnsupportedParameter naming the path of the tool or of its field."""
    return tuple(_read_tool(tool, f"tools[{index}]", dropped) for index, tool in enumerate(tools or ()))


def _read_tool(tool: Any, path: str, dropped: Dropped) -> Tool:
    if not isinstance(tool, dict):
        invalid(path, "must be an object")
    if tool.get("type") != "function":
        validation.unsupported(path, _ONLY_FUNCTIONS)
    dropped.update((f"tools[].{name}", None) for name in rules.cross(tool, TOOL_CROSSING, f"{path}."))
    schema, strict = tool.get("parameters"), tool.get("strict")
    if not isinstance(schema, dict | None):
        invalid(f"{path}.parameters", "must be an object")
    if not isinstance(strict, bool | None):
        invalid(f"{path}.strict", "must be true or false")
    description = None if tool.get("description") is None else text_at(tool, path, "description", filled=False)
    return Tool(text_at(tool, path, "name"), description, schema, strict, path=path)


def read_choice(choice: Any) -> ToolChoice | None:
    """Raises InvalidRequest and UnsupportedParameter naming ``tool_choice`` or a tool in it."""
    if choice is None:
        return None
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            invalid("tool_choice", "must be one of auto, none, required, or an object")
        return ToolChoice(choice)  # type: ignore[arg-type]
    if choice.get("type") == "function":
        return ToolChoice("tool", text_at(choice, "tool_choice", "name"))
    if choice.get("type") != "allowed_tools":
        validation.unsupported("tool_choice", _ONLY_FUNCTIONS)
    mode, tools = choice.get("mode"), choice.get("tools")
    if mode not in ("auto", "required") or not isinstance(tools, list):
        invalid("tool_choice", "must have a mode, auto or required, and a list of tools")
    names = []
    for index, tool in enumerate(tools):
        path = f"tool_choice.tools[{index}]"
        if not isinstance(tool, dict) or tool.get("type") != "function":
            validation.unsupported(path, _ONLY_FUNCTIONS)
        names.append(text_at(tool, path, "name"))
    return ToolChoice(mode, allowed=tuple(names))
