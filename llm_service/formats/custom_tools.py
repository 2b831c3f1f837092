"""OpenAI's custom tools take text. For a model whose tools take an object, the text is the object's one property.

``wrap`` makes the object for the request, ``wrap_piece`` makes it in a stream. ``unwrap`` gets the text back from an
answer, ``Unwrapper`` from a stream.
A grammar for the text cannot be enforced by other vendors: ``with_grammar`` tells it to the model in words.
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
# The part of a JSON string that can be decoded by itself: complete escapes, and pairs of surrogates together.
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


def with_grammar(about: str | None, syntax: str, definition: str) -> str:
    """The description of a tool whose text must follow a grammar."""
    rule = f"The text must match this {syntax} grammar:\n{definition}"
    return f"{about}\n\n{rule}" if about else rule


def wrap(text: str) -> str:
    """A custom tool's input as arguments."""
    return orjson.dumps({"input": text}).decode()


WRAPPED_END: Final = '"}'


def wrap_piece(piece: str, *, first: bool) -> str:
    """A piece of a custom tool's input as a piece of the arguments. ``WRAPPED_END`` follows the last one."""
    escaped = orjson.dumps(piece)[1:-1].decode()
    return f'{{"input":"{escaped}' if first else escaped


def unwrap(arguments: str) -> str:
    """The text of arguments. Arguments of another shape are the text themselves; empty ones are no text."""
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
    """``unwrap`` for arguments that come in pieces. It keeps what cannot be decoded yet."""

    __slots__ = ("_held", "_inside")

    def __init__(self) -> None:
        self._held = ""
        self._inside = False  # whether the opening quote of the text has come

    def feed(self, piece: str) -> str:
        """The text that can be decoded now and has not been returned before."""
        self._held += piece
        if not self._inside:
            opening = _OPENING.match(self._held)
            if opening is None:
                return ""
            self._inside, self._held = True, self._held[opening.end() :]
        run = _RUN.match(self._held)
        assert run is not None, "the pattern also matches an empty text"
        self._held = self._held[run.end() :]
        text: str = orjson.loads(f'"{run[0]}"')
        return text

    def end(self) -> str:
        """The rest of the text. Arguments that are not JSON are returned as they are."""
        if not self._inside:
            return unwrap(self._held)
        return "" if self._held.startswith('"') else self._held
