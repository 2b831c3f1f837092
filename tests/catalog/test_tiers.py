"""Limits that the catalogue gives a tier, and what it says of wrong ones."""

from __future__ import annotations

from typing import Any

import pytest

from llm_service.catalog.catalog import Catalog
from llm_service.catalog.load import Tier, TierBudget
from llm_service.core.call import Caller
from llm_service.settings import Settings, SettingsError


def catalog(**tier: Any) -> Catalog:
    return Catalog({"tiers": {"default": tier}}, Settings.load({}))


def test_a_tier_names_rates_parallel_calls_and_a_budget() -> None:
    book = catalog(rpm=60, tpm=100_000, parallel=8, budget={"amount_usd": 0.1, "per": "week"})
    assert book.tier("default") == Tier("default", 60, 100_000, 8, TierBudget(10**8, "week"))


def test_what_a_tier_leaves_out_is_not_limited() -> None:
    assert catalog().tier("default") == Tier("default", None, None, None, None)


def test_a_key_s_own_limits_come_before_its_tier_s() -> None:
    book = catalog(tpm=100, parallel=8)
    assert (book.tokens_per_minute(Caller("k")), book.parallel_calls(Caller("k"))) == (100, 8)
    own = Caller("k", tpm=7, parallel=1)
    assert (book.tokens_per_minute(own), book.parallel_calls(own)) == (7, 1)


def test_a_tier_that_is_not_there_is_the_default_one() -> None:
    book = catalog(rpm=7, budget={"amount_usd": "0.000000001", "per": "total"})
    assert book.tier("gone").budget == TierBudget(1, "total")
    assert book.requests_per_minute(Caller("k", tier="gone")) == 7
    assert Catalog({}, Settings.load({})).tier("gone") == Tier("default")


def test_a_tier_is_a_table() -> None:
    with pytest.raises(SettingsError, match=r"\[tiers\.default\]: must be a table"):
        Catalog({"tiers": {"default": "rpm"}}, Settings.load({}))


@pytest.mark.parametrize(
    ("tier", "told"),
    [
        ({"rmp": 1}, "rmp"),
        ({"rpm": 0}, "rpm"),
        ({"rpm": "60"}, "rpm"),
        ({"tpm": 1.5}, "tpm"),
        ({"tpm": 10**12}, "tpm"),
        ({"parallel": True}, "parallel"),
        ({"parallel": -1}, "parallel"),
        ({"budget": 10}, "budget"),
        ({"budget": {"amount_usd": 10}}, "budget"),
        ({"budget": {"amount_usd": 10, "per": "year"}}, "day, week, month, total"),
        ({"budget": {"amount_usd": -1, "per": "day"}}, "negative"),
        ({"budget": {"amount_usd": [], "per": "day"}}, "amount_usd"),
        ({"budget": {"amount_usd": True, "per": "day"}}, "amount_usd"),
        ({"budget": {"amount_usd": float("nan"), "per": "day"}}, "amount_usd"),
        ({"budget": {"amount_usd": 1e-10, "per": "day"}}, "decimals"),
        ({"budget": {"amount_usd": 10, "per": []}}, "per"),
    ],
)
def test_a_wrong_tier_stops_the_start_and_says_where(tier: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=r"\[tiers\.default\]") as caught:
        catalog(**tier)
    assert told in str(caught.value)
