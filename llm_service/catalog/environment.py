"""Texts of the catalogue that name environment variables, and what may stand in a header: keys and other values.

No error quotes a value, because each may be a secret.
"""

from __future__ import annotations

import re
from typing import Any, Final

from llm_service.settings import Settings

_VARIABLE: Final = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>[^}]*))?\}")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")
_LONGEST_KEY: Final = 16_384  # access tokens have a few thousand characters


class Named(str):
    """A text that errors do not quote, because it may hold a variable's value. They call it ``name``."""

    name: str

    def __new__(cls, text: str, name: str) -> Named:
        made = super().__new__(cls, text)
        made.name = name
        return made


def name_of(text: str) -> str:
    """What errors call the text."""
    return text.name if isinstance(text, Named) else text


def expanded(where: str, text: str, settings: Settings) -> str:
    """``text`` with the values of its ``${NAME}`` and ``${NAME:-default}``.

    Raises ValueError for a variable that is not set and has no default, and for braces that are none of these.
    """

    def value(match: re.Match[str]) -> str:
        found = (settings.secret(match["name"]) or "").strip() or match["default"]
        if found is None:
            raise ValueError(f"{where}: the environment variable {match['name']} is not set")
        return found

    if "${" in _VARIABLE.sub("", text):
        raise ValueError(f"{where}: a variable must be written as ${{NAME}} or ${{NAME:-default}}")
    return _VARIABLE.sub(value, text)


def keeps_host(template: str, url: str) -> bool:
    """Whether ``url``, which is ``template`` with its variables' values, has the host that the template names.

    A variable may be the host or a part of it. A value with a slash would end the host before the text behind it, and
    one with an @ would make a user's name of the text before it.
    """
    pieces = _authority(_VARIABLE.sub("\0", template)).split("\0")
    return re.fullmatch(r"[^@\\]*".join(map(re.escape, pieces)), _authority(url)) is not None


def _authority(url: str) -> str:
    return re.split("[/?#]", url.partition("://")[2] or url, maxsplit=1)[0]


def clean_key(what: str, text: str) -> str:
    """A key without the white space around it. Raises ValueError if it cannot be sent in a header."""
    key = text.strip()
    if not key:
        raise ValueError(f"{what} is empty")
    if len(key) > _LONGEST_KEY:
        raise ValueError(f"{what} is longer than {_LONGEST_KEY:,} characters, so it is not a key")
    if not key.isascii() or not key.isprintable() or " " in key:
        wrong = "a line break" if "\n" in key or "\r" in key else "a space or a character that no key has"
        raise ValueError(f"{what} has {wrong} in it")
    return key


def is_header_name(name: Any) -> bool:
    return isinstance(name, str) and _HEADER_NAME.match(name) is not None


def header_value(what: str, text: str) -> str:
    """``text`` if a header may have this value. Raises ValueError."""
    if not text.strip() or not text.isascii() or not text.isprintable():
        raise ValueError(f"{what} must be one line of ASCII characters")
    return text.strip()
