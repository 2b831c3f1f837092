"""OpenAI Chat Completions, the client's side: the tool calls of an answer, in the form of the client's tools."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_service.core.call import Call
from llm_service.core.content import ToolCall
from llm_service.core.events import ToolCallDelta, ToolCallEnd, ToolCallStart
from llm_service.formats import custom_tools


class CallWriter:
    """The calls of one answer: ``tool_calls``, or the older ``function_call`` if the client sent ``functions``."""

    __slots__ = ("_custom", "_empty", "_unwrapper", "older")

    def __init__(self, call: Call) -> None:
        self.older = bool(call.body.get("functions"))
        self._custom = custom_tools.names(call.body.get("tools"))
        self._empty = False  # whether the open call has no arguments yet
        self._unwrapper: custom_tools.Unwrapper | None = None  # of the open call, if it calls a custom tool

    def message(self, calls: Iterable[ToolCall]) -> dict[str, Any]:
        """The fields of a message that hold ``calls``."""
        written = [self._whole(call) for call in calls]
        if not written:
            return {}
        return {"function_call": written[0]["function"]} if self.older else {"tool_calls": written}

    def delta(self, event: ToolCallStart | ToolCallDelta | ToolCallEnd) -> dict[str, Any]:
        """The fields of a stream's delta; empty while there is nothing to send."""
        match event:
            case ToolCallStart(index, id, name):
                self._empty = True
                self._unwrapper = custom_tools.Unwrapper() if name in self._custom else None
                return self._piece(index, self._called(id, name, ""))
            case ToolCallDelta(index, arguments):
                if self._unwrapper is not None:
                    return self._input(index, self._unwrapper.feed(arguments))
                self._empty = self._empty and not arguments.strip()
                return self._piece(index, {"function": {"arguments": arguments}}) if arguments else {}
            case ToolCallEnd(index):
                if self._unwrapper is not None:
                    return self._input(index, self._unwrapper.end())
                # Clients parse the arguments, so a call without arguments gets an empty object.
                return self._piece(index, {"function": {"arguments": "{}"}}) if self._empty else {}

    def _whole(self, call: ToolCall) -> dict[str, Any]:
        if call.name in self._custom:
            return self._called(call.id, call.name, custom_tools.unwrap(call.arguments))
        return self._called(call.id, call.name, call.arguments.strip() or "{}")

    def _called(self, id: str, name: str, given: str) -> dict[str, Any]:
        if name in self._custom:
            return {"id": id, "type": "custom", "custom": {"name": name, "input": given}}
        return {"id": id, "type": "function", "function": {"name": name, "arguments": given}}

    def _piece(self, index: int, call: dict[str, Any]) -> dict[str, Any]:
        return {"function_call": call["function"]} if self.older else {"tool_calls": [{"index": index, **call}]}

    def _input(self, index: int, text: str) -> dict[str, Any]:
        return self._piece(index, {"custom": {"input": text}}) if text else {}
