"""What a vendor checks in a conversation before it asks a model, whatever the fields of its format are.

Each upstream format has one ``TargetRules``, and the catalogue says where a model differs. ``fit`` makes a conversation
that crosses obey them. Names of tools are another module's (``tool_names``), because they have a way back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from llm_service.core import short_names
from llm_service.core.call import Call
from llm_service.core.content import JsonFormat, Reasoning, Tool
from llm_service.core.conversation import Conversation
from llm_service.core.target import Target
from llm_service.formats import schema_shape, tool_ids, tool_names, turns, validation


@dataclass(frozen=True, slots=True)
class TargetRules:
    """``tool_ids`` is a regular expression that the ids of tool calls match as a whole. ``blanks``: whether text may be
    white space alone. ``tool`` makes a tool's schema fit."""

    tool_ids: str
    tool: Callable[[Tool], Tool]
    blanks: bool = True


def fit(
    rules: TargetRules, call: Call, conversation: Conversation, target: Target, drop: Callable[[str], None]
) -> Conversation:
    """The conversation as ``target`` takes it. ``drop`` gets the name of each field that is left out or lowered.

    Raises InvalidRequest and UnsupportedParameter naming the path of what cannot be made to fit.
    """
    conversation = turns.fit(conversation, drop, blanks=rules.blanks)
    limit = conversation.max_tokens
    if limit is not None and target.max_output is not None and limit > target.max_output and call.kind != "count":
        drop("max_tokens")
        limit = target.max_output
    return replace(
        conversation,
        reasoning=_reasoning(conversation, target, drop),
        format=_format(conversation.format),
        messages=tool_ids.fit(conversation.messages, target.tool_ids or rules.tool_ids),
        tools=tuple(map(rules.tool, conversation.tools)),
        max_tokens=limit,
    )


def _format(format: JsonFormat | None) -> JsonFormat | None:
    """The name of a schema is only a label, for which the rule of tools' names holds."""
    if format is not None and format.schema is not None:
        schema_shape.check(format.schema, format.path)
    if format is None or format.name is None or re.fullmatch(tool_names.PATTERN, format.name):
        return format
    return replace(format, name=short_names.alias_of(format.name, tool_names.PATTERN))


def _reasoning(conversation: Conversation, target: Target, drop: Callable[[str], None]) -> Reasoning | None:
    """How much the model should think. A model may reject thinking beside a tool choice that forces a call.

    Then the call counts more: a client that forces a tool reads nothing else.
    """
    choice, asked = conversation.tool_choice, conversation.reasoning
    if choice is None or choice.mode not in ("required", "tool"):
        return asked
    if target.forced_tools == "never":
        name = conversation.field_names.get("tool_choice", "tool_choice")
        validation.unsupported(name, "the model cannot be forced to call a tool: leave the choice to the model")
    allowed = target.forced_tools == "always" and target.thinking != "budget"
    if allowed or asked is None or asked.effort == "none":
        return asked
    drop("reasoning")
    return None
