"""What may be typed: durations, moments, names, limits."""

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
_LABEL_LENGTH = 200
_HIGHEST_RPM = 1_000_000
_HIGHEST_TPM = 1_000_000_000
_HIGHEST_PARALLEL = 1_000_000
_MOST_NETWORKS = 64
_STORAGE = {"allow": True, "refuse": False, "default": None}


class Read(click.ParamType[T], Generic[T]):
    """A parameter read by ``function``, whose ValueError is the message."""

    def __init__(self, name: str, function: Callable[[str], T]) -> None:
        self.name = name
        self._function = function

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        try:
            return self._function(value)
        except (ValueError, OverflowError) as error:
            self.fail(str(error), param, ctx)


def duration(text: str) -> timedelta:
    """``15s``, ``90m``, ``24h``, ``30d``, ``2w``."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError("must be a duration such as 15s, 90m, 24h, 30d or 2w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def moment(text: str) -> datetime:
    """ISO 8601, in UTC when it names no zone."""
    try:
        read = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("must be a duration such as 24h, or a time such as 2026-01-31T12:00:00Z") from None
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


def past(text: str) -> datetime:
    """A moment, or how long ago."""
    if _DURATION.fullmatch(text.strip()):
        return datetime.now(UTC) - duration(text)
    return moment(text)


def expiry(text: str) -> datetime | None:
    """A moment to come, how long from now, or ``never``."""
    if text.strip() == "never":
        return None
    at = datetime.now(UTC) + duration(text) if _DURATION.fullmatch(text.strip()) else moment(text)
    if at <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return at


def label(text: str) -> str:
    """A name people give: one line, not empty, at most 200 characters."""
    text = text.strip()
    if not text or len(text) > _LABEL_LENGTH:
        raise ValueError(f"must have 1 to {_LABEL_LENGTH} characters")
    if not text.isprintable():
        raise ValueError("must not hold control characters")
    return text


def optional_label(text: str) -> str | None:
    """A label, or ``none``."""
    return None if text.strip() == "none" else label(text)


def limit(highest: int) -> Callable[[str], int | None]:
    """A whole number, or ``none`` to leave the limit to who is asked next."""

    def read(text: str) -> int | None:
        text = text.strip()
        if text == "none":
            return None
        if not re.fullmatch("[0-9]{1,12}", text) or not 1 <= int(text) <= highest:
            raise ValueError(f"must be a whole number from 1 to {highest}, or none")
        return int(text)

    return read


def amount(text: str) -> int | None:
    """Dollars as nano-dollars, or ``none``."""
    return None if text.strip() == "none" else nanodollars(text)


def network(text: str) -> str:
    """An address or a network in CIDR, as it is stored: ``10.0.0.0/8``."""
    text = text.strip()
    try:
        given = ip_interface(text)
    except ValueError:
        raise ValueError("must be addresses or networks such as 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32") from None
    if "%" in text:
        raise ValueError("must not name an interface (what follows the %)")
    found = given.network
    if given.ip != found.network_address:
        raise ValueError(f"must have no bits after the prefix: write {found}, or {given.ip} for that address alone")
    if isinstance(found, IPv6Network):
        mapped = found.network_address.ipv4_mapped
        if mapped is not None and found.prefixlen >= 96:  # what a socket for both calls an address of IPv4
            return f"{mapped}/{found.prefixlen - 96}"
    return str(found)


def network_list(text: str) -> list[str]:
    """Comma-separated addresses or CIDR networks; ``all`` is no restriction."""
    if text.strip() == "all":
        return []
    found = list(dict.fromkeys(network(item) for item in text.split(",")))
    if len(found) > _MOST_NETWORKS:
        raise ValueError(f"must be at most {_MOST_NETWORKS} networks")
    return found


def json_answers(text: str) -> str | None:
    """``off`` is what a key without a word of its own has."""
    if text not in get_args(JsonAnswers):
        raise ValueError(f"must be one of {', '.join(get_args(JsonAnswers))}")
    return None if text == "off" else text


def storage(text: str) -> bool | None:
    """``default`` is what the service says."""
    if text not in _STORAGE:
        raise ValueError(f"must be one of {', '.join(_STORAGE)}")
    return _STORAGE[text]


def storage_word(value: bool | None) -> str:
    """What ``storage`` reads as ``value``."""
    return next(word for word, meant in _STORAGE.items() if meant is value)


def model_names(text: str) -> list[str]:
    """Comma-separated names or patterns; ``all`` is no restriction."""
    if text.strip() == "all":
        return []
    return [label(name) for name in text.split(",")]


DURATION = Read("duration", duration)
PAST = Read("time", past)
EXPIRY = Read("time", expiry)
LABEL = Read("text", label)
OPTIONAL_LABEL = Read("text", optional_label)
RPM = Read("number", limit(_HIGHEST_RPM))
TPM = Read("number", limit(_HIGHEST_TPM))
PARALLEL = Read("number", limit(_HIGHEST_PARALLEL))
USD = Read("dollars", nanodollars)
OPTIONAL_USD = Read("dollars", amount)
NETWORK = Read("network", network)
NETWORKS = Read("networks", network_list)
MODELS = Read("names", model_names)
JSON_ANSWERS = Read("json_answers", json_answers)
STORAGE = Read("storage", storage)
