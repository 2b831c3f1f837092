"""JSON of servers that write what orjson does not read: half characters, and numbers such as ``NaN``.

A character beyond U+FFFF is two surrogates in an escaped JSON string. A server that cuts its text at any place may send
the first of them in one event and the second in the next one. Neither can be written as UTF-8 by itself. ``load``
replaces them by U+FFFD, except in the members that its caller joins with ``HalfJoiner``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"


def load(data: bytes, joined: frozenset[str] = frozenset()) -> Any:
    """The value of ``data``. Strings of members named in ``joined`` keep their halves. Raises ValueError."""
    try:
        return _whole(json.loads(data), joined, "")
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _whole(value: Any, joined: frozenset[str], name: str) -> Any:
    if type(value) is str:
        return value if name in joined or not _SURROGATE.search(value) else _paired(value)
    if type(value) is list:
        return [_whole(item, joined, name) for item in value]
    if type(value) is dict:
        return {_paired(key): _whole(item, joined, key) for key, item in value.items()}
    return value


def is_halved(text: str) -> bool:
    """Whether ``text`` has a surrogate."""
    return _SURROGATE.search(text) is not None


def _paired(text: str) -> str:
    """``text`` with each pair of surrogates as one character, and U+FFFD in the place of single ones."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class HalfJoiner:
    """Joins the halves of characters at the ends of pieces of text. Each ``key`` is a text of its own."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[Hashable, str] = {}

    @property
    def holds(self) -> bool:
        return bool(self._held)

    def join(self, key: Hashable, piece: str) -> str:
        """``piece`` with the half that was held before it, and without a first half at its end, which is held."""
        piece = self._held.pop(key, "") + piece
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            self._held[key] = piece[-1]
            piece = piece[:-1]
        return _paired(piece)

    def rest(self, key: Hashable) -> str:
        """U+FFFD if a half is still held at the end of the text, else nothing."""
        return REPLACEMENT if self._held.pop(key, "") else ""
