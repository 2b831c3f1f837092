"""OpenAI Responses, the client's side: the tools, and which of them the model should use.

Functions and custom tools (``custom_tools``) are offered to every model, those in a namespace under a joined name
(``tool_names``). Other tools belong to OpenAI: they are left out and named unless the request forces their use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_service.core.content import Tool, ToolChoice
from llm_service.formats import custom_tools, rules, validation
from llm_service.formats.openai_responses.decode_parts import Dropped
from llm_service.formats.openai_responses.tool_names import Offered, ToolNames, offered
from llm_service.formats.rules import DROP, TRANSLATE, FieldRule, drop_unless
from llm_service.formats.validation import invalid, text_at

_EVERY_TOOL: Final[Mapping[str, FieldRule]] = {
    **dict.fromkeys(("type", "name", "description"), TRANSLATE),
    # When and by whom a tool may be called: a model of another vendor is offered it at once, and may call it directly.
    "allowed_callers": drop_unless(["direct"]),
    "async": drop_unless(False),
    "defer_loading": drop_unless(False),
}
# What happens to the fields of a tool, by its type. A field without a row is a hint.
TOOL_CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
    "function": {**_EVERY_TOOL, **dict.fromkeys(("parameters", "strict"), TRANSLATE), "output_schema": drop_unless()},
    "custom": {**_EVERY_TOOL, "format": TRANSLATE},
    "namespace": {**dict.fromkeys(("type", "name", "tools"), TRANSLATE), "description": drop_unless("")},
}
_ONLY_OPENAI: Final = (
    "that model can only be made to use functions and custom tools: send auto, or choose a function or a custom tool"
)


def read_tools(body: Mapping[str, Any], names: ToolNames, dropped: Dropped) -> tuple[Tool, ...]:
    """The functions and the custom tools of a request, by their flat names.

    Raises InvalidRequest and UnsupportedParameter naming the path of the tool or of its field.
    """
    read: dict[str, Tool] = {}
    for tool in offered(body):
        if not isinstance(tool.given, dict):
            invalid(tool.path, "must be an object")
        kind = text_at(tool.given, tool.path, "type")
        crossing = TOOL_CROSSING.get(kind)
        if crossing is None or (kind == "namespace" and tool.namespace is not None):
            rules.name_dropped(dropped, "tools[]", [kind])
            continue
        rules.name_dropped(dropped, "tools[]", rules.cross(tool.given, crossing, f"{tool.path}.", DROP))
        name = text_at(tool.given, tool.path, "name")
        if kind == "namespace":
            if not isinstance(tool.given.get("tools"), list):
                invalid(f"{tool.path}.tools", "must be a list")
            continue
        flat = names.flat(name, tool.namespace)
        if flat not in read:
            read[flat] = _read_tool(tool, flat, dropped)
        elif not tool.in_input:  # the input may offer a tool again
            invalid(f"{tool.path}.name", "is the name of another tool")
    return tuple(read.values())


def _read_tool(tool: Offered, name: str, dropped: Dropped) -> Tool:
    given, path = tool.given, tool.path
    description = None if given.get("description") is None else text_at(given, path, "description", filled=False)
    if tool.kind == "custom":
        return Tool(name, _with_format(given, path, description, dropped), custom_tools.SCHEMA, path=path)
    schema, strict = given.get("parameters"), given.get("strict")
    if not isinstance(schema, dict | None):
        invalid(f"{path}.parameters", "must be an object")
    if not isinstance(strict, bool | None):
        invalid(f"{path}.strict", "must be true or false")
    return Tool(name, description, schema, strict, path=f"{path}.parameters")


def _with_format(given: Mapping[str, Any], path: str, description: str | None, dropped: Dropped) -> str | None:
    """The description of a custom tool. It says the grammar of the tool's text, which is then not enforced."""
    match given.get("format"):
        case None | {"type": "text"}:
            return description
        case {"type": "grammar", "syntax": str(syntax), "definition": str(definition)}:
            rules.name_dropped(dropped, "tools[]", ["format"])
            return custom_tools.with_grammar(description, syntax, definition)
    invalid(f"{path}.format", "must be of type text, or of type grammar with a syntax and a definition")


def read_choice(choice: Any, body: Mapping[str, Any], names: ToolNames, tools: tuple[Tool, ...]) -> ToolChoice | None:
    """The tool choice. Raises InvalidRequest and UnsupportedParameter naming ``tool_choice`` or a tool in it."""
    if choice is None:
        return None
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            invalid("tool_choice", "must be one of auto, none, required, or an object")
        if choice == "required" and not tools and body.get("tools"):
            validation.unsupported("tool_choice", _ONLY_OPENAI)
        return ToolChoice(choice)  # type: ignore[arg-type]
    if choice.get("type") != "allowed_tools":
        found = _chosen(choice, "tool_choice", names)
        if found is None or choice.get("type") == "namespace":
            validation.unsupported("tool_choice", _ONLY_OPENAI)
        return ToolChoice("tool", found[0])
    mode, allowed = choice.get("mode"), choice.get("tools")
    if mode not in ("auto", "required") or not isinstance(allowed, list):
        invalid("tool_choice", "must have a mode, auto or required, and a list of tools")
    chosen = [_chosen(tool, f"tool_choice.tools[{index}]", names) for index, tool in enumerate(allowed)]
    left = tuple(dict.fromkeys(name for found in chosen for name in found or ()))
    if left:
        return ToolChoice(mode, allowed=left)
    if mode == "required":
        validation.unsupported("tool_choice", _ONLY_OPENAI)
    return ToolChoice("none")


def _chosen(choice: Any, path: str, names: ToolNames) -> list[str] | None:
    """The flat names of what a choice names: one tool, or the tools of a namespace. None for a tool of OpenAI's."""
    if not isinstance(choice, dict):
        invalid(path, "must be an object")
    kind = text_at(choice, path, "type")
    if kind not in TOOL_CROSSING:
        return None
    name = text_at(choice, path, "name")
    if kind == "namespace":
        return names.in_namespace(name)
    namespace = text_at(choice, path, "namespace") if choice.get("namespace") else None
    found = names.find(name, namespace)
    if not found:
        invalid(path, "must name a tool of this request")
    if len(found) > 1:
        invalid(path, "must say which tool it names: several namespaces have one of this name")
    return found
