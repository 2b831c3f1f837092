"""Prices in models.toml: one table, or several with the day (UTC) from which each applies."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

from llm_service.catalog.prices.rates import KINDS, Price, Rates
from llm_service.core.usage import Usage

# A dollar per token, or a thousand dollars per search: a higher rate must be a mistake.
_MAX_RATE: Final = 1_000_000
_MIN_RATE: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Dated:
    """Prices with the Unix times from which they apply, in ascending order. Before the first time there is no price."""

    prices: tuple[tuple[float, Rates], ...]

    @property
    def source(self) -> str:
        return self.prices[0][1].source

    def in_force(self, at: float | None = None) -> Rates | None:
        moment = time.time() if at is None else at
        for start, rates in reversed(self.prices):
            if moment >= start:
                return rates
        return None

    def cost(self, usage: Usage, at: float | None = None) -> int | None:
        rates = self.in_force(at)
        return None if rates is None else rates.cost(usage)

    def ceiling(
        self,
        input_tokens: int,
        output_tokens: int,
        *,
        web_searches: int = 0,
        tier: str | None = None,
        at: float | None = None,
    ) -> int | None:
        rates = self.in_force(at)
        if rates is None:
            return None
        return rates.ceiling(input_tokens, output_tokens, web_searches=web_searches, tier=tier)


def read_price(value: Any, where: str, source: str = "models.toml") -> Price:
    """The price that the value of a ``price`` field describes.

    ``where`` names the model and the field in errors; ``source`` names the file.
    Raises ValueError with the field that is missing or wrong.
    """
    if isinstance(value, list):
        return _dated(value, where, source)
    rates = _read(value, where, source)
    return rates if rates.since is None else Dated(((_midnight(rates.since), rates),))


def _dated(rows: list[Any], where: str, source: str) -> Dated:
    if not rows:
        raise ValueError(f"{where}: needs at least one table")
    prices: dict[float, Rates] = {}
    for index, row in enumerate(rows):
        rates = _read(row, f"{where}[{index}]", source)
        start = 0.0 if rates.since is None else _midnight(rates.since)
        if start in prices:
            raise ValueError(f"{where}[{index}].from: another price begins on that day; each needs its own")
        prices[start] = rates
    return Dated(tuple(sorted(prices.items())))


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _read(value: Any, where: str, source: str) -> Rates:
    rest = _table(value, where)
    since = rest.pop("from", None)
    if since is not None and (not isinstance(since, date) or isinstance(since, datetime)):
        raise ValueError(f"{where}.from: must be a date like 2026-01-01")
    above, tiers = rest.pop("above", []), _table(rest.pop("tiers", {}), f"{where}.tiers")
    rates = _rates(rest, where)
    standard = replace(rates, above=_above(above, f"{where}.above", rates), source=source, since=since)
    return replace(
        standard,
        tiers=tuple((name, _tier(row, f"{where}.tiers.{name}", rates)) for name, row in tiers.items()),
    )


def _tier(value: Any, where: str, standard: Rates) -> Rates:
    rest = _table(value, where)
    above = rest.pop("above", [])
    rates = _rates(rest, where, standard)
    return replace(rates, above=_above(above, f"{where}.above", rates))


def _above(value: Any, where: str, rates: Rates) -> tuple[tuple[int, Rates], ...]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: must be a list of tables")
    steps: dict[int, Rates] = {}
    for index, row in enumerate(value):
        rest = _table(row, f"{where}[{index}]")
        start = rest.pop("tokens", None)
        if type(start) is not int or start < 1 or start in steps:
            raise ValueError(f"{where}[{index}].tokens: must be a positive integer that no other step has")
        steps[start] = _rates(rest, f"{where}[{index}]", rates)
    return tuple(sorted(steps.items()))


def _rates(table: Mapping[str, Any], where: str, standard: Rates | None = None) -> Rates:
    """The rates of one table. It takes only missing rates of searches and requests from the standard tier."""
    for name in table:
        if name not in KINDS:
            raise ValueError(f"{where}.{name}: unknown field; a price may have {', '.join(KINDS)}")
    for name in ("input", "output"):
        if name not in table:
            raise ValueError(f"{where}.{name}: missing; a price needs input and output")
    rates: dict[str, Any] = {name: _rate(value, f"{where}.{name}") for name, value in table.items()}
    if standard is not None:
        for name in ("web_searches", "requests"):
            rate = getattr(standard, name)
            if rate is not None:
                rates.setdefault(name, rate)
    return Rates(**rates)


def _rate(value: Any, where: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:  # NaN is not equal to itself
        raise ValueError(f"{where}: must be a number of dollars")
    if value < 0:
        raise ValueError(f"{where}: must not be negative")
    if value > _MAX_RATE or 0 < value < _MIN_RATE:
        limits = f"0, or {_MIN_RATE:g} to {_MAX_RATE:,}"
        raise ValueError(f"{where}: must be {limits} dollars per million tokens (searches, requests: per thousand)")
    return Decimal(str(value))


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: must be a table")
    return dict(value)
