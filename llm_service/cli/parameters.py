"""Parsers of the values that people type: durations, times, names, limits."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Network, ip_interface
from typing import Any, Generic, TypeVar, get_args

import click

from llm_service.core.call import JsonAnswers
from llm_service.core.money import nanodollars

T = TypeVar("T")

_DURATION = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MAX_LABEL_LENGTH = 200
_MAX_RPM = 1_000_000
_MAX_TPM = 1_000_000_000
_MAX_PARALLEL = 1_000_000
_MAX_NETWORKS = 64
_STORAGE = {"allow": True, "refuse": False, "default": None}


class Parsed(click.ParamType[T], Generic[T]):
    """A parameter that ``parse`` reads. The message of its ValueError is shown to the user."""

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        try:
            return self._parse(value)
        except (ValueError, OverflowError) as error:
            self.fail(str(error), param, ctx)


def duration(text: str) -> timedelta:
    """Parse a duration: ``15s``, ``90m``, ``24h``, ``30d``, ``2w``."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError("must be a duration such as 15s, 90m, 24h, 30d or 2w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def moment(text: str) -> datetime:
    """Parse a time in ISO 8601. It is in UTC if it names no zone."""
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("must be a duration such as 24h, or a time such as 2026-01-31T12:00:00Z") from None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def past(text: str) -> datetime:
    """Parse a time, or a duration that says how long ago it was."""
    if _DURATION.fullmatch(text.strip()):
        return datetime.now(UTC) - duration(text)
    return moment(text)


def expiry(text: str) -> datetime | None:
    """Parse a time in the future, a duration from now, or ``never`` (None)."""
    if text.strip() == "never":
        return None
    at = datetime.now(UTC) + duration(text) if _DURATION.fullmatch(text.strip()) else moment(text)
    if at <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return at


def label(text: str) -> str:
    """Parse a name that people give: one line, not empty, at most 200 characters."""
    text = text.strip()
    if not text or len(text) > _MAX_LABEL_LENGTH:
        raise ValueError(f"must have 1 to {_MAX_LABEL_LENGTH} characters")
    if not text.isprintable():
        raise ValueError("must not contain control characters")
    return text


def optional_label(text: str) -> str | None:
    """Parse a label, or ``none`` (None)."""
    return None if text.strip() == "none" else label(text)


def limit(maximum: int) -> Callable[[str], int | None]:
    """Return a parser of a whole number, or of ``none`` (None) for no limit of its own."""

    def parse(text: str) -> int | None:
        text = text.strip()
        if text == "none":
            return None
        if not re.fullmatch("[0-9]{1,12}", text) or not 1 <= int(text) <= maximum:
            raise ValueError(f"must be a whole number from 1 to {maximum}, or none")
        return int(text)

    return parse


def amount(text: str) -> int | None:
    """Parse dollars and return nano-dollars; ``none`` is None."""
    return None if text.strip() == "none" else nanodollars(text)


def network(text: str) -> str:
    """Parse an address or a network. Return it as it is stored, in CIDR: ``10.0.0.0/8``."""
    text = text.strip()
    try:
        given = ip_interface(text)
    except ValueError:
        raise ValueError("must be addresses or networks such as 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32") from None
    if "%" in text:
        raise ValueError("must not name an interface (the part after %)")
    parsed = given.network
    if given.ip != parsed.network_address:
        raise ValueError(f"must have no bits after the prefix: write {parsed}, or {given.ip} for that address alone")
    if isinstance(parsed, IPv6Network):
        mapped = parsed.network_address.ipv4_mapped
        if mapped is not None and parsed.prefixlen >= 96:  # the form in which a dual-stack socket reports IPv4
            return f"{mapped}/{parsed.prefixlen - 96}"
    return str(parsed)


def network_list(text: str) -> list[str]:
    """Parse comma-separated addresses or CIDR networks. ``all`` means no restriction."""
    if text.strip() == "all":
        return []
    networks = list(dict.fromkeys(network(item) for item in text.split(",")))
    if len(networks) > _MAX_NETWORKS:
        raise ValueError(f"must be at most {_MAX_NETWORKS} networks")
    return networks


def json_answers(text: str) -> str | None:
    """Parse the setting of a key. ``off``, the default, is stored as None."""
    if text not in get_args(JsonAnswers):
        raise ValueError(f"must be one of {', '.join(get_args(JsonAnswers))}")
    return None if text == "off" else text


def storage(text: str) -> bool | None:
    """Parse the setting of a key. ``default`` (None) means the service's setting."""
    if text not in _STORAGE:
        raise ValueError(f"must be one of {', '.join(_STORAGE)}")
    return _STORAGE[text]


def storage_word(value: bool | None) -> str:
    """Return the word that ``storage`` parses as ``value``."""
    return next(word for word, meaning in _STORAGE.items() if meaning is value)


def model_names(text: str) -> list[str]:
    """Parse comma-separated names or patterns. ``all`` means no restriction."""
    if text.strip() == "all":
        return []
    return [label(name) for name in text.split(",")]


DURATION = Parsed("duration", duration)
PAST = Parsed("time", past)
EXPIRY = Parsed("time", expiry)
LABEL = Parsed("text", label)
OPTIONAL_LABEL = Parsed("text", optional_label)
RPM = Parsed("number", limit(_MAX_RPM))
TPM = Parsed("number", limit(_MAX_TPM))
PARALLEL = Parsed("number", limit(_MAX_PARALLEL))
USD = Parsed("dollars", nanodollars)
OPTIONAL_USD = Parsed("dollars", amount)
NETWORK = Parsed("network", network)
NETWORKS = Parsed("networks", network_list)
MODELS = Parsed("names", model_names)
JSON_ANSWERS = Parsed("json_answers", json_answers)
STORAGE = Parsed("storage", storage)
