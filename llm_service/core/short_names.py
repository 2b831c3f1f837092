"""Aliases for names that a vendor does not take: those of tools, and the ids of their calls.

An alias depends on the name alone, so it is the same in each call and the vendor's prompt cache holds. It has letters,
digits and ``_`` and begins with a letter, which suits vendors that are stricter than OpenAI.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterator
from typing import Final

_OTHERS: Final = re.compile(r"[^a-zA-Z0-9]+")
_LENGTHS: Final = (64, 40, 32)
_DIGEST: Final = 8
_SHORTEST: Final = 9  # Mistral's tool calls have ids of exactly nine letters and digits
_TRIES: Final = 100


def alias_of(name: str, pattern: str, taken: Container[str] = ()) -> str | None:
    """An alias of ``name`` that matches ``pattern`` as a whole and that is not ``taken``; None if there is none."""
    for candidate in _candidates(name):
        if candidate not in taken and re.fullmatch(pattern, candidate):
            return candidate
    return None


def _candidates(name: str) -> Iterator[str]:
    """The longest first. It ends as ``name`` does and has a digest: clients put a tool's own name at the end."""
    readable = _OTHERS.sub("_", name).strip("_")
    for turn in range(_TRIES):
        salted = f"{turn}:{name}" if turn else name
        digest = hashlib.sha256(salted.encode("utf-8", "surrogatepass")).hexdigest()
        for length in _LENGTHS:
            tail = readable[-(length - _DIGEST - 2) :].lstrip("_")
            tail = tail if tail[:1].isalpha() else f"t{tail}"
            yield f"{tail}_{digest[:_DIGEST]}"
        yield f"t{digest[: _SHORTEST - 1]}"


def leaves_room(pattern: str) -> bool:
    """Whether an alias of any name can match ``pattern``. Raises re.error if it is not a regular expression."""
    return all(alias_of(name, pattern) is not None for name in ("a name", "0" * 99))
