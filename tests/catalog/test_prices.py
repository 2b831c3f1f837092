"""Costs are exact to the nano-dollar, an unknown price never looks free, and no cost is above its ceiling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage as LibraryUsage
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.catalog.prices import (
    MOST_NANODOLLARS,
    NANO_PER_DOLLAR,
    Dated,
    LibraryPrice,
    Rates,
    library_price,
    read_price,
)
from llm_service.catalog.prices.from_genai_prices import source
from llm_service.core.money import as_dollars
from llm_service.core.target import Price
from llm_service.core.usage import Usage
from tests.conftest import MakeService

RATES = Rates(Decimal(3), Decimal(15), Decimal("0.3"), Decimal("3.75"), Decimal(6))
RICH = read_price(
    {
        "input": 3,
        "output": 15,
        "cache_read": 0.3,
        "input_audio": 32,
        "input_image": 8,
        "cache_image_read": 2,
        "reasoning": 20,
        "output_audio": 64,
        "output_image": 30,
        "web_searches": 10,
        "requests": 5,
        "above": [{"tokens": 1000, "input": 6, "output": 22.5}],
        "tiers": {
            "flex": {"input": 1.5, "output": 7.5},
            "fast": {"input": 30, "output": 150, "above": [{"tokens": 500, "input": 60, "output": 200}]},
        },
    },
    "price",
)


def moment(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]


# The arithmetic.


def test_cached_and_written_tokens_have_the_vendor_s_rates_for_them() -> None:
    usage = Usage(
        input_tokens=1000, output_tokens=100, cached_tokens=600, cache_write_tokens=300, cache_write_1h_tokens=100
    )
    # 100 plain at 3, 600 cached at 0.3, 200 written at 3.75, 100 written for an hour at 6, 100 output at 15
    assert RATES.cost(usage) == (300 + 180 + 750 + 600 + 1500) * 1000


def test_a_fraction_of_a_nanodollar_is_rounded_half_up_once() -> None:
    assert Rates(Decimal("0.0005"), Decimal(0)).cost(Usage(input_tokens=1)) == 1
    assert Rates(Decimal("0.0004"), Decimal(0)).cost(Usage(input_tokens=1)) == 0
    assert Rates(Decimal("0.0004"), Decimal(0)).cost(Usage(input_tokens=10)) == 4


def test_without_a_cache_rate_the_input_rate_applies() -> None:
    usage = Usage(input_tokens=100, cached_tokens=50, cache_write_tokens=50)
    assert Rates(Decimal(2), Decimal(0)).cost(usage) == 100 * 2 * 1000


@pytest.mark.parametrize(
    ("usage", "dollars_per_million"),
    [
        (Usage(100, 10), 100 * 3 + 10 * 15),
        (Usage(100, 10, reasoning_tokens=4), 100 * 3 + 6 * 15 + 4 * 20),
        (Usage(100, 10, input_audio_tokens=40, output_audio_tokens=5), 60 * 3 + 40 * 32 + 5 * 15 + 5 * 64),
        (Usage(100, 10, input_image_tokens=40, output_image_tokens=5), 60 * 3 + 40 * 8 + 5 * 15 + 5 * 30),
        # 80 text tokens, all cached; so 10 of the 20 image tokens must have been cached too
        (Usage(100, cached_tokens=90, input_image_tokens=20), Decimal(80) * Decimal("0.3") + 10 * 8 + 10 * 2),
        # cached audio has no rate of its own, so it costs as much as audio
        (Usage(100, cached_tokens=100, input_audio_tokens=20), Decimal(80) * Decimal("0.3") + 20 * 32),
        (Usage(1000), 1000 * 3),
        (Usage(1001, 10), Decimal("1001") * 6 + Decimal("22.5") * 10),
        (Usage(100, 10, tier="flex"), Decimal(150) + 75),
        (Usage(501, 10, tier="fast"), 501 * 60 + 2000),
        (Usage(web_searches=3), Decimal(3 * 10_000)),
    ],
)
def test_every_kind_has_its_rate(usage: Usage, dollars_per_million: Decimal) -> None:
    # plus half a cent for the request
    assert RICH.cost(usage) == (dollars_per_million + 5_000) * 1000


def test_a_service_tier_without_a_price_has_no_cost_not_the_standard_cost() -> None:
    assert RATES.cost(Usage(1, 1, tier="priority")) is None
    assert RICH.cost(Usage(1, 1, tier="priority")) is None
    assert RATES.ceiling(1, 1, tier="priority") is None


def test_web_searches_without_a_price_make_the_cost_unknown() -> None:
    assert RATES.cost(Usage(1, 1, web_searches=1)) is None
    assert RATES.ceiling(1, 1, web_searches=1) is None
    assert RATES.ceiling(1, 1) == RATES.cost(Usage(1, 1, cache_write_tokens=1, cache_write_1h_tokens=1)) == 21_000


def test_an_unknown_model_has_no_price() -> None:
    assert library_price("openai", "no-such-model-of-anyone") is None
    assert library_price("no-such-provider", "gpt-5") is None
    assert as_dollars(None) is None


# Any numbers that an upstream may report.

ANY_COUNT = st.one_of(st.integers(-(2**70), 2**70), st.integers(-5, 50), st.integers(0, 10**6))
ANY_USAGE = st.builds(
    Usage,
    *[ANY_COUNT] * 6,
    st.booleans(),
    *[ANY_COUNT] * 5,
    st.sampled_from(["", "flex", "fast", "priority", "batch", "unknown"]),
)


def ceiling_of(price: Price, usage: Usage, at: float | None = None) -> int | None:
    return price.ceiling(usage.input_tokens, usage.output_tokens, web_searches=usage.web_searches, at=at)


@given(st.sampled_from([RATES, RICH]), ANY_USAGE)
def test_a_cost_is_never_negative_above_the_maximum_or_above_its_ceiling(price: Price, usage: Usage) -> None:
    cost, ceiling = price.cost(usage), ceiling_of(price, usage)
    if cost is not None:
        assert ceiling is not None
        assert 0 <= cost <= ceiling <= MOST_NANODOLLARS


@given(st.sampled_from([RATES, RICH]), *[st.integers(0, 3000)] * 4, st.sampled_from([None, "", "flex", "fast"]))
def test_a_ceiling_never_falls_when_more_tokens_are_allowed(
    price: Price, prompt: int, output: int, more_prompt: int, more_output: int, tier: str | None
) -> None:
    less = price.ceiling(prompt, output, tier=tier)
    more = price.ceiling(prompt + more_prompt, output + more_output, tier=tier)
    assert (less is None) == (more is None)
    assert less is None or more is None or less <= more


def test_the_highest_cost_is_exact_as_a_double_and_its_sums_fit_into_64_bits() -> None:
    expensive = Rates(Decimal(10**6), Decimal(10**6))
    assert expensive.cost(Usage(10**30, 10**30)) == expensive.ceiling(10**30, 10**30) == MOST_NANODOLLARS
    assert int(float(MOST_NANODOLLARS)) == MOST_NANODOLLARS
    assert 1000 * MOST_NANODOLLARS < 2**63


def test_the_ceiling_of_one_service_tier_is_lower_than_that_of_all() -> None:
    narrow, wide = RICH.ceiling(100, 10, tier=""), RICH.ceiling(100, 10)
    assert narrow is not None
    assert wide is not None
    assert narrow < wide == RICH.ceiling(100, 10, tier="fast")
    # the vendor may serve flex as standard, which is more expensive
    assert RICH.ceiling(100, 10, tier="flex") == narrow


# The library.


def models() -> Iterator[tuple[Any, Any, LibraryPrice]]:
    for provider in get_snapshot().providers:
        for model in provider.models:
            yield provider, model, LibraryPrice(model)


MODELS = list(models())
# Dates and hours before and after a price began, and within and outside of hours with lower prices.
MOMENTS = [moment(2024, 1, 1), moment(2026, 10, 13, 3, 0, 1), moment(2026, 11, 21, 16, 29, 59), moment(2027, 6, 1, 23)]
COUNT = st.integers(0, 400_000)
TIERS = ("", "flex", "priority", "fast", "batch")
TRUE_USAGE = st.builds(
    lambda plain, cached, written, short, text, thought, searches, tier: Usage(
        plain + cached + written,
        text + thought,
        cached,
        written,
        max(0, written - short),
        thought,
        web_searches=searches,
        tier=tier,
    ),
    *[COUNT] * 6,
    st.integers(0, 3),
    st.sampled_from(TIERS),
)


def library_cost(provider: Any, model: Any, usage: Usage, at: float) -> int:
    """The cost by the library's own arithmetic."""
    library_usage = LibraryUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
        input_audio_tokens=usage.input_audio_tokens,
        output_audio_tokens=usage.output_audio_tokens,
        input_image_tokens=usage.input_image_tokens,
        output_image_tokens=usage.output_image_tokens,
        web_searches=usage.web_searches,
        # in these usages there is enough text for all cached tokens
        cache_audio_read_tokens=0,
        cache_image_read_tokens=0,
    )
    key = {"batch": "processing"}.get(usage.tier, "speed" if provider.id == "anthropic" else "service_tier")
    context = {key: usage.tier} if usage.tier else None
    calculation = model.calc_price(
        library_usage, provider, genai_request_timestamp=datetime.fromtimestamp(at, UTC), price_context=context
    )
    return min(int(calculation.total_price * NANO_PER_DOLLAR + Decimal("0.5")), MOST_NANODOLLARS)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(MODELS), TRUE_USAGE, st.sampled_from(MOMENTS))
