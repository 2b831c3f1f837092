"""OpenAI Responses, the client's side: the tool calls of an answer, in the form of the client's tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm_service.core.call import Call
from llm_service.core.content import ToolCall
from llm_service.formats import custom_tools, tool_calls
from llm_service.formats.openai_responses.tool_names import ToolName, ToolNames


def call_item(id: str, call_id: str, tool: ToolName, given: str, status: str) -> dict[str, Any]:
    """The output item of a call. ``given`` is what the tool gets: arguments, or the text for a custom tool."""
    kind, member = ("custom_tool_call", "input") if tool.custom else ("function_call", "arguments")
    item = {"id": id, "type": kind, "status": status, member: given, "call_id": call_id, "name": tool.name}
    return item if tool.namespace is None else {**item, "namespace": tool.namespace}


def prefix(tool: ToolName) -> str:
    """OpenAI's prefix of the ids of such items."""
    return "ctc" if tool.custom else "fc"


def status_of(arguments: str) -> str:
    """A call is incomplete if its arguments were cut, whatever the status of the answer."""
    return "completed" if tool_calls.is_arguments(arguments) else "incomplete"


class CallNames:
    """The client's names of the tools that an answer calls. They are read from the request when they are needed."""

    __slots__ = ("_body", "_names")

    def __init__(self, call: Call) -> None:
        self._body: Mapping[str, Any] = call.body
        self._names: ToolNames | None = None

    def of(self, flat: str) -> ToolName:
        if self._names is None:
            self._names = ToolNames(self._body)
        return self._names.given(flat)


def whole_item(id: str, call: ToolCall, tool: ToolName) -> dict[str, Any]:
    """The output item of a call that came as a whole."""
    if tool.custom:
        given = custom_tools.unwrap(call.arguments)
    else:
        given = call.arguments if call.arguments.strip() else "{}"
    return call_item(id, call.id, tool, given, status_of(call.arguments))


class StreamedCall:
    """A call of which pieces come. ``pieces`` yields the names and the fields of the events to send."""

    __slots__ = ("_arguments", "_text", "_unwrapper", "call_id", "tool")

    def __init__(self, call_id: str, tool: ToolName) -> None:
        self.call_id, self.tool = call_id, tool
        self._arguments: list[str] = []
        self._text: list[str] = []  # what the tool gets
        self._unwrapper = custom_tools.Unwrapper() if tool.custom else None

    def opened(self, id: str) -> dict[str, Any]:
        return call_item(id, self.call_id, self.tool, "", "in_progress")

    def add(self, arguments: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The event of a piece of the arguments; none while there is nothing to send."""
        if not arguments:
            return
        self._arguments.append(arguments)
        yield from self._delta(arguments if self._unwrapper is None else self._unwrapper.feed(arguments))

    def end(self, cut: bool) -> Iterator[tuple[str, dict[str, Any]]]:
        """The last events of the call. ``cut``: the answer ended inside the call."""
        if self._unwrapper is not None:
            yield from self._delta(self._unwrapper.end())
            yield "response.custom_tool_call_input.done", {"input": self._given()}
            return
        if not self._text and not cut:  # clients parse the arguments, so a call without arguments gets an empty object
            yield from self._delta("{}")
        yield "response.function_call_arguments.done", {"name": self.tool.name, "arguments": self._given()}

    def closed(self, id: str, cut: bool) -> dict[str, Any]:
        """The whole item, after ``end``."""
        status = "incomplete" if cut and not self._arguments else status_of("".join(self._arguments))
        return call_item(id, self.call_id, self.tool, self._given(), status)

    def _given(self) -> str:
        return "".join(self._text)

    def _delta(self, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if not text:
            return
        self._text.append(text)
        kind = "function_call_arguments" if self._unwrapper is None else "custom_tool_call_input"
        yield f"response.{kind}.delta", {"delta": text}
