"""Prices of the package ``genai-prices``, with their dates, hours of the day, long prompts and service tiers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from typing import Any, Final

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, StartDateConstraint, TieredPrices, TimeOfDateConstraint

from llm_service.catalog.prices.rates import Rates
from llm_service.core.usage import Usage

_DAY: Final = 86_400
_KEYS: Mapping[str, str] = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "input_audio": "input_audio_mtok",
    "cache_audio_read": "cache_audio_read_mtok",
    "input_image": "input_image_mtok",
    "cache_image_read": "cache_image_read_mtok",
    "reasoning": "output_reasoning_mtok",
    "output_audio": "output_audio_mtok",
    "output_image": "output_image_mtok",
    "web_searches": "web_searches_kcount",
    "requests": "requests_kcount",
}
# No request to this service can cause these costs. A price with any other key that is not above counts as unknown,
# because no usage object reports what that key bills.
_NEVER_USED = frozenset({"storage_searches_kcount", "input_video_mtok", "output_video_mtok"})
# The keys whose values vendors report in the answer. The values are the names of the service tiers in ``Usage.tier``.
_TIER_KEYS = frozenset({"service_tier", "processing", "speed"})


@cache
def source() -> str:
    """The package and its version. The data has no date of its own: it is as old as the release."""
    return f"genai-prices {version('genai-prices')}"


class LibraryPrice:
    """A model of the library. Its rates are read again for each day, or part of a day if its price has hours."""

    def __init__(self, model: ModelInfo, *, tiers: bool = True) -> None:
        """``tiers``: False if another provider sells the model, so that its maker's service tiers do not apply."""
        self._model, self._tiers = model, tiers
        self._marks = sorted({0.0, float(_DAY), *_hours(model)})
        # When the rates begin and end, and the rates. The tuple is replaced as a whole, as threads may share a price.
        self._period: tuple[float, float, Rates | None] = (0.0, 0.0, None)

    @property
    def source(self) -> str:
        return source()

    def in_force(self, at: float | None = None) -> Rates | None:
        moment = time.time() if at is None else at
        begins, ends, rates = self._period
        if not begins <= moment < ends:
            begins, ends, rates = self._period = self._read(moment)
        return rates

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

    def _read(self, moment: float) -> tuple[float, float, Rates | None]:
        midnight = moment // _DAY * _DAY
        begins = max(mark for mark in self._marks if midnight + mark <= moment)
        ends = min(mark for mark in self._marks if midnight + mark > moment)
        when = datetime.fromtimestamp(midnight + begins, UTC)
        return midnight + begins, midnight + ends, _rates_at(self._model, when, tiers=self._tiers)


def library_price(provider: str, model: str) -> LibraryPrice | None:
    """The library's price of a model, or None if it knows none. ``provider`` is the library's id of the provider."""
    try:
        seller, info = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    price = LibraryPrice(info, tiers=any(info is own for own in seller.models))
    return None if price.in_force() is None else price


def _hours(model: ModelInfo) -> Iterator[float]:
    """Seconds after midnight, UTC, at which a price of the model may begin or end."""
    prices = model.prices if isinstance(model.prices, list) else []
    for item in (*prices, *(model.price_variants or ())):
        if isinstance(item.constraint, TimeOfDateConstraint):
            for clock in (item.constraint.start_time, item.constraint.end_time):
                offset = clock.utcoffset()
                seconds = clock.hour * 3600 + clock.minute * 60 + clock.second + clock.microsecond / 1e6
                yield (seconds - (offset.total_seconds() if offset else 0)) % _DAY


def _rates_at(model: ModelInfo, when: datetime, *, tiers: bool) -> Rates | None:
    standard = model.get_prices(when)
    names: dict[str, dict[str, str]] = {}
    for variant in (model.price_variants or ()) if tiers else ():
        (key, name), *more = variant.when.items()
        active = variant.constraint is None or variant.constraint.active(when)
        # "default" is the vendor's name for the standard tier.
        if active and not more and key in _TIER_KEYS and name != "default":
            names.setdefault(name, {key: name})
    variants = [(name, _rates(model.get_prices(when, context))) for name, context in names.items()]
    return _rates(
        standard,
        tiers=tuple((name, rates) for name, rates in variants if rates is not None),
        since=_since(model, standard),
    )


def _since(model: ModelInfo, prices: ModelPrice) -> date | None:
    for item in model.prices if isinstance(model.prices, list) else ():
        if item.prices is prices and isinstance(item.constraint, StartDateConstraint):
            return item.constraint.start_date
    return None


def _rates(prices: ModelPrice, **more: Any) -> Rates | None:
    """The rates of a price; None if any part of it is unknown to us, because a part of a price is no price."""
    used = {key: value for key, value in vars(prices).items() if value is not None and key not in _NEVER_USED}
    if set(used) - set(_KEYS.values()) or not {"input_mtok", "output_mtok"} <= set(used):
        return None
    kinds = {kind: used[key] for kind, key in _KEYS.items() if key in used}
    starts = sorted({step.start for price in kinds.values() if isinstance(price, TieredPrices) for step in price.tiers})
    tables: list[dict[str, Any]] = [
        {kind: _rate(price, start) for kind, price in kinds.items()} for start in (-1, *starts)
    ]
    if any(not rate.is_finite() or rate < 0 for table in tables for rate in table.values()):
        return None
    above = tuple((start, Rates(**table)) for start, table in zip(starts, tables[1:], strict=True))
    return Rates(**tables[0], above=above, source=source(), **more)


def _rate(price: Decimal | TieredPrices, start: int) -> Decimal:
    """The rate of a prompt with more tokens than ``start``."""
    if isinstance(price, TieredPrices):
        return next((step.price for step in reversed(price.tiers) if step.start <= start), price.base)
    return price
