"""OpenAI Chat Completions, the client's side: reads tools, tool choices and tool calls for translation.

There are three forms: functions, custom tools (``custom_tools``), and the older ``functions`` with
``function_call``, which has one call at a time and no ids.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from llm_service.core.content import Part, Tool, ToolCall, ToolChoice
from llm_service.formats import custom_tools, media, rules, tool_calls, validation
from llm_service.formats.rules import DROP, REJECT, TRANSLATE, FieldRule, drop_unless

# The names of the fields that are dropped, in their order.
Dropped: TypeAlias = dict[str, None]

_ONLY_ITS_SERVER: Final = (
    "that model can only be made to use functions and custom tools: send auto, or choose a function or a custom tool"
)

_KINDS: Final = (("function", "custom"), ("custom", "function"))
# What happens to the members of a tool and of a call. Any other member is a hint, and is dropped.
TOOL_CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
    kind: {**dict.fromkeys(("type", kind, "cache_control"), TRANSLATE), other: REJECT} for kind, other in _KINDS
}
FUNCTION_CROSSING: Mapping[str, FieldRule] = dict.fromkeys(
    ("name", "description", "parameters", "strict", "cache_control"), TRANSLATE
)
CUSTOM_CROSSING: Mapping[str, FieldRule] = {
    "name": TRANSLATE,
    "description": TRANSLATE,
    "format": TRANSLATE,
}
CALL_CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
    kind: {
        "id": TRANSLATE,
        "type": TRANSLATE,
        kind: TRANSLATE,
        other: REJECT,
        "index": drop_unless(*range(128)),  # from a stream: some clients keep it in the message that they send back
    }
    for kind, other in _KINDS
}


def read_tools(body: Mapping[str, Any], choice: ToolChoice | None, dropped: Dropped) -> tuple[Tool, ...]:
    """The functions and the custom tools of the request. Tools that a vendor's server runs are left out and named.

    Raises InvalidRequest and UnsupportedParameter naming the path, also for a tool that is left out although
    ``choice`` forces its use.
    """
    older = body.get("functions")
    left_out: dict[str, str | None] = {}  # path -> name
    if older:
        if not isinstance(older, list):
            validation.invalid("functions", "must be a list")
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            if body.get(name) not in (None, []):
                validation.invalid(name, "must not be given beside functions")
        read = [_read_function(function, f"functions[{index}]", None, dropped) for index, function in enumerate(older)]
    else:
        read = []
        for index, tool in enumerate(body.get("tools") or ()):
            path = f"tools[{index}]"
            kind = _kind_of(tool, path)
            if kind in TOOL_CROSSING:
                read.append(_read_tool(tool, path, kind, dropped))
            else:
                left_out[path] = kind
                rules.name_dropped(dropped, "tools[]", [kind])
    tool_calls.check_names(read)
    tool_calls.check_forced(choice, read, left_out, _ONLY_ITS_SERVER)
    return tuple(read)


def _kind_of(tool: Any, path: str) -> str:
    """The type of a tool. Some clients leave it out of a function."""
    if not isinstance(tool, dict):
        validation.invalid(path, "must be an object")
    kind = tool.get("type") or ("function" if "function" in tool else None)
    if not isinstance(kind, str):
        validation.invalid(f"{path}.type", "must be function or custom")
    return kind


def _read_tool(tool: Mapping[str, Any], tool_path: str, kind: str, dropped: Dropped) -> Tool:
    rules.name_dropped(dropped, "tools[]", rules.cross(tool, TOOL_CROSSING[kind], f"{tool_path}.", DROP))
    path = f"{tool_path}.{kind}"
    cache = media.read_part_cache(tool, dropped)
    if kind == "function":
        return _read_function(tool.get("function"), path, cache, dropped)
    custom = validation.object_at(tool, tool_path, "custom")
    rules.name_dropped(dropped, "tools[].custom", rules.cross(custom, CUSTOM_CROSSING, f"{path}.", DROP))
    name, about = validation.text_at(custom, path, "name"), _about(custom, path)
    own: dict[str, Any] = {} if about is None else {"description": about}
    grammar = _read_grammar(custom.get("format"), f"{path}.format")
    if grammar is not None:
        own["format"] = {"type": "grammar", **grammar}
        about = custom_tools.with_grammar(about, **grammar)
    return Tool(name, about, custom_tools.SCHEMA, cache=cache, path=path, custom=own)


def _read_grammar(given: Any, path: str) -> dict[str, str] | None:
    """The grammar that the text of a custom tool must match."""
    match given:
        case None | {"type": "text"}:
            return None
        case {"type": "grammar", "grammar": {"syntax": str(syntax), "definition": str(definition)}}:
            return {"syntax": syntax, "definition": definition}
    validation.invalid(path, "must be text, or a grammar with a syntax and a definition")


def _read_function(function: Any, path: str, cache: int | None, dropped: Dropped) -> Tool:
    if not isinstance(function, dict):
        validation.invalid(path, "must be an object")
    rules.name_dropped(dropped, "tools[].function", rules.cross(function, FUNCTION_CROSSING, f"{path}.", DROP))
    schema = validation.object_at(function, path, "parameters") if function.get("parameters") is not None else None
    strict = function.get("strict")
    if not isinstance(strict, bool | None):
        validation.invalid(f"{path}.strict", "must be true or false")
    inside = media.read_part_cache(function, dropped)  # LiteLLM's clients write the hint here
    cache = inside if cache is None else cache
    name = validation.text_at(function, path, "name")
    return Tool(name, _about(function, path), schema, strict, cache, path=f"{path}.parameters")


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
        case {"type": str(kind)} if any(tool.get("type") == kind for tool in _others(body)):
            return ToolChoice("tool", kind)
        case {"type": "function", "function": {"name": str(name)}} | {"type": "custom", "custom": {"name": str(name)}}:
            return ToolChoice("tool", name)
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": ("auto" | "required") as mode, "tools": list(allowed)},
        }:
            return _read_allowed(mode, allowed, {tool.get("type") for tool in _others(body)})
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


def _others(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tools of the request that a vendor's server runs."""
    tools = [tool for tool in body.get("tools") or () if isinstance(tool, dict)]
    return [tool for tool in tools if tool.get("type") not in (None, *TOOL_CROSSING)]


