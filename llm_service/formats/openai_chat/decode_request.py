"""OpenAI Chat Completions, the client's side: a request as a conversation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_service.core.content import Reasoning
from llm_service.core.conversation import Conversation
from llm_service.formats import reasoning, rules, service_tiers, tool_calls, validation
from llm_service.formats.openai_chat import decode_messages, decode_tools
from llm_service.formats.openai_chat.schema import COMMON, EXTRAS, FIELD_NAMES

_NO_HEADERS: Mapping[str, str] = {}


def read_request(body: Mapping[str, Any], headers: Mapping[str, str] = _NO_HEADERS) -> Conversation:
    """A checked body as a conversation. Leading system and developer messages become its system prompt.

    Raises InvalidRequest naming the wrong field, and UnsupportedParameter naming a field that cannot be translated.
    """
    dropped: decode_tools.Dropped = {}
    choice = decode_tools.read_choice(body)
    tools = decode_tools.read_tools(body, choice, dropped)
    system, messages = decode_messages.read_messages(body["messages"], dropped)
    stop, effort = body.get("stop"), body.get("reasoning_effort")
    if effort is not None and effort not in reasoning.EFFORTS:
        validation.invalid("reasoning_effort", f"must be one of {', '.join(reasoning.EFFORTS)}")
    conversation = Conversation(
        messages=tuple(messages),
        system=tuple(system),
        max_tokens=_read_limit(body),
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        user=read_user(body, dropped),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=decode_tools.parallel_calls_of(body),
        format=decode_messages.read_format(body.get("response_format")),
        reasoning=None if effort is None else Reasoning(effort),
        tier=service_tiers.read(body),
        dropped=tuple(dropped),
        extras=rules.read_extras(body, COMMON, EXTRAS),
        field_names=_names(body),
    )
    tool_calls.check_choice(conversation, decode_tools.choice_field(body))
    return conversation


def _has_breakpoints(messages: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the hints to cache are OpenAI's own."""
    contents = (message.get("content") for message in messages)
    return any("prompt_cache_breakpoint" in part for parts in contents if isinstance(parts, list) for part in parts)


def _read_limit(body: Mapping[str, Any]) -> int | None:
    """The limit of the answer. If both fields are given, ``max_tokens``, the older one, does not count."""
    limit = body.get("max_completion_tokens")
    return body.get("max_tokens") if limit is None else limit


def _names(body: Mapping[str, Any]) -> Mapping[str, str]:
    """The client's names of the fields of the conversation: some have two."""
    older = body.get("max_completion_tokens") is None
    names = FIELD_NAMES if older else {**FIELD_NAMES, "max_tokens": "max_completion_tokens"}
    if not _has_breakpoints(body["messages"]):
        names = {**names, "cache": "cache_control"}
    choice = decode_tools.choice_field(body)
    return names if choice == "tool_choice" else {**names, "tool_choice": choice}


def read_user(body: Mapping[str, Any], dropped: decode_tools.Dropped) -> str | None:
    """The end user. If both fields are given and differ, ``user``, the older one, is dropped."""
    name, older = body.get("safety_identifier"), body.get("user")
    if name is not None and older not in (None, name):
        dropped["user"] = None
    return older if name is None else name
