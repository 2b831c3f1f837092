"""What a call costs, in integer nano-dollars.

One place decides: a price in models.toml, else the packaged data of
``genai-prices`` (github.com/pydantic/genai-prices), else None. An unknown price
is None and never 0: a cost that is not known must not look like free.

Rates are exact decimals; the one rounding (half up, to a nano-dollar) is at the
end of ``cost``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Protocol

from genai_prices import Usage as LibraryUsage
from genai_prices.data_snapshot import get_snapshot

from llm_service.conversation import Usage

NANO_PER_DOLLAR = 1_000_000_000
# Library prices are looked up again this often: they carry start dates and hours of day.
REFRESH_SECONDS = 300.0


class Price(Protocol):
    @property
    def source(self) -> str:
        """Where the price is from, for people."""
        ...

    def cost(self, usage: Usage) -> int:
        """Nano-dollars."""
        ...

    def rates(self) -> Mapping[str, Decimal | None]:
        """Dollars per million tokens by kind, for people."""
        ...


def _rounded(nanodollars: Decimal) -> int:
    return int(nanodollars.to_integral_value(rounding=ROUND_HALF_UP))


@dataclass(frozen=True, slots=True)
class Rates:
    """Flat prices in dollars per million tokens. A missing cache rate means the input rate."""

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    source: str = "models.toml"

    def cost(self, usage: Usage) -> int:
        read = self.input if self.cache_read is None else self.cache_read
        write = self.input if self.cache_write is None else self.cache_write
        write_1h = write if self.cache_write_1h is None else self.cache_write_1h
        written_5m = usage.cache_write_tokens - usage.cache_write_1h_tokens
        plain = max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens)
        dollars_per_million = (
            plain * self.input
            + usage.cached_tokens * read
            + written_5m * write
            + usage.cache_write_1h_tokens * write_1h
            + usage.output_tokens * self.output
        )
        return _rounded(dollars_per_million * 1000)

    def rates(self) -> Mapping[str, Decimal | None]:
        return {
            "input": self.input,
            "output": self.output,
            "cache_read": self.cache_read,
            "cache_write": self.cache_write,
            "cache_write_1h": self.cache_write_1h,
        }


class LibraryPrice:
    """A model of the price library. Flat prices become ``Rates``; others are left to the library."""

    source = "genai-prices"

    def __init__(self, provider: Any, model: Any) -> None:
        self._provider, self._model = provider, model
        self._flat: Rates | None = None
        self._checked = -REFRESH_SECONDS

    def _refresh(self) -> Rates | None:
        if time.monotonic() - self._checked >= REFRESH_SECONDS:
            self._flat = _flat(self._model.get_prices(datetime.now(UTC)))
            self._checked = time.monotonic()
        return self._flat

    def cost(self, usage: Usage) -> int:
        flat = self._refresh()
        if flat is not None:
            return flat.cost(usage)
        library_usage = LibraryUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
        )
        calculation = self._model.calc_price(library_usage, self._provider, genai_request_timestamp=datetime.now(UTC))
        return _rounded(calculation.total_price * NANO_PER_DOLLAR)

    def rates(self) -> Mapping[str, Decimal | None]:
        prices = self._model.get_prices(datetime.now(UTC))
        return {
            "input": _base(prices.input_mtok),
            "output": _base(prices.output_mtok),
            "cache_read": _base(prices.cache_read_mtok),
            "cache_write": _base(prices.cache_write_mtok),
            "cache_write_1h": _base(getattr(prices, "cache_write_1h_mtok", None)),
        }


def _base(price: Any) -> Decimal | None:
    base: Decimal | None = getattr(price, "base", price)
    return base


def _flat(prices: Any) -> Rates | None:
    values = [
        prices.input_mtok,
        prices.output_mtok,
        prices.cache_read_mtok,
        prices.cache_write_mtok,
        getattr(prices, "cache_write_1h_mtok", None),
    ]
    if values[0] is None or values[1] is None:
        return None
    if any(value is not None and not isinstance(value, Decimal) for value in values):
        return None
    read, made, cache_read, cache_write, cache_write_1h = values
    return Rates(read, made, cache_read, cache_write, cache_write_1h, LibraryPrice.source)


def library_price(provider: str, model: str) -> LibraryPrice | None:
    """The library's price for ``model`` of its provider id ``provider``, or None if it knows none."""
    try:
        found, info = get_snapshot().find_provider_model(model, None, provider, None)
        prices = info.get_prices(datetime.now(UTC))
    except LookupError:
        return None
    # A free or partly known model is an unknown price: the library lists some without numbers.
    if prices.input_mtok is None or prices.output_mtok is None:
        return None
    return LibraryPrice(found, info)


def as_dollars(nanodollars: int | None) -> float | None:
    """The one conversion for people and JSON replies."""
    return None if nanodollars is None else nanodollars / NANO_PER_DOLLAR
