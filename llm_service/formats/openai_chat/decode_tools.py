"""OpenAI Chat Completions, the client's side: reads tools, tool choices and tool calls for translation.

There are three forms: functions, custom tools (``custom_tools``), and the older ``functions`` with
``function_call``, which has one call at a time and no ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_service.core.content import Part, Tool, ToolCall, ToolChoice
from llm_service.formats import custom_tools, rules, tool_calls, validation
from llm_service.formats.rules import TRANSLATE, FieldRule, drop_unless, reject_unless

TOOL_CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
    kind: {"type": TRANSLATE, kind: TRANSLATE} for kind in ("function", "custom")
}
FUNCTION_CROSSING: Mapping[str, FieldRule] = {
    "name": TRANSLATE,
    "description": TRANSLATE,
    "parameters": TRANSLATE,
    "strict": TRANSLATE,
}
CUSTOM_CROSSING: Mapping[str, FieldRule] = {
    "name": TRANSLATE,
    "description": TRANSLATE,
    "format": reject_unless({"type": "text"}),
}
CALL_CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
    kind: {
        "id": TRANSLATE,
        "type": TRANSLATE,
        kind: TRANSLATE,
        "index": drop_unless(*range(128)),  # from a stream: some clients keep it in the message that they send back
    }
    for kind in ("function", "custom")
}


def read_tools(body: Mapping[str, Any]) -> tuple[Tool, ...]:
    """The tools of the request. Raises InvalidRequest and UnsupportedParameter naming the path."""
    older = body.get("functions")
    if older:
        if not isinstance(older, list):
            validation.invalid("functions", "must be a list")
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            if body.get(name) not in (None, []):
                validation.invalid(name, "must not be given beside functions")
        read = [_read_function(function, f"functions[{index}]") for index, function in enumerate(older)]
    else:
        read = [_read_tool(tool, f"tools[{index}]") for index, tool in enumerate(body.get("tools") or ())]
    tool_calls.check_names(read)
    return tuple(read)


def _read_tool(tool: Any, tool_path: str) -> Tool:
    if not isinstance(tool, dict):
        validation.invalid(tool_path, "must be an object")
    kind = tool.get("type")
    if kind not in ("function", "custom"):
        validation.unsupported(f"{tool_path}.type", "only functions and custom tools can be offered")
    rules.cross(tool, TOOL_CROSSING[kind], f"{tool_path}.")
    path = f"{tool_path}.{kind}"
    if kind == "function":
        return _read_function(tool.get("function"), path)
    custom = validation.object_at(tool, tool_path, "custom")
    rules.cross(custom, CUSTOM_CROSSING, f"{path}.")
    return Tool(validation.text_at(custom, path, "name"), _about(custom, path), custom_tools.SCHEMA, path=path)


def _read_function(function: Any, path: str) -> Tool:
    if not isinstance(function, dict):
        validation.invalid(path, "must be an object")
    rules.cross(function, FUNCTION_CROSSING, f"{path}.")
    schema = validation.object_at(function, path, "parameters") if function.get("parameters") is not None else None
    strict = function.get("strict")
    if not isinstance(strict, bool | None):
        validation.invalid(f"{path}.strict", "must be true or false")
    name = validation.text_at(function, path, "name")
    return Tool(name, _about(function, path), schema, strict, path=f"{path}.parameters")


def _about(given: Mapping[str, Any], path: str) -> str | None:
    return validation.text_at(given, path, "description", filled=False) if given.get("description") else None


def choice_field(body: Mapping[str, Any]) -> str:
    """The name of the field that holds the tool choice: ``function_call`` where it is given."""
    return "tool_choice" if body.get("function_call") is None else "function_call"


def read_choice(body: Mapping[str, Any]) -> ToolChoice | None:
    """The tool choice. Raises InvalidRequest and UnsupportedParameter naming the path."""
    older = body.get("function_call")
    if older is not None:
        return _read_older_choice(older, body)
    match body.get("tool_choice"):
        case None:
            return None
        case ("auto" | "none" | "required") as mode:
            return ToolChoice(mode)
        case {"type": "function", "function": {"name": str(name)}} | {"type": "custom", "custom": {"name": str(name)}}:
            return ToolChoice("tool", name)
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": ("auto" | "required") as mode, "tools": list(allowed)},
        }:
            return ToolChoice(mode, allowed=tuple(_allowed(tool, index) for index, tool in enumerate(allowed)))
    validation.invalid("tool_choice", "must be auto, none, required, a function, a custom tool or allowed_tools")


def _read_older_choice(given: Any, body: Mapping[str, Any]) -> ToolChoice:
    if not body.get("functions"):
        validation.invalid("function_call", "must not be given without functions")
    match given:
        case "auto" | "none":
            return ToolChoice(given)
        case {"name": str(name)}:
            return ToolChoice("tool", name)
    validation.invalid("function_call", "must be auto, none or an object with the name of a function")


def _allowed(tool: Any, index: int) -> str:
    match tool:
        case {"type": "function", "function": {"name": str(name)}} | {"type": "custom", "custom": {"name": str(name)}}:
            return name
    path = f"tool_choice.allowed_tools.tools[{index}]"
    return validation.unsupported(path, "only functions and custom tools can be offered")


def parallel_calls_of(body: Mapping[str, Any]) -> bool | None:
    """``Conversation.parallel_tool_calls``. It is False for the older form, which has room for one call only."""
    return False if body.get("functions") else body.get("parallel_tool_calls")


def read_calls(message: Mapping[str, Any], path: str, parts: list[Part], paths: list[str]) -> None:
    """Add the calls of an assistant's turn. Raises InvalidRequest and UnsupportedParameter naming the path."""
    calls, older = message.get("tool_calls"), message.get("function_call")
    if not calls and older is None:
        return
    field = "function_call" if older is not None else "tool_calls"
    if message["role"] != "assistant":
        validation.invalid(f"{path}.{field}", "must be in a message of the assistant")
    if older is not None:
        if calls:
            validation.invalid(f"{path}.function_call", "must not be given beside tool_calls")
        function = validation.object_at(message, path, "function_call")
        parts.append(_called(function, f"{path}.function_call", invented_id(path)))
        paths.append(f"{path}.function_call")
        return
    if not isinstance(calls, list):
        validation.invalid(f"{path}.tool_calls", "must be a list")
    for index, call in enumerate(calls):
        paths.append(f"{path}.tool_calls[{index}]")
        parts.append(_read_call(call, paths[-1]))


