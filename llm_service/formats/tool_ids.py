"""Ids of tool calls that the target does not take: too long, with other letters, or given twice in a conversation.

Each is replaced by an alias in the call and in its result. An alias depends on what comes before it alone, so it is the
same when the conversation is sent again with more turns. The vendor makes the ids of its answer, so nothing comes back.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from llm_service.core import short_names
from llm_service.core.content import Message, Part, ToolCall, ToolResult


def fit(messages: tuple[Message, ...], pattern: str) -> tuple[Message, ...]:
    """``messages`` whose calls have ids that match ``pattern`` as a whole and differ from each other.

    Results must follow their calls (``tool_calls.check_pairs``).
    """
    ids = _Ids(pattern)
    # A list, because each id depends on those before it.
    fitted = [replace(turn, parts=parts) if (parts := ids.fit(turn.parts)) else turn for turn in messages]
    return tuple(fitted) if ids.changed else messages


class _Ids:
    """The ids of a conversation, in its order."""

    def __init__(self, pattern: str) -> None:
        self.changed = False
        self._pattern = re.compile(pattern, re.DOTALL)
        self._taken: set[str] = set()
        self._given: Counter[str] = Counter()
        self._open: dict[str, list[str]] = {}  # what is sent for the calls of this id that have no result yet

    def fit(self, parts: Iterable[Part]) -> tuple[Part, ...] | None:
        """``parts`` with their ids; None if no id is replaced."""
        fitted: list[Part] = []
        replaced = False
        for part in parts:
            if type(part) is ToolCall or type(part) is ToolResult:
                id = self._of_call(part.id) if type(part) is ToolCall else self._of_result(part.id)
                if id != part.id:
                    part, replaced = replace(part, id=id), True
            fitted.append(part)
        self.changed = self.changed or replaced
        return tuple(fitted) if replaced else None

    def _of_call(self, id: str) -> str:
        self._given[id] += 1
        number = self._given[id]
        sent = id
        if id in self._taken or not self._pattern.fullmatch(id):
            name = id if number == 1 else f"{id} {number}"
            sent = short_names.alias_of(name, self._pattern.pattern, self._taken) or id
        self._taken.add(sent)
        self._open.setdefault(id, []).append(sent)
        return sent

    def _of_result(self, id: str) -> str:
        waiting = self._open.get(id)
        return waiting.pop(0) if waiting else id
