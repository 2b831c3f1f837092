"""Costs to the nano-dollar, and no price that looks like free."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from llm_service.conversation import Usage
from llm_service.prices import Rates, as_dollars, library_price

RATES = Rates(Decimal(3), Decimal(15), Decimal("0.3"), Decimal("3.75"), Decimal(6))
COUNT = st.integers(0, 10**7)


def test_cached_and_written_tokens_are_priced_as_the_vendor_prices_them() -> None:
    usage = Usage(
        input_tokens=1000, output_tokens=100, cached_tokens=600, cache_write_tokens=300, cache_write_1h_tokens=100
    )
    # 100 plain at 3, 600 read at 0.3, 200 written at 3.75, 100 written for an hour at 6, 100 out at 15
    assert RATES.cost(usage) == (300 + 180 + 750 + 600 + 1500) * 1000


def test_a_fraction_of_a_nanodollar_is_rounded_half_up_once() -> None:
    assert Rates(Decimal("0.0005"), Decimal(0)).cost(Usage(input_tokens=1)) == 1
    assert Rates(Decimal("0.0004"), Decimal(0)).cost(Usage(input_tokens=1)) == 0
    assert Rates(Decimal("0.0004"), Decimal(0)).cost(Usage(input_tokens=10)) == 4


def test_a_missing_cache_rate_means_the_input_rate() -> None:
    usage = Usage(input_tokens=100, cached_tokens=50, cache_write_tokens=50)
    assert Rates(Decimal(2), Decimal(0)).cost(usage) == 100 * 2 * 1000


def test_an_unknown_model_has_no_price() -> None:
    assert library_price("openai", "no-such-model-of-anyone") is None
    assert as_dollars(None) is None


def test_the_library_agrees_with_its_flat_rates() -> None:
    price = library_price("anthropic", "claude-sonnet-4-6")
    assert price is not None
    usage = Usage(input_tokens=1000, output_tokens=100, cached_tokens=100, cache_write_tokens=50)
    flat = price.cost(usage)
    price._refresh = lambda: None  # type: ignore[method-assign]  # what a model with tiered prices has
    assert price.cost(usage) == flat == 4_267_500


@given(COUNT, COUNT, COUNT, COUNT, COUNT)
def test_a_cost_is_never_negative_whatever_the_usage_claims(a: int, b: int, c: int, d: int, e: int) -> None:
    usage = Usage(
        input_tokens=a, output_tokens=b, cached_tokens=c, cache_write_tokens=d, cache_write_1h_tokens=min(d, e)
    )
    assert RATES.cost(usage) >= 0
