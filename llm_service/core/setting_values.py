"""How the text of a setting becomes its value.

Each reader takes the text without the white space around it. It raises a ValueError that says what is wrong, and that
does not quote the text, because the text may be a secret or a URL with a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_DATABASES: Final = ("sqlite", "sqlite+pysqlite", "postgresql+psycopg")
_REDIS: Final = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")
_LEAST_KEY: Final = 8  # characters of a key in API_KEYS
_ENCODED: Final = "write its characters @ : / ? # % as %40 %3A %2F %3F %23 %25"


def integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return number

    return read


def seconds(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        number = float(text)
        if not low <= number <= high:
            raise ValueError(f"must be a number of seconds from {low:g} to {high:g}")
        return number

    return read


def listed(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def choice(*names: str) -> Callable[[str], str]:
    """A reader that accepts one of ``names`` in upper or lower case."""

    def read(text: str) -> str:
        for name in names:
            if text.lower() == name.lower():
                return name
        raise ValueError(f"must be one of {', '.join(names)}")

    return read


def time_zone(text: str) -> str:
    try:
        if text != "UTC":  # UTC needs no time zone database
            ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be a time zone such as UTC or Europe/Berlin") from None
    return text


def api_keys(text: str) -> tuple[str, ...]:
    """Keys between commas or white space. Quotes around the list or around a key are not part of a key."""
    keys = tuple(key for word in re.split(r"[\s,]+", text) if (key := word.strip("\"'")))
    if any(len(key) < _LEAST_KEY for key in keys):
        raise ValueError(f"each key must have at least {_LEAST_KEY} characters, none of them a comma or white space")
    return keys


def database_url(text: str) -> str:
    """An SQLAlchemy URL. ``postgres://`` and ``postgresql://`` both select the driver psycopg 3."""
    scheme, separator, rest = text.partition("://")
    scheme = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}.get(scheme, scheme)
    if not separator or scheme not in _DATABASES:
        raise ValueError("must begin with postgresql:// or sqlite://, such as postgresql://user:password@host/name")
    if scheme == "postgresql+psycopg":
        _check_server(rest)
    return f"{scheme}://{rest}"


def redis_url(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in _REDIS:
        raise ValueError(f"must begin with one of {', '.join(f'{name}://' for name in _REDIS)}")
    if scheme in ("redis", "rediss"):
        _check_server(rest)
    return text


def _check_server(rest: str) -> None:
    """Check what follows ``://`` in the URL of one server: ``[user[:password]@][host][:port][/name][?options]``."""
    server, _, _ = rest.partition("?")
    if rest.count("@") > 1 or ("@" in rest and "@" not in server):
        raise ValueError(f"the user name or password must be percent-encoded: {_ENCODED}")
    address = re.match(r"(?:\[[^\]]*\]|[^:/\[\]]*)(:[^/]*)?(?:/|\Z)", server.rpartition("@")[2])
    if address is None:
        raise ValueError("must have the form scheme://user:password@host:port/name")
    port = (address[1] or ":")[1:]
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"the port must be a number from 1 to 65535. If there is a password: {_ENCODED}")


def webhook_url(text: str) -> str:
    """The URL as it is sent: in ASCII, without a fragment."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good, parts = False, SplitResult("", "", "", "", "")
    if not good or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be a URL such as https://host/path")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or a password")
    return parts._replace(fragment="").geturl()
