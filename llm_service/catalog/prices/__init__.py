"""What a call costs, in integer nano-dollars.

One place decides: a price in models.toml, else the packaged data of
``genai-prices`` (github.com/pydantic/genai-prices), else None. An unknown price
is None and never 0: a cost that is not known must not look like free. That holds
for a part of a price too: a service tier without a price of its own has none.

``rates`` does the arithmetic, ``library`` and ``tables`` read the two sources.
"""

from __future__ import annotations

from llm_service.catalog.prices.library import LibraryPrice, library_price
from llm_service.catalog.prices.rates import Price, Rates
from llm_service.catalog.prices.tables import Dated, read_price
from llm_service.core.money import MOST_NANODOLLARS, NANO_PER_DOLLAR

__all__ = [
    "MOST_NANODOLLARS",
    "NANO_PER_DOLLAR",
    "Dated",
    "LibraryPrice",
    "Price",
    "Rates",
    "library_price",
    "read_price",
]
