"""OpenAI Responses, the client's side: which tools a request offers, and their names.

A tool may be in a *namespace*, which other formats do not have. They get it under a joined name
(``namespace__name``), and its calls come back to the client under its own name, with its namespace. ``ToolNames``
translates both ways. It is made from the request alone, so that its reader and the writers of its answer agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from llm_service.formats.bounds import as_list

_JOINT: Final = "__"
# Items of the input that offer tools: more tools for the rest of the conversation, and the tools that a search found.
OFFERING_ITEMS: Final = ("additional_tools", "tool_search_output")


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool as the client offers it, not checked. ``path`` is its path in the body."""

    given: Any
    path: str
    namespace: str | None = None

    @property
    def kind(self) -> Any:
        return self.given.get("type") if isinstance(self.given, dict) else None

    @property
    def in_input(self) -> bool:
        return self.path.startswith("input")


@dataclass(frozen=True, slots=True)
class ToolName:
    """What the client calls a tool. ``custom``: its tool takes text (``custom_tools``)."""

    name: str
    namespace: str | None = None
    custom: bool = False


def offered(body: Mapping[str, Any]) -> Iterator[Offered]:
    """Every tool of a request. A namespace comes before the tools that it holds."""
    yield from _listed(body.get("tools"), "tools")
    for index, item in enumerate(as_list(body.get("input"))):
        if isinstance(item, dict) and item.get("type") in OFFERING_ITEMS:
            yield from _listed(item.get("tools"), f"input[{index}].tools")


def _listed(tools: Any, path: str) -> Iterator[Offered]:
    for index, tool in enumerate(as_list(tools)):
        yield Offered(tool, f"{path}[{index}]")
        if isinstance(tool, dict) and tool.get("type") == "namespace":
            namespace = tool.get("name")
            for inner, member in enumerate(as_list(tool.get("tools"))):
                yield Offered(member, f"{path}[{index}].tools[{inner}]", namespace)


class ToolNames:
    """The names of a request's functions and custom tools: the client's, and those that other formats get."""

    __slots__ = ("_flat", "_given")

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._given: dict[str, ToolName] = {}  # by the flat name
        self._flat: dict[tuple[str | None, str], str] = {}
        # Tools outside of namespaces keep their names, so they come first.
        tools = sorted(offered(body), key=lambda tool: tool.namespace is not None)
        for tool in tools:
            name = tool.given.get("name") if tool.kind in ("function", "custom") else None
            if not isinstance(name, str) or not isinstance(tool.namespace, str | None):
                continue
            key = (tool.namespace, name)
            if key not in self._flat:
                flat = self._free(_joined(*key))
                self._flat[key] = flat
                self._given[flat] = ToolName(name, tool.namespace, tool.kind == "custom")

    def _free(self, flat: str) -> str:
        """``flat``, made longer if it is the name of another tool."""
        while flat in self._given:
            flat += "_"
        return flat

    def flat(self, name: str, namespace: str | None = None) -> str:
        """What other formats call a tool, which may be one of an earlier request."""
        return self._flat.get((namespace, name)) or _joined(namespace, name)

    def given(self, flat: str) -> ToolName:
        """What the client calls a tool. A tool that it did not offer has no other name."""
        return self._given.get(flat) or ToolName(flat)

    def find(self, name: str, namespace: str | None = None) -> list[str]:
        """The flat names of the tools that ``name`` may mean. Without a ``namespace`` all of them are searched."""
        if (namespace, name) in self._flat:
            return [self._flat[namespace, name]]
        if namespace is not None:
            return []
        return [flat for (_, other), flat in self._flat.items() if other == name]

    def in_namespace(self, namespace: str) -> list[str]:
        """The flat names of all tools of ``namespace``."""
        return [flat for (other, _), flat in self._flat.items() if other == namespace]


def _joined(namespace: str | None, name: str) -> str:
    return name if not namespace else f"{namespace}{_JOINT}{name}"