def _read_call(call: Any, call_path: str) -> ToolCall:
    if not isinstance(call, dict):
        validation.invalid(call_path, "must be an object")
    kind = call.get("type", "function")
    if kind not in ("function", "custom"):
        validation.unsupported(f"{call_path}.type", "only functions and custom tools can be called")
    rules.cross(call, CALL_CROSSING[kind], f"{call_path}.")
    called, path = validation.object_at(call, call_path, kind), f"{call_path}.{kind}"
    if kind == "function":
        return _called(called, path, validation.text_at(call, call_path, "id"))
    given = validation.text_at(called, path, "input", filled=False)
    return ToolCall(
        validation.text_at(call, call_path, "id"), validation.text_at(called, path, "name"), custom_tools.wrap(given)
    )


def _called(function: Mapping[str, Any], path: str, id: str) -> ToolCall:
    name = validation.text_at(function, path, "name")
    return ToolCall(id, name, tool_calls.read_arguments(function.get("arguments"), f"{path}.arguments"))


def invented_id(path: str) -> str:
    """An id for the ``function_call`` of the message at ``path``. It is the same each time the conversation is sent."""
    return f"function_call_{path.removeprefix('messages[').removesuffix(']')}"


def answered_id(given: Sequence[Mapping[str, Any]], index: int) -> str:
    """The id of the call that message ``index``, of role ``function``, answers: the call of the turn before it.

    Raises InvalidRequest if that turn does not call the function of this name.
    """
    path = f"messages[{index}]"
    name = validation.text_at(given[index], path, "name")
    called = given[index - 1].get("function_call") if index else None
    if not isinstance(called, dict) or called.get("name") != name:
        validation.invalid(f"{path}.name", "must be the name of the function that the turn before calls")
    return invented_id(f"messages[{index - 1}]")
