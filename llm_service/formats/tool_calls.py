"""Tool calls and their results, checked before a conversation is translated into another format.

Arguments are text in OpenAI's formats and an object in Anthropic's. They stay the text that the client or the model
wrote, so that no number and no order of members changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from llm_service.core.content import Message, Tool, ToolCall, ToolChoice, ToolResult
from llm_service.core.conversation import Conversation
from llm_service.formats import validation

# The property that holds arguments which are not JSON.
MALFORMED: Final = "malformed_arguments"


def is_arguments(text: str) -> bool:
    """Whether ``text`` is a JSON object, or empty as it is for a tool without arguments."""
    if not text.strip():
        return True
    try:
        return type(orjson.loads(text)) is dict
    except orjson.JSONDecodeError:
        return False


def is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def as_object(arguments: str) -> Any:
    """Arguments that were checked as a value for ``orjson.dumps``: their own text."""
    return orjson.Fragment(arguments) if arguments.strip() else {}


def read_arguments(value: Any, path: str) -> str:
    """Arguments a client sends as text. Raises InvalidRequest naming ``path``.

    A text that is not JSON is what a model wrote, for instance in an answer that ``max_tokens`` cut. It becomes the
    one property of an object: not every vendor takes it as it is.
    """
    if not isinstance(value, str):
        validation.invalid(path, "must be a string")
    if is_arguments(value):
        return value
    if is_json(value):
        validation.invalid(path, "must be a JSON object written as a string")
    return orjson.dumps({MALFORMED: value}).decode()


def as_text(value: Any, path: str) -> str:
    """Arguments a client sends as an object. Raises InvalidRequest naming ``path``."""
    if not isinstance(value, dict):
        validation.invalid(path, "must be an object")
    return orjson.dumps(value).decode()


def check_pairs(messages: Iterable[Message], id_field: str) -> None:
    """Both vendors require that the result of each call is in the next turn, and the call of each result in the turn
    before.

    Calls of one turn may share an id, as those of some servers do: their results come in the same order.
    ``id_field`` is the client's name of the id in a result. Raises InvalidRequest naming the call without a result or
    the result without a call.
    """
    calls: dict[str, list[str]] = {}  # id of each call without a result -> its path; more, if several calls share an id
    for message in messages:
        results = False
        for index, part in enumerate(message.parts):
            if type(part) is ToolResult:
                results = True
                paths = calls.get(part.id)
                if not paths:
                    validation.invalid(
                        f"{message.path_of(index)}.{id_field}", "must be the id of a tool call of the turn before"
                    )
                paths.pop(0)
                if not paths:
                    del calls[part.id]
            elif type(part) is ToolCall and message.role != "assistant":
                validation.invalid(message.path_of(index), "must be in a message of the assistant")
        if calls:
            validation.invalid(_first(calls), "has no result" if results else "has no result in the next turn")
        for index, part in enumerate(message.parts):
            if type(part) is ToolCall:
                calls.setdefault(part.id, []).append(message.path_of(index))
    if calls:
        validation.invalid(_first(calls), "has no result")


def _first(calls: Mapping[str, Sequence[str]]) -> str:
    return next(iter(calls.values()))[0]


def check_choice(conversation: Conversation, path: str) -> None:
    """The tools of a choice must be in the request. Raises InvalidRequest naming ``path``."""
    choice = conversation.tool_choice
    if choice is None:
        return
    names = {tool.name for tool in conversation.tools}
    if choice.mode == "required" and (not names or choice.allowed == ()):
        validation.invalid(path, "must not ask for a tool when there are none")
    for name in (choice.name, *(choice.allowed or ())):
        if name is not None and name not in names:
            validation.invalid(path, "must name a tool of this request")


def check_forced(
    choice: ToolChoice | None, tools: Collection[Tool], left_out: Mapping[str, str | None], why: str
) -> None:
    """A tool that is left out, because the target does not have it, must not be one that the request forces.

    ``left_out`` has the name of each by its path. Raises UnsupportedParameter naming the path.
    """
    if choice is None or not left_out:
        return
    for path, name in left_out.items():
        named = choice.mode == "tool" and choice.name == name and all(tool.name != name for tool in tools)
        if named or (choice.mode == "required" and not tools):
            validation.unsupported(path, why)


def check_names(given: Iterable[Tool]) -> None:
    """Raises InvalidRequest for a tool whose name another tool has."""
    names: set[str] = set()
    for tool in given:
        if tool.name in names:
            holder = tool.path.removesuffix(".parameters").removesuffix(".input_schema")
            validation.invalid(f"{holder}.name", "is the name of another tool")
        names.add(tool.name)