def test_the_library_s_own_arithmetic_agrees(entry: Any, usage: Usage, at: float) -> None:
    provider, model, price = entry
    cost = price.cost(usage, at)
    if cost is not None:
        assert cost == library_cost(provider, model, usage, at)


def test_the_library_s_own_arithmetic_agrees_for_every_model_and_tier() -> None:
    usage = Usage(250_001, 5000, 30_000, 20_000, 7000, 1234)
    media = replace(usage, input_audio_tokens=999, output_audio_tokens=77, input_image_tokens=55)
    compared = 0
    for provider, model, price in MODELS:
        for tier in TIERS:
            for counts in (usage, media):
                cost = price.cost(replace(counts, tier=tier), MOMENTS[2])
                if cost is not None:
                    assert cost == library_cost(provider, model, replace(counts, tier=tier), MOMENTS[2]), model.id
                    compared += 1
    assert compared > 3000


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(MODELS), ANY_USAGE | TRUE_USAGE, st.sampled_from(MOMENTS))
def test_no_random_cost_of_a_library_model_is_above_its_ceiling(entry: Any, usage: Usage, at: float) -> None:
    _, _, price = entry
    cost, ceiling = price.cost(usage, at), ceiling_of(price, usage, at)
    if cost is not None:
        assert ceiling is not None
        assert 0 <= cost <= ceiling


