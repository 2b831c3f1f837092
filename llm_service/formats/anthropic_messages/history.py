"""Anthropic Messages: the earlier turns of a body that travels verbatim.

The answers of other vendors' models are part of a conversation that goes on with Claude. Anthropic rejects reasoning
that it did not sign, reasoning at the end of a turn, and blank text. These are left out, and so is a turn of which
nothing is left. Another server that speaks this format may want its unsigned reasoning back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from llm_service.formats import reasoning
from llm_service.formats.anthropic_messages.schema import NAME, THINKING


def forwarded(body: Mapping[str, Any], *, to_anthropic: bool) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The messages for the server, and the names of the fields that are left out."""
    pairs = list(_forwarded(body["messages"], to_anthropic))
    turns = [after for _, after in pairs if after is not None]
    fewer = any(_count_thoughts(after) < _count_thoughts(turn) for turn, after in pairs if after is not turn)
    names = ("messages[].thinking",) if fewer else ()
    if to_anthropic and _has_budget(body.get("thinking")) and not _may_think(turns):
        names = (*names, "thinking")
    return turns, names


def _has_budget(thinking: Any) -> bool:
    return isinstance(thinking, dict) and thinking.get("type") == "enabled"


def _may_think(turns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a budget for thinking may be given. After tool calls Anthropic wants the thinking that led to them, and a
    model of another vendor left none."""
    last: list[dict[str, Any]] = []
    for turn in reversed(turns):
        if turn["role"] == "assistant" and isinstance(turn["content"], list):
            last = [*turn["content"], *last]
        elif last:
            break
    calls = any(block["type"] == "tool_use" for block in last)
    return not calls or last[0]["type"] in THINKING


def _count_thoughts(turn: Mapping[str, Any] | None) -> int:
    content = turn["content"] if turn is not None else ()
    return 0 if isinstance(content, str) else sum(block["type"] in THINKING for block in content)


def _forwarded(
    turns: Sequence[dict[str, Any]], to_anthropic: bool
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Each turn with what is sent of it: itself, a turn with fewer blocks, or None if nothing is left of it."""
    for index, turn in enumerate(turns):
        content = turn["content"]
        if turn["role"] != "assistant":
            yield turn, turn
        elif isinstance(content, str):
            yield turn, turn if content.strip() else None
        else:
            # Anthropic reads the next turn as a part of this one if it is the assistant's too.
            ends = index + 1 == len(turns) or turns[index + 1]["role"] != "assistant"
            kept = _kept(content, to_anthropic, ends)
            same = len(kept) == len(content) != 0
            yield turn, turn if same else {**turn, "content": kept} if kept else None


def _kept(content: Iterable[dict[str, Any]], to_anthropic: bool, ends: bool) -> list[dict[str, Any]]:
    kept = [block for block in content if not _is_blank(block) and not _is_foreign(block, to_anthropic)]
    while to_anthropic and ends and kept and kept[-1]["type"] in THINKING:
        kept.pop()
    return kept


def _is_blank(block: Mapping[str, Any]) -> bool:
    return block["type"] == "text" and isinstance(block.get("text"), str) and not block["text"].strip()


def _is_foreign(block: Mapping[str, Any], to_anthropic: bool) -> bool:
    """Whether a block is reasoning that another vendor signed, or that Anthropic would miss its signature of."""
    if block["type"] not in THINKING:
        return False
    signature = block.get("data" if block["type"] == "redacted_thinking" else "signature") or ""
    if not isinstance(signature, str):
        return False  # the vendor says what is wrong with it
    return to_anthropic if not signature else reasoning.unsign(signature)[1] != NAME
