"""What a client asks for, independent of any vendor's format. Frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_service.core.content import JsonFormat, Message, Reasoning, Text, Tool, ToolChoice


@dataclass(frozen=True, slots=True)
class Extra:
    """A field of the client's request that not every format knows. ``path`` is its path in the client's body."""

    value: Any
    path: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a client asks for, independent of any vendor's format.

    ``max_tokens`` None means the model's own limit. ``temperature`` is on OpenAI's scale, 0 to 2. ``reasoning`` None
    means that the client did not mention it. ``cache`` is the hint to keep the whole prompt. ``tier`` is ``auto``,
    ``standard``, or the client's name for more or less expensive processing.

    ``dropped`` names request fields that were left out because no other format can express them; the edge reports
    them in ``X-Dropped-Parameters``. ``extras`` holds what only some formats know, by a name that all formats share:
    the target's format decides what happens to it. ``field_names`` maps fields of this class to the client's names for
    them, where these differ.
    """

    messages: tuple[Message, ...]
    system: tuple[Text, ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    user: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    format: JsonFormat | None = None
    reasoning: Reasoning | None = None
    tier: str | None = None
    cache: int | None = None
    dropped: tuple[str, ...] = ()
    extras: Mapping[str, Extra] = field(default_factory=dict)
    field_names: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