def usage_of(tokens: int, kind: str) -> Usage:
    """Usage whose tokens are all of one kind; ``kind`` is a part of the input or of the output."""
    counts: dict[str, Any] = {"input_tokens": tokens, "output_tokens": tokens, f"{kind}_tokens": tokens}
    return Usage(**counts)


def test_no_cost_of_any_kind_of_tokens_of_any_library_model_is_above_its_ceiling() -> None:
    kinds = ("cached", "cache_write", "input_audio", "input_image", "output_audio", "output_image", "reasoning")
    for _, model, price in MODELS:
        for tokens in (1, 1000, 199_999, 200_001, 10**6):
            whole = Usage(tokens, tokens)
            for usage in (
                whole,
                replace(whole, cache_write_tokens=tokens, cache_write_1h_tokens=tokens),
                *(usage_of(tokens, kind) for kind in kinds),
            ):
                for tier in TIERS:
                    cost = price.cost(replace(usage, tier=tier), MOMENTS[2])
                    ceiling = price.ceiling(tokens, tokens, at=MOMENTS[2])
                    assert cost is None or (ceiling is not None and cost <= ceiling), model.id


def test_the_vendors_service_tiers_have_their_own_prices_or_none() -> None:
    openai, anthropic = library_price("openai", "gpt-5"), library_price("anthropic", "claude-opus-4-8")
    assert openai is not None
    assert anthropic is not None
    usage, at = Usage(1000, 100), MOMENTS[2]
    tiers = {tier: openai.cost(replace(usage, tier=tier), at) for tier in (*TIERS, "scale", "ultrafast")}
    assert tiers == {
        "": 2_250_000,
        "flex": 1_125_000,
        "priority": 4_500_000,
        "fast": 4_500_000,
        "batch": 1_125_000,
        "scale": None,
        "ultrafast": None,
    }
    tiers = {tier: anthropic.cost(replace(usage, tier=tier), at) for tier in ("", "fast", "batch", "priority", "us")}
    assert tiers == {"": 7_500_000, "fast": 15_000_000, "batch": 3_750_000, "priority": None, "us": None}


def test_the_library_names_the_standard_tier_without_a_price_of_its_own() -> None:
    """So a tier with the name "default" has the standard price."""
    for _, model, _ in MODELS:
        for variant in model.price_variants or ():
            if variant.when.get("service_tier") == "default":
                assert not vars(variant.prices)


def test_another_seller_does_not_have_the_maker_s_service_tiers() -> None:
    price = library_price("azure", "gpt-4.1")
    if price is not None and library_price("openai", "gpt-4.1") is not None:
        assert price.cost(Usage(1, 1, tier="priority"), MOMENTS[2]) is None


def test_the_library_s_price_at_the_time_of_the_call_applies() -> None:
    o3 = library_price("openai", "o3")
    assert o3 is not None
    before, after = moment(2025, 6, 9, 23, 59, 59), moment(2025, 6, 10)
    assert [o3.cost(Usage(1_000_000), at) for at in (before, after, before)] == [10 * 10**9, 2 * 10**9, 10 * 10**9]
    rates = o3.in_force(after)
    assert rates is not None
    assert (rates.since, rates.source) == (date(2025, 6, 10), source())
    deepseek = library_price("deepseek", "deepseek-chat")
    assert deepseek is not None
    hours = [moment(2025, 3, 3, 0, 29, 59), moment(2025, 3, 3, 0, 30), moment(2025, 3, 3, 16, 30)]
    assert [deepseek.cost(Usage(1_000_000), at) for at in hours] == [135_000_000, 270_000_000, 135_000_000]


