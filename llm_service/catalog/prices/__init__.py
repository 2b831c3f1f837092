"""What a call costs, in integer nano-dollars.

A model's price is the one in models.toml, or else the one in the package
``genai-prices`` (github.com/pydantic/genai-prices), or else None. An unknown price is
None and never 0, because a cost that is not known must not look as if the call were
free. This is true for a part of a price too: a service tier without a price of its
own has no price.

``rates`` has the arithmetic; ``from_genai_prices`` and ``from_catalog`` read the two sources.
"""

from __future__ import annotations

from llm_service.catalog.prices.from_catalog import Dated, read_price
from llm_service.catalog.prices.from_genai_prices import LibraryPrice, library_price
from llm_service.catalog.prices.rates import Price, Rates
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
