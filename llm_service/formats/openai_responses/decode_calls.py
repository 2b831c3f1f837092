"""OpenAI Responses, the client's side: items about tools in the history.

A call that the client has run, and its result, cross as a call and a result. That includes the calls of OpenAI's own
tools that a client runs (a shell, a patch, a computer). What OpenAI has run itself is only its record of it: the item
is left out and named, and the model's own words about it stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from llm_service.core.content import Part, Text, ToolCall, ToolResult
from llm_service.formats import custom_tools, validation
from llm_service.formats.openai_responses.decode_parts import Dropped, read_image, read_parts
from llm_service.formats.openai_responses.tool_names import ToolNames
from llm_service.formats.rules import TRANSLATE, FieldRule, drop_unless
from llm_service.formats.tool_calls import read_arguments
from llm_service.formats.validation import invalid, object_at, text_at

# An item's own id and status are the vendor's records. Another vendor does not need them.
EVERY_ITEM: Final[Mapping[str, FieldRule]] = {"type": TRANSLATE, "id": TRANSLATE, "status": TRANSLATE}
_EVERY_CALL: Final[Mapping[str, FieldRule]] = {
    **EVERY_ITEM,
    **dict.fromkeys(("call_id", "namespace"), TRANSLATE),
    "async": drop_unless(False),
    "caller": drop_unless({"type": "direct"}),
    "created_by": drop_unless(),
}
_RESULT: Final[Mapping[str, FieldRule]] = {**_EVERY_CALL, "name": drop_unless(), "output": TRANSLATE}
_RUN: Final[Mapping[str, FieldRule]] = {**_EVERY_CALL, "max_output_length": drop_unless()}

# The calls of OpenAI's own tools that the client runs: the tool's name for other vendors, and the member that says
# what to do. A call with several actions has ``actions``.
_RUN_BY_CLIENT: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "local_shell_call": ("local_shell", ("action",)),
    "shell_call": ("shell", ("action",)),
    "apply_patch_call": ("apply_patch", ("operation",)),
    "computer_call": ("computer", ("actions", "action")),
}

# What happens to the fields of each item. A field that is not listed is a hint.
CALL_CROSSING: Final[Mapping[str, Mapping[str, FieldRule]]] = {
    "function_call": {**_EVERY_CALL, **dict.fromkeys(("name", "arguments"), TRANSLATE)},
    "function_call_output": _RESULT,
    "custom_tool_call": {**_EVERY_CALL, **dict.fromkeys(("name", "input"), TRANSLATE)},
    "custom_tool_call_output": _RESULT,
    "local_shell_call": {**_RUN, "action": TRANSLATE},
    "local_shell_call_output": _RESULT,
    "shell_call": {**_RUN, "action": TRANSLATE, "environment": drop_unless()},
    "shell_call_output": {**_RESULT, "max_output_length": drop_unless()},
    "apply_patch_call": {**_RUN, "operation": TRANSLATE},
    "apply_patch_call_output": _RESULT,
    "computer_call": {**_RUN, "action": TRANSLATE, "actions": TRANSLATE, "pending_safety_checks": drop_unless([])},
    "computer_call_output": {**_RESULT, "acknowledged_safety_checks": drop_unless([])},
}  # fmt: skip


def read_call(item: Mapping[str, Any], kind: str, path: str, names: ToolNames) -> ToolCall:
    """A call of a tool that the client has run. Raises InvalidRequest naming the path."""
    id = text_at(item, path, "call_id")
    if kind in _RUN_BY_CLIENT:
        name, members = _RUN_BY_CLIENT[kind]
        given = {member: item[member] for member in members if item.get(member)}
        if len(given) == 1 and isinstance(only := next(iter(given.values())), dict):
            given = only
        return ToolCall(id, names.flat(name), orjson.dumps(given).decode())
    namespace = text_at(item, path, "namespace") if item.get("namespace") else None
    name = names.flat(text_at(item, path, "name"), namespace)
    if kind == "custom_tool_call":
        return ToolCall(id, name, custom_tools.wrap(text_at(item, path, "input", filled=False)))
    return ToolCall(id, name, read_arguments(item.get("arguments"), f"{path}.arguments"))


def read_result(item: Mapping[str, Any], kind: str, path: str, dropped: Dropped) -> ToolResult:
    """The result of a tool that the client has run. Raises InvalidRequest and UnsupportedParameter naming the path."""
    # The result of a local shell has the id of its call in ``id``.
    id = text_at(item, path, "id" if kind == "local_shell_call_output" and not item.get("call_id") else "call_id")
    read = _RESULT_READERS.get(kind)
    parts = read(item, path) if read is not None else [
        part for part, _ in read_parts(item.get("output"), f"{path}.output", dropped)
    ]  # fmt: skip
    return ToolResult(id, tuple(parts), is_error=item.get("status") == "failed")  # type: ignore[arg-type]


def _read_shell(item: Mapping[str, Any], path: str) -> list[Part]:
    """What commands wrote, and how each of them ended, as JSON."""
    if not isinstance(item.get("output"), list):
        invalid(f"{path}.output", "must be a list")
    return [Text(orjson.dumps(item["output"]).decode())]


def _read_patch(item: Mapping[str, Any], path: str) -> list[Part]:
    text = "" if item.get("output") is None else text_at(item, path, "output", filled=False)
    return [Text(text or str(item.get("status") or ""))]


def _read_screenshot(item: Mapping[str, Any], path: str) -> list[Part]:
    screenshot = object_at(item, path, "output")
    if screenshot.get("file_id") is not None:
        validation.unsupported(f"{path}.output.file_id", "only OpenAI can read a file that it keeps: send image_url")
    return [read_image(screenshot, f"{path}.output")]


_RESULT_READERS: Final[Mapping[str, Callable[[Mapping[str, Any], str], list[Part]]]] = {
    "shell_call_output": _read_shell,
    "apply_patch_call_output": _read_patch,
    "computer_call_output": _read_screenshot,
}
