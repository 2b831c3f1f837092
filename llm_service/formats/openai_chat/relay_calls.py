"""OpenAI Chat Completions: tool calls in a stream that is relayed, so that OpenAI's SDKs can put them together.

The SDKs join pieces by their index alone, and append an id or a name that is repeated. Pieces of a server that uses
them in another way (``decode_calls``) are repaired; all other pieces stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_service.core.call import Call
from llm_service.core.errors import UpstreamBroken
from llm_service.formats.openai_chat.decode_calls import CallTracker, StreamedCall
from llm_service.formats.openai_chat.decode_pieces import arguments_text


class CallRepairer:
    """The tool calls of one choice. ``number`` of a call is the index that the client gets."""

    def __init__(self, call: Call | None) -> None:
        self._tracker = CallTracker(call)
        self._is_off = False

    def passed(self, given: Any) -> int:
        """The length of a piece that goes on with the last call and stays as it is, as most pieces do.

        0 for all other pieces: they are for ``repaired``.
        """
        last = self._tracker.last
        if self._is_off or last is None or not last.started or last.index != last.number:
            return 0
        return len(last.pieces[-1]) if self._tracker.resume(given) is last else 0

    def repaired(self, delta: dict[str, Any]) -> dict[str, Any]:
        """``delta``, or a copy with other tool calls.

        Once there is a call of another shape, such as a custom one, all calls stay as they are.
        """
        given = delta["tool_calls"]
        resumed = None if self._is_off else self._tracker.resume(given)
        if resumed is not None and resumed.started:
            return delta if resumed.index == resumed.number else {**delta, "tool_calls": [_item(resumed, given[0])]}
        if self._is_off or type(given) is not list or not all(map(_is_of_function, given)):
            self._is_off = True
            return delta
        try:
            items = [_item(call, item) for call, item in self._tracker.add_all(given)]
        except UpstreamBroken:
            self._is_off = True
            return delta
        if all(new is old for new, old in zip(items, given, strict=True)):
            return delta
        return {**delta, "tool_calls": items}


def _is_of_function(item: Any) -> bool:
    return type(item) is dict and "custom" not in item and type(item.get("function") or {}) is dict


def _item(call: StreamedCall, item: Mapping[str, Any]) -> Mapping[str, Any]:
    """``item``, which is a piece of ``call``, or what the client gets in its place."""
    function, id, name = item.get("function") or {}, None, call.named
    if not call.started:
        call.started = True
        id, name = call.id, call.name
    arguments = function.get("arguments")
    same = item.get("index") == call.number and (item.get("id") or None) == id and (function.get("name") or "") == name
    if same and function and type(arguments) is not dict:
        return item
    head = {} if id is None else {"id": id, "type": "function"}
    others = {name: value for name, value in item.items() if name not in ("id", "type")}
    named = {"name": name} if name else {}
    return {**others, "index": call.number, **head, "function": {**named, "arguments": arguments_text(arguments)}}