def _read_allowed(mode: Literal["auto", "required"], given: Iterable[Any], others: Collection[Any]) -> ToolChoice:
    """The choice among some of the tools; those that are left out of the request are left out here too."""
    names: list[str] = []
    for index, tool in enumerate(given):
        match tool:
            case {"type": "function", "function": {"name": str(name)}} | {
                "type": "custom",
                "custom": {"name": str(name)},
            }:
                names.append(name)
            case {"type": str(kind)} if kind in others:
                pass
            case _:
                path = f"tool_choice.allowed_tools.tools[{index}]"
                validation.unsupported(path, "only functions and custom tools can be offered")
    if not names and mode == "required":
        validation.unsupported("tool_choice", _ONLY_ITS_SERVER)
    return ToolChoice(mode, allowed=tuple(names)) if names else ToolChoice("none")


def parallel_calls_of(body: Mapping[str, Any]) -> bool | None:
    """``Conversation.parallel_tool_calls``. It is False for the older form, which has room for one call only."""
    return False if body.get("functions") else body.get("parallel_tool_calls")


def read_calls(message: Mapping[str, Any], path: str, dropped: Dropped, parts: list[Part], paths: list[str]) -> None:
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
        parts.append(_read_call(call, paths[-1], dropped))


def _read_call(call: Any, call_path: str, dropped: Dropped) -> ToolCall:
    if not isinstance(call, dict):
        validation.invalid(call_path, "must be an object")
    kind = call.get("type") or "function"
    if kind not in ("function", "custom"):
        validation.unsupported(f"{call_path}.type", "only functions and custom tools can be called")
    names = rules.cross(call, CALL_CROSSING[kind], f"{call_path}.", DROP)
    rules.name_dropped(dropped, "messages[].tool_calls[]", names)
    called, path = validation.object_at(call, call_path, kind), f"{call_path}.{kind}"
    if kind == "function":
        return _called(called, path, validation.text_at(call, call_path, "id"))
    given = validation.text_at(called, path, "input", filled=False)
    return ToolCall(
        validation.text_at(call, call_path, "id"),
        validation.text_at(called, path, "name"),
        custom_tools.wrap(given),
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
