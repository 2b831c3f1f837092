"""What a client asks for, free of any vendor's format. Frozen; no I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from llm_service.core.content import JsonFormat, Message, Reasoning, Text, Tool, ToolChoice


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a client asks for, free of any vendor's format.

    ``max_tokens`` None means the model's own limit. ``temperature`` is on
    OpenAI's scale, 0 to 2. ``reasoning`` None: not a word about it. ``cache`` is the hint to keep
    the whole prompt. ``tier``: ``auto``, ``standard``, or a dearer or cheaper way by the client's
    name for it. ``dropped`` names request fields that the reader
    left out because no other format can express them; the edge tells the
    caller in ``X-Dropped-Parameters``.
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
