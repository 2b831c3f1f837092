"""Anthropic Messages, the upstream's side: the marks that say which parts of the prompt to cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_MOST: Final = 4  # the API rejects more


def keep_last(body: Mapping[str, Any]) -> bool:
    """Take the first marks out of ``body`` if it has too many. Returns whether it had.

    A mark stands for everything before it, so the last ones cover the longest parts.
    """
    room = _MOST - ("cache_control" in body)
    marked = list(_marked(body))
    for holder in marked[:-room]:
        del holder["cache_control"]
    return len(marked) > room


def _marked(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The tools and blocks with a mark, in the order of the prompt."""
    blocks = [*body.get("tools", ()), *body.get("system", ())]
    for message in body["messages"]:
        blocks += message["content"] if isinstance(message["content"], list) else ()
    for block in blocks:
        if block.get("type") == "tool_result" and isinstance(block.get("content"), list):
            yield from (inner for inner in block["content"] if "cache_control" in inner)
        if "cache_control" in block:
            yield block
