"""Names of tools that the target does not take, and the way back.

Every vendor limits the letters and the length of a tool's name, and clients (above all those of MCP servers) exceed
both. A name that does not fit is replaced by an alias in the tools, in the calls of the history and in the tool choice.
The calls of the answer come back under the caller's own name. Where every name fits, nothing is done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from llm_service.core import short_names
from llm_service.core.content import Part, ToolCall
from llm_service.core.conversation import Conversation
from llm_service.core.events import Answer, Event, Finished, ToolCallStart
from llm_service.core.target import Target

# OpenAI's rule, which Anthropic's documents give too (its API takes 128 characters).
PATTERN: Final = r"[a-zA-Z0-9_-]{1,64}"


def fit(conversation: Conversation, target: Target) -> tuple[Conversation, Mapping[str, str]]:
    """The conversation with names that ``target`` takes, and the caller's name of each alias in it."""
    names = dict.fromkeys(tool.name for tool in conversation.tools)
    for message in conversation.messages:
        if message.role == "assistant":
            for part in message.parts:
                if type(part) is ToolCall:
                    names[part.name] = None
    pattern = target.tool_names or PATTERN
    unfit = [name for name in names if re.fullmatch(pattern, name) is None]
    if not unfit:
        return conversation, {}
    aliases: dict[str, str] = {}
    taken = set(names)
    for name in unfit:
        alias = short_names.alias_of(name, pattern, taken)
        if alias is not None:
            aliases[name] = alias
            taken.add(alias)
    return _renamed(conversation, aliases), {alias: name for name, alias in aliases.items()}


def _renamed(conversation: Conversation, aliases: Mapping[str, str]) -> Conversation:
    choice = conversation.tool_choice
    if choice is not None:
        allowed = choice.allowed and tuple(aliases.get(name, name) for name in choice.allowed)
        choice = replace(choice, name=choice.name and aliases.get(choice.name, choice.name), allowed=allowed)
    return replace(
        conversation,
        tools=tuple(replace(tool, name=aliases.get(tool.name, tool.name)) for tool in conversation.tools),
        messages=tuple(replace(turn, parts=_with_names(turn.parts, aliases)) for turn in conversation.messages),
        tool_choice=choice,
    )


def _with_names(parts: tuple[Part, ...], names: Mapping[str, str]) -> tuple[Part, ...]:
    """``parts`` with the names of the calls that ``names`` has replaced."""
    return tuple(
        replace(part, name=names[part.name]) if type(part) is ToolCall and part.name in names else part
        for part in parts
    )


def restored(events: Iterator[Event], names: Mapping[str, str]) -> Iterator[Event]:
    """``events`` with the caller's own names of the tools."""
    for event in events:
        if type(event) is ToolCallStart and event.name in names:
            event = replace(event, name=names[event.name])
        elif type(event) is Finished:
            event = replace(event, answer=restored_answer(event.answer, names))
        yield event


def restored_answer(answer: Answer, names: Mapping[str, str]) -> Answer:
    """``answer`` with the caller's own names of the tools."""
    choices = tuple(replace(choice, parts=_with_names(choice.parts, names)) for choice in answer.choices)
    return replace(answer, parts=_with_names(answer.parts, names), choices=choices)