# models.toml.


def test_a_dated_price_applies_from_its_day_in_utc() -> None:
    price = read_price(
        [
            {"from": date(2026, 7, 1), "input": 3, "output": 4},
            {"input": 1, "output": 2},
            {"from": date(2026, 1, 1), "input": 2, "output": 3},
        ],
        "price",
    )
    days = [(2025, 12, 31, 23, 59, 59), (2026, 1, 1), (2026, 6, 30, 23, 59, 59), (2026, 7, 1)]
    assert [price.cost(Usage(1_000_000), moment(*day)) for day in days] == [n * 10**9 for n in (1, 2, 2, 3)]


def test_before_the_first_day_there_is_no_price() -> None:
    price = read_price({"from": date(2026, 1, 1), "input": 2, "output": 3}, "price")
    assert isinstance(price, Dated)
    before = moment(2025, 12, 31)
    assert price.in_force(before) is None
    assert price.cost(Usage(1), before) is None
    assert price.ceiling(1, 1, at=before) is None
    assert price.cost(Usage(1), moment(2026, 1, 1)) == 2000


def test_a_row_keeps_its_cost_when_the_price_changes(make_service: MakeService) -> None:
    """The row holds the cost; a new price is only for calls after its first day."""
    today = datetime.now(UTC).date()
    catalogue = """
        [providers.echo]
        kind = "echo"
        keyless = true
        [[models."echo/echo".price]]
        input = 0
        output = 1
        [[models."echo/echo".price]]
        from = {day}
        input = 0
        output = 5
        """
    server = make_service(models=catalogue.replace("{day}", f"{today + timedelta(days=2)}"))

    def ask() -> tuple[int, int]:
        reply = server.http().post("/v1/complete", json={"model": "echo/echo", "prompt": "one two three"})
        row = server.row(reply.headers["X-Request-Id"])
        return row["cost_nanousd"], row["output_tokens"]

    cost, tokens = ask()
    assert cost == tokens * 1000
    server.stop()
    (server.folder / "models.toml").write_text(catalogue.replace("{day}", f"{today - timedelta(days=2)}"))
    server.start()
    assert ask() == (tokens * 5000, tokens)
    assert [row["cost_nanousd"] for row in server.rows()] == [tokens * 1000, tokens * 5000]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, "price.input: missing"),
        ({"input": 1}, "price.output: missing"),
        ({"output": 1}, "price.input: missing"),
        ({"input": -1, "output": 1}, "price.input"),
        ({"input": 1, "output": float("nan")}, "price.output"),
        ({"input": 1, "output": float("inf")}, "price.output"),
        ({"input": "1", "output": 1}, "price.input"),
        ({"input": True, "output": 1}, "price.input"),
        ({"input": 10**5000, "output": 1}, "price.input"),
        ({"input": 1e-300, "output": 1}, "price.input"),
        ({"input": 1, "output": 1, "cash": 1}, "price.cash: unknown"),
        ({"input": 1, "output": 1, "cache_read": None}, "price.cache_read"),
        ({"input": 1, "output": 1, "from": "2026-01-01"}, "price.from"),
        ({"input": 1, "output": 1, "from": datetime(2026, 1, 1, tzinfo=UTC)}, "price.from"),
        ({"input": 1, "output": 1, "tiers": {"flex": {"input": 1}}}, "price.tiers.flex.output: missing"),
        ({"input": 1, "output": 1, "tiers": {"flex": 1}}, "price.tiers.flex: must be a table"),
        ({"input": 1, "output": 1, "tiers": [1]}, "price.tiers: must be a table"),
        ({"input": 1, "output": 1, "above": {"tokens": 1}}, "price.above: must be a list"),
        ({"input": 1, "output": 1, "above": [{"tokens": 5, "input": 1}]}, "price.above[0].output: missing"),
        ({"input": 1, "output": 1, "above": [{"input": 1, "output": 1}]}, "price.above[0].tokens"),
        ({"input": 1, "output": 1, "above": [{"tokens": 0, "input": 1, "output": 1}]}, "price.above[0].tokens"),
        (
            [{"input": 1, "output": 1}, {"input": 1, "output": 1}],
            "price[1].from: another price begins on that day",
        ),
        ([], "price: needs at least one"),
        ([1], "price[0]: must be a table"),
        (3, "price: must be a table"),
    ],
)
def test_an_incomplete_or_wrong_price_is_rejected_with_the_field_s_name(value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=r"price") as caught:
        read_price(value, "price")
    assert expected in str(caught.value)
