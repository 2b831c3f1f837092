"""OpenAI Responses, the client's side: the items of ``input`` become turns of a conversation.

Whatever OpenAI's API answers may be sent back, whichever model continues the conversation. What only OpenAI can read or
has run itself is left out and named. An item is rejected if the answer would be another one without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from llm_service.core.content import (
    Message,
    Part,
    RedactedThinking,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from llm_service.formats import rules, validation
from llm_service.formats.bounds import as_list
from llm_service.formats.openai_responses import history
from llm_service.formats.openai_responses.decode_calls import CALL_CROSSING, EVERY_ITEM, read_call, read_result
from llm_service.formats.openai_responses.decode_parts import Dropped, read_parts
from llm_service.formats.openai_responses.encode_answer import read_carried
from llm_service.formats.openai_responses.schema import NAME
from llm_service.formats.openai_responses.tool_names import OFFERING_ITEMS, ToolNames
from llm_service.formats.rules import DROP, TRANSLATE, FieldRule, drop_unless

# What happens to the fields of each item. A field that is not listed is a hint.
ITEM_CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
    "message": {**EVERY_ITEM, "role": TRANSLATE, "content": TRANSLATE, "phase": drop_unless()},
    **CALL_CROSSING,
    "reasoning": {**EVERY_ITEM, **dict.fromkeys(("summary", "encrypted_content", "content"), TRANSLATE)},
}
# Items that are left out and named: records of what OpenAI has run itself, and of what it keeps. The tools that some
# of them offer are offered (``tool_names``): an item that only offers tools is not named.
DROPPED_ITEMS: Final = frozenset(
    {
        "code_interpreter_call",
        "file_search_call",
        "image_generation_call",
        "item_reference",
        "mcp_approval_request",
        "mcp_call",
        "mcp_list_tools",
        "program",
        "program_output",
        "tool_search_call",
        "web_search_call",
        *OFFERING_ITEMS,
    }
)
# Items without which the answer would be another one, and why they are rejected.
REJECTED_ITEMS: Final[Mapping[str, str]] = {
    "compaction": "only OpenAI can read the summary of the conversation that it holds: send the conversation itself",
    "compaction_trigger": "only OpenAI can compact a conversation in this way: ask the model for a summary",
    "configuration_update": "send reasoning and text as fields of the request",
    "mcp_approval_response": "only OpenAI can make the call that it approves",
}
# Items that are history if another item follows or comes before: they change nothing then, and are left out.
_HISTORY_BEFORE: Final = ("mcp_approval_response",)
_HISTORY_AFTER: Final = ("compaction",)


class _Turn:
    """A turn: its parts with their paths, and the results of its tool calls, which begin the user's next turn."""

    __slots__ = ("parts", "results", "role")

    def __init__(self, role: Any, parts: list[tuple[Part, str]]) -> None:
        self.role = role
        self.parts = parts
        self.results: list[tuple[Part, str]] = []


class Turns:
    """Collects items as turns.

    One turn of the assistant holds its reasoning, its text and its tool calls. The results of tools begin the user's
    next turn, wherever the client sent them: other vendors want them right after their calls.
    """

    def __init__(self, instructions: str | None) -> None:
        self.system = [Text(instructions)] if instructions else []
        self._turns: list[_Turn] = []
        self._called: dict[str, _Turn] = {}  # by the id of a call: its turn

    def add(self, role: str, parts: list[tuple[Part, str]], path: str) -> None:
        """Add parts, each with its path, to the last turn or as a new turn. ``path`` is that of all parts."""
        if role in ("system", "developer"):
            self._add_instructions(parts, path)
            return
        last = self._turns[-1] if self._turns else None
        if role == "assistant" and last is not None and last.role == role and not last.results:
            last.parts.extend(parts)
        elif parts:
            self._turns.append(_Turn(role, parts))

    def _add_instructions(self, parts: list[tuple[Part, str]], path: str) -> None:
        if self._turns:
            self._turns.append(_Turn("system", parts))
            return
        for part, part_path in parts:
            if type(part) is not Text:
                validation.unsupported(part_path or path, "a system message of that model can only hold text")
            self.system.append(part)

    def add_call(self, call: ToolCall, path: str) -> None:
        self.add("assistant", [(call, path)], path)
        self._called[call.id] = self._turns[-1]

    def add_result(self, result: ToolResult, path: str) -> None:
        turn = self._called.get(result.id)
        if turn is None:  # ``check_pairs`` reports it
            self._turns.append(_Turn("user", [(result, path)]))
        else:
            turn.results.append((result, path))

    def messages(self) -> list[Message]:
        messages: list[Message] = []
        results: list[tuple[Part, str]] = []  # of the turn before
        for turn in self._turns:
            if results and turn.role != "user":
                messages.append(_message("user", results))
                results = []
            messages.append(_message(turn.role, [*results, *turn.parts]))
            results = turn.results
        return [*messages, _message("user", results)] if results else messages


