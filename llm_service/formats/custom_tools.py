"""OpenAI's custom tools, which take text, for models whose tools take an object: the text is its one property.

Wrapped on the way there, unwrapped on the way back, piece by piece where it is streamed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "What the tool is given, as plain text."}},
    "required": ["input"],
    "additionalProperties": False,
}
_OPENING = re.compile(r'\s*\{\s*"input"\s*:\s*"')
# As much of a JSON string as can be decoded by itself: an escape whole, a pair of surrogates together.
_RUN = re.compile(
    r'(?:[^"\\\x00-\x1f]+|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*"
)


def names(offered: Any) -> frozenset[str]:
    """The names of the custom tools among a request's ``tools``."""
    found = set()
    for tool in offered if isinstance(offered, list) else ():
        match tool:
            case {"type": "custom", "custom": {"name": str(name)}}:
                found.add(name)
    return frozenset(found)


def wrap(text: str) -> str:
    """A custom tool's input as arguments."""
    return orjson.dumps({"input": text}).decode()


def unwrap(arguments: str) -> str:
    """What ``wrap`` was given. Arguments a model wrote in another shape are themselves the input; none are no input."""
    if not arguments.strip():
        return ""
    try:
        given = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    if given == {}:
        return ""
    text = given.get("input") if isinstance(given, dict) else None
    return text if isinstance(text, str) else arguments


class Unwrapper:
    """``unwrap`` for arguments that come in pieces; holds back what cannot be decoded yet."""

    __slots__ = ("_held", "_inside")

    def __init__(self) -> None:
        self._held = ""
        self._inside = False  # the input's string, or after it

    def feed(self, piece: str) -> str:
        """The input as far as this piece completes it."""
        self._held += piece
        if not self._inside:
            opening = _OPENING.match(self._held)
            if opening is None:
                return ""
            self._inside, self._held = True, self._held[opening.end() :]
        run = _RUN.match(self._held)
        assert run is not None, "it matches nothing, too"
        self._held = self._held[run.end() :]
        text: str = orjson.loads(f'"{run[0]}"')
        return text

    def end(self) -> str:
        """The rest of the input; what is no JSON comes as it is."""
        if not self._inside:
            return unwrap(self._held)
        return "" if self._held.startswith('"') else self._held
