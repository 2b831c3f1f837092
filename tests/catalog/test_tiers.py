"""The limits of a tier in the catalogue, and the errors about wrong ones."""

from __future__ import annotations

from typing import Any

import pytest

from llm_service.catalog.catalog import Catalog
from llm_service.catalog.load import Tier, TierBudget
from llm_service.core.call import Caller
from llm_service.settings import Settings, SettingsError


def make_catalog(**tier: Any) -> Catalog:
    return Catalog({"tiers": {"default": tier}}, Settings.load({}))


def test_a_tier_limits_rates_parallel_calls_and_spending() -> None:
    catalog = make_catalog(rpm=60, tpm=100_000, parallel=8, budget={"amount_usd": 0.1, "per": "week"})
    assert catalog.tier("default") == Tier("default", 60, 100_000, 8, TierBudget(10**8, "week"))


def test_a_limit_that_a_tier_leaves_out_does_not_exist() -> None:
    assert make_catalog().tier("default") == Tier("default", None, None, None, None)


def test_a_key_s_own_limits_replace_those_of_its_tier() -> None:
    catalog = make_catalog(tpm=100, parallel=8)
    assert (catalog.tokens_per_minute(Caller("k")), catalog.parallel_calls(Caller("k"))) == (100, 8)
    own = Caller("k", tpm=7, parallel=1)
    assert (catalog.tokens_per_minute(own), catalog.parallel_calls(own)) == (7, 1)


def test_an_unknown_tier_has_the_limits_of_the_default_one() -> None:
    catalog = make_catalog(rpm=7, budget={"amount_usd": "0.000000001", "per": "total"})
    assert catalog.tier("gone").budget == TierBudget(1, "total")
    assert catalog.requests_per_minute(Caller("k", tier="gone")) == 7
    assert Catalog({}, Settings.load({})).tier("gone") == Tier("default")


def test_a_tier_must_be_a_table() -> None:
    with pytest.raises(SettingsError, match=r"\[tiers\.default\]: must be a table"):
        Catalog({"tiers": {"default": "rpm"}}, Settings.load({}))


@pytest.mark.parametrize(
    ("tier", "expected"),
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
def test_a_wrong_tier_stops_the_start_and_names_the_wrong_field(tier: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError, match=r"\[tiers\.default\]") as caught:
        make_catalog(**tier)
    assert expected in str(caught.value)
