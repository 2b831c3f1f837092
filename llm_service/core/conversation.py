"""What a client asks for, free of any vendor's format. Frozen; no I/O, no clock."""

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
    """What a client asks for, free of any vendor's format.

    ``max_tokens`` None means the model's own limit. ``temperature`` is on
    OpenAI's scale, 0 to 2. ``reasoning`` None: not a word about it. ``cache`` is the hint to keep
    the whole prompt. ``tier``: ``auto``, ``standard``, or a dearer or cheaper way by the client's
    name for it. ``dropped`` names request fields that the reader
    left out because no other format can express them; the edge tells the
    caller in ``X-Dropped-Parameters``. ``extras`` holds, by a name that all formats
    share, what only some formats know: the target's format decides what happens to
    it. ``field_names`` is what the client's format calls a field of this class, where
    its word is another one.
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
