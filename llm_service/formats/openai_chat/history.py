"""OpenAI Chat Completions: the earlier turns of a body that travels verbatim.

Answers of other servers have fields and parts of their own, and clients send them back. OpenAI rejects a request with
such a field, so they are left out for OpenAI itself. Another server gets them: they may be its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from llm_service.formats import rules
from llm_service.formats.openai_chat.schema import PROVIDERS_OWN, THINKING, UNSIGNED_THOUGHTS

_HINT: Final = frozenset({"cache_control"})
_MESSAGE: Final = frozenset({*UNSIGNED_THOUGHTS, *_HINT, THINKING, "images"})
_OURS: Final = frozenset({THINKING})
_CALL: Final = frozenset({"extra_content", PROVIDERS_OWN})
# The types of parts with reasoning: Mistral's and OpenRouter's.
_REASONING: Final = ("thinking", "reasoning")
# An assistant's message without all of these says nothing. Some servers reject it.
_SAYS: Final = ("content", "tool_calls", "function_call", "refusal", "audio")


def forwarded(
    messages: Iterable[Mapping[str, Any]], *, to_openai: bool, dropped: dict[str, None]
) -> list[Mapping[str, Any]]:
    """The messages for the server. Each name that is left out is added to ``dropped``, except our own field's."""
    turns = (_forwarded(message, to_openai, dropped) for message in messages)
    return [turn for turn in turns if turn["role"] != "assistant" or any(map(turn.get, _SAYS))]


def forwarded_tools(tools: Iterable[Any], dropped: dict[str, None]) -> list[Any]:
    """The tools for OpenAI, without Anthropic's hint to cache them."""
    left = (without(tool, _HINT, "tools[]", dropped) for tool in tools)
    return [
        {**tool, "function": without(tool["function"], _HINT, "tools[].function", dropped)}
        if isinstance(tool, dict) and "function" in tool
        else tool
        for tool in left
    ]


def _forwarded(message: Mapping[str, Any], to_openai: bool, dropped: dict[str, None]) -> Mapping[str, Any]:
    if not to_openai:
        left: Mapping[str, Any] = without(message, _OURS, "messages[]", {})
        return left
    turn: Mapping[str, Any] = without(message, _MESSAGE, "messages[]", dropped)
    if isinstance(turn.get("content"), list):
        content = [
            without(part, _HINT, "messages[].content[]", dropped)
            for part in turn["content"]
            if not (turn["role"] == "assistant" and _is_reasoning(part, dropped))
        ]
        turn = {**turn, "content": content or None}
    if isinstance(turn.get("tool_calls"), list):
        calls = [without(call, _CALL, "messages[].tool_calls[]", dropped) for call in turn["tool_calls"]]
        turn = {**turn, "tool_calls": calls}
    return turn


def _is_reasoning(part: Mapping[str, Any], dropped: dict[str, None]) -> bool:
    if part["type"] not in _REASONING:
        return False
    rules.name_dropped(dropped, "messages[].content[]", [part["type"]])
    return True


def without(given: Any, names: frozenset[str], holder: str, dropped: dict[str, None]) -> Any:
    """``given`` without the members ``names``, which are added to ``dropped`` as members of ``holder``."""
    if not isinstance(given, dict) or names.isdisjoint(given):
        return given
    rules.name_dropped(dropped, holder, [name for name in given if name in names - _OURS and given[name] is not None])
    return {name: value for name, value in given.items() if name not in names}