def _message(role: Any, parts: list[tuple[Part, str]]) -> Message:
    return Message(role, tuple(part for part, _ in parts), tuple(path for _, path in parts))


def read_input(turns: Turns, given: Any, names: ToolNames, dropped: Dropped) -> None:
    """Add ``input``, a string or a list of items, to ``turns``.

    Raises InvalidRequest and UnsupportedParameter naming the path of the item or the part.
    """
    if isinstance(given, str):
        turns.add("user", [(Text(given), "input")], "input")
        return
    for index, item in enumerate(given):
        path, kind = f"input[{index}]", _kind(item)
        if kind in ITEM_CROSSING:
            _read_item(turns, item, kind, path, names, dropped)
        elif kind == "additional_tools":
            continue  # its tools are offered
        elif kind in DROPPED_ITEMS or _is_history(kind, given, index):
            rules.name_dropped(dropped, "input[]", [kind])
        else:
            validation.unsupported(path, REJECTED_ITEMS.get(kind, validation.NO_COUNTERPART))
    if "input[].item_reference" in dropped:
        history.check_results(given)


def _kind(item: Mapping[str, Any]) -> str:
    """The type of an item. A message and a reference may leave it out."""
    if item.get("type"):
        return str(item["type"])
    return "message" if "role" in item else "item_reference"


def _is_history(kind: str, given: Sequence[Any], index: int) -> bool:
    return (kind in _HISTORY_BEFORE and index < len(given) - 1) or (kind in _HISTORY_AFTER and index > 0)


def _read_item(turns: Turns, item: Mapping[str, Any], kind: str, path: str, names: ToolNames, dropped: Dropped) -> None:
    rules.name_dropped(dropped, "input[]", rules.cross(item, ITEM_CROSSING[kind], f"{path}.", DROP))
    if kind == "message":
        content_path = f"{path}.content"
        turns.add(item["role"], read_parts(item["content"], content_path, dropped), content_path)
    elif kind == "reasoning":
        turns.add("assistant", [(_read_reasoning(item, path), path)], path)
    elif kind.endswith("_output"):
        turns.add_result(read_result(item, kind, path, dropped), path)
    else:
        turns.add_call(read_call(item, kind, path, names), path)


def _read_reasoning(item: Mapping[str, Any], path: str) -> Part:
    """A reasoning item with the signature of its vendor: another vendor's as it was carried, or OpenAI's own."""
    text = "\n\n".join(
        validation.text_of(part, f"{path}.{name}")
        for name in ("summary", "content")
        for part in as_list(item.get(name))
        if isinstance(part, dict)
    )
    encrypted = "" if item.get("encrypted_content") is None else validation.text_of(item, path, "encrypted_content")
    carried = read_carried(encrypted)
    if carried is not None:
        vendor, signature, redacted = carried
        return RedactedThinking(signature, vendor) if redacted else Thinking(text, signature, vendor)
    return Thinking(text, own_signature(item.get("id"), encrypted), NAME) if encrypted else Thinking(text)


def own_signature(id: Any, encrypted: str) -> str:
    """What OpenAI needs back together with a summary: the item's id and its encrypted content."""
    return f"{id if isinstance(id, str) else ''}:{encrypted}"
