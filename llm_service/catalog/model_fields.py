"""A row of ``[models]``: what the service knows of the models that the row's pattern matches.

A wrong row raises a ValueError with its name and what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from llm_service.catalog import load, provider_fields
from llm_service.catalog.prices import read_price
from llm_service.core import short_names
from llm_service.core.target import CHAT_TOOLS, FORCED_TOOLS, THINKING, Timeouts

MAX_TOKENS: Final = 1_000_000_000
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "thinking": THINKING,
    "chat_tools": CHAT_TOOLS,
    "forced_tools": FORCED_TOOLS,
}
_COUNTS: Final = ("max_output", "context")
_SWITCHES: Final = ("chat_route", "sampling", "system_turns", "cache_breakpoints", "prefill")
_PATTERNS: Final = ("tool_names", "tool_ids")
_OTHERS: Final = ("efforts", "default_effort", "retires", "replacement", "price", "timeouts")
FIELDS: Final = (*_COUNTS, *_SWITCHES, *_WORDS, *_PATTERNS, *_OTHERS, *provider_fields.SHARED)


def check(pattern: str, row: Mapping[str, Any], base: Timeouts) -> None:
    """Raises ValueError if a field of ``row`` is unknown or has a wrong value."""
    where = f'[models."{pattern}"]'
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: must be a table")
    load.check_names(where, row, FIELDS)
    provider_fields.check_shared(where, row)
    for name in _COUNTS:
        value = row.get(name, 1)
        if type(value) is not int or not 1 <= value <= MAX_TOKENS:
            raise ValueError(f"{where}: {name} must be a whole number of tokens from 1 to {MAX_TOKENS:,}")
    for name in _SWITCHES:
        if not isinstance(row.get(name, True), bool):
            raise ValueError(f"{where}: {name} must be true or false")
    for name, words in _WORDS.items():
        if row.get(name, words[0]) not in words:
            raise ValueError(f"{where}: {name} must be one of {', '.join(words)}")
    _check_efforts(where, row)
    _check_end(where, row)
    for name in _PATTERNS:
        if name in row:
            _check_pattern(f"{where}: {name}", row[name])
    if "price" in row:
        read_price(row["price"], f"{where} price")
    load.timeouts(base, row.get("timeouts", {}), where)


def _check_pattern(where: str, pattern: Any) -> None:
    """A name that does not match is replaced by an alias, so the pattern must leave room for one."""
    try:
        if isinstance(pattern, str) and short_names.leaves_room(pattern):
            return
    except re.error:
        pass
    raise ValueError(f"{where} must be a regular expression that nine letters and digits can match")


def _check_efforts(where: str, row: Mapping[str, Any]) -> None:
    efforts = row.get("efforts", [])
    if not isinstance(efforts, list) or not all(isinstance(effort, str) for effort in efforts):
        raise ValueError(f'{where}: efforts must be a list of words such as ["low", "high"]')
    if not isinstance(row.get("default_effort", ""), str):
        raise ValueError(f'{where}: default_effort must be a word such as "none"')


def _check_end(where: str, row: Mapping[str, Any]) -> None:
    # A time of day is a date too, for Python.
    if type(row.get("retires", date.max)) is not date:
        raise ValueError(f"{where}: retires must be a date without quotation marks, such as 2026-12-11")
    if "replacement" in row and not (isinstance(row["replacement"], str) and row["replacement"]):
        raise ValueError(f'{where}: replacement must be the name of a model, such as "openai/gpt-6-luna"')


def values(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a ``Target`` that a checked row sets, without the price, the time-outs and a provider's fields."""
    others = {"price", "timeouts", "efforts", *provider_fields.SHARED}
    found = {name: value for name, value in row.items() if name not in others}
    return {**found, "efforts": tuple(row["efforts"])} if "efforts" in row else found
