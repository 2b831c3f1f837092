from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event

from llm_service.catalog.load import TierBudget
from llm_service.core.money import MOST_NANODOLLARS
from llm_service.extensions import db
from llm_service.store import budgets, limits, retention
from llm_service.store.limits import Limits
from llm_service.store.row_inserts import sink_for
from tests.store.conftest import row


def write(*rows: dict[str, Any]) -> None:
    sink = sink_for(db.engine.url.render_as_string(hide_password=False))
    sink.write(rows)
    sink.close()


def test_a_budget_is_read_as_it_was_stored_and_setting_it_again_changes_it(app: Flask) -> None:
    first = budgets.put("key", "abcdefgh", 5, "month")
    assert budgets.find(first.id) == first
    again = budgets.put("key", "abcdefgh", 7, "month")
    assert (again.id, again.amount_nanousd, again.created_at) == (first.id, 7, first.created_at)
    assert again.updated_at >= first.updated_at
    others = [
        budgets.put("key", "abcdefgh", 7, "day"),
        budgets.put("key", "abcdefgh", 7, "month", "openai/*"),
        budgets.put("user", "abcdefgh", 7, "month"),
        budgets.put("service", "", MOST_NANODOLLARS, "total"),
    ]
    assert {item.id for item in budgets.list_all()} == {first.id, *(item.id for item in others)}
    assert [item.period for item in budgets.of_scope("key", "abcdefgh")] == ["day", "month", "month"]
    assert budgets.remove(first.id) == again
    assert budgets.find(first.id) is None
    with pytest.raises(budgets.BudgetUnknown):
        budgets.remove(first.id)


def test_concurrent_puts_of_one_budget_store_one_row(app: Flask) -> None:
    def put(amount: int) -> None:
        with app.app_context():
            budgets.put("org", "acme", amount, "week")

    threads = [threading.Thread(target=put, args=(amount,)) for amount in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(budgets.list_all()) == 1


@pytest.mark.parametrize(
    ("kind", "name", "amount", "period"),
    [
        ("ip", "x", 1, "day"),
        ("key", "x", 1, "year"),
        ("key", "", 1, "day"),
        ("service", "x", 1, "day"),
        ("key", "x", -1, "day"),
        ("key", "x", MOST_NANODOLLARS + 1, "day"),
    ],
)
def test_an_invalid_budget_is_rejected(app: Flask, kind: Any, name: str, amount: int, period: Any) -> None:
    with pytest.raises(ValueError):
        budgets.put(kind, name, amount, period)
    assert budgets.list_all() == []


def test_a_caller_s_budgets_are_read_with_one_select(app: Flask) -> None:
    mine = [
        budgets.put("key", "abcdefgh", 1, "day"),
        budgets.put("key", "abcdefgh", 1, "day", "fast"),
        budgets.put("user", "Zoë", 1, "day"),
        budgets.put("org", "acme", 1, "day"),
        budgets.put("service", "", 1, "day"),
    ]
    budgets.put("key", "Zoë", 1, "day")
    budgets.put("user", "acme", 1, "day")
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        assert budgets.for_caller("abcdefgh", "Zoë", "acme") == mine
        assert len(seen) == 1
    finally:
        event.remove(db.engine, "before_cursor_execute", note)
    assert budgets.for_caller("nobody23", None, None) == mine[-1:]


def test_a_key_s_own_budget_replaces_its_tier_s(app: Flask) -> None:
    tier = TierBudget(50, "week")
    beside = [
        budgets.put("key", "abcdefgh", 1, "day", "fast"),
        budgets.put("user", "abcdefgh", 1, "day"),
        budgets.put("service", "", 1, "day"),
    ]
    (first, *others) = budgets.effective(beside, "abcdefgh", tier)
    assert others == beside
    assert (first.id, first.scope, first.amount_nanousd, first.period) == ("tier", "key:abcdefgh", 50, "week")
    assert budgets.effective(beside, "abcdefgh", None) == beside
    own = [budgets.put("key", "abcdefgh", 900, "month"), *beside]
    assert budgets.effective(own, "abcdefgh", tier) == own
    assert budgets.effective(own, "other234", tier)[0].id == budgets.TIER


def test_the_spent_amount_of_a_tier_s_budget_is_computed_like_that_of_a_stored_one(app: Flask) -> None:
    write(row(created_at=NOW, cost_nanousd=7), row(created_at=NOW - timedelta(days=10), cost_nanousd=70))
    (tier,) = budgets.effective([], "abcdefgh", TierBudget(50, "week"))
    assert budgets.spent([tier], "UTC", NOW) == {("key:abcdefgh", "week:2026-W21"): 7}


def test_names_of_scopes_are_unambiguous() -> None:
    assert budgets.scope_of("key", "abcdefgh") == "key:abcdefgh"
    assert budgets.scope_of("key", "abcdefgh", "openai/*") == "model:abcdefgh:openai/*"
    assert budgets.scope_of("service", "") == "service"
    assert budgets.scope_of("service", "", "x") == "model:service:x"
    assert budgets.scope_of("user", "a:b", "c") != budgets.scope_of("user", "a", "b:c")
    assert budgets.scope_of("user", "a%3Ab") != budgets.scope_of("user", "a:b")


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        ("", True),
        ("openai/gpt-5-mini", True),
        ("gpt-5-mini", True),
        ("gpt-5-mini-2025-08-07", True),
        ("openai/*", True),
        ("gpt-5*", True),
        ("gpt-5", False),
        ("anthropic/*", False),
        ("OPENAI/*", False),
    ],
)
def test_a_pattern_covers_a_model_with_and_without_its_date(pattern: str, covered: bool) -> None:
    assert budgets.covers(pattern, "openai", "gpt-5-mini-2025-08-07") is covered
    assert budgets.covers("claude-haiku-4-5", "anthropic", "claude-haiku-4-5-20251001")


NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)


def test_the_spent_amount_is_the_sum_of_the_scope_s_rows_in_the_period(app: Flask) -> None:
    write(
        row(created_at=NOW, org="acme", user="u", cost_nanousd=1, provider="openai", model_served="gpt-5"),
        row(created_at=NOW, org="acme", user="v", cost_nanousd=10),
        row(created_at=NOW - timedelta(days=1), org="acme", user="u", cost_nanousd=100),
        row(created_at=NOW - timedelta(days=10), org="acme", user="u", cost_nanousd=1000),
        row(created_at=NOW - timedelta(days=60), org="acme", user="u", cost_nanousd=10_000),
        row(created_at=NOW, key_id="other234", cost_nanousd=100_000),
        row(created_at=NOW, org="acme", user="u", cost_nanousd=None),
    )
    asked = [
        *(budgets.put("key", "abcdefgh", 1, period) for period in ("day", "week", "month", "total")),
        budgets.put("user", "u", 1, "total"),
        budgets.put("org", "acme", 1, "day"),
        budgets.put("key", "abcdefgh", 1, "total", "openai/gpt*"),
        budgets.put("service", "", 1, "total"),
        budgets.put("service", "", 1, "total", "echo/*"),
        budgets.put("user", "nobody", 1, "day"),
    ]
    assert budgets.spent(asked, "UTC", NOW) == {
        ("key:abcdefgh", "day:2026-05-20"): 11,
        ("key:abcdefgh", "week:2026-W21"): 111,
        ("key:abcdefgh", "month:2026-05"): 1111,
        ("key:abcdefgh", "total"): 11111,
        ("user:u", "total"): 11101,
        ("org:acme", "day:2026-05-20"): 11,
        ("model:abcdefgh:openai/gpt*", "total"): 1,
        ("service", "total"): 111111,
        ("model:service:echo/*", "total"): 111110,
        ("user:nobody", "day:2026-05-20"): 0,
    }
    assert budgets.spent([], "UTC") == {}


def test_a_period_in_another_time_zone_begins_within_a_utc_day(app: Flask) -> None:
    # In New York 20 May 2026 lasts from 04:00 to 04:00 UTC.
    hours = range(9)
    write(*(row(created_at=NOW.replace(hour=hour), cost_nanousd=10**hour) for hour in hours))
    daily = budgets.put("key", "abcdefgh", 1, "day")
    found = budgets.spent([daily], "America/New_York", NOW)
    assert found == {("key:abcdefgh", "day:2026-05-20"): 111110000}
    before = budgets.spent([daily], "America/New_York", NOW.replace(hour=2))
    assert list(before) == [("key:abcdefgh", "day:2026-05-19")]


def test_where_rows_are_deleted_too_much_is_counted_and_never_too_little(app: Flask) -> None:
    write(*(row(created_at=NOW.replace(day=1, hour=hour), cost_nanousd=10**hour) for hour in (0, 5)))
    write(row(created_at=NOW, cost_nanousd=10**7))
    monthly = budgets.put("key", "abcdefgh", 1, "month")
    (exact,) = budgets.spent([monthly], "America/New_York", NOW).values()
    assert exact == 10**7 + 10**5
    retention.prune(NOW - timedelta(days=1))
    (spent,) = budgets.spent([monthly], "America/New_York", NOW).values()
    assert spent == 10**7 + 10**5 + 1
    assert list(budgets.spent([monthly], "UTC", NOW).values()) == [10**7 + 10**5 + 1]


def test_the_spent_amounts_of_many_budgets_are_read_at_once(app: Flask) -> None:
    write(*(row(key_id=f"key{number}", created_at=NOW, cost_nanousd=number) for number in range(600)))
    asked = [budgets.put("key", f"key{number}", 1, "day") for number in range(600)]
    found = budgets.spent(asked, "UTC", NOW)
    assert [found[item.scope, "day:2026-05-20"] for item in asked] == list(range(600))


def test_limits_are_set_one_by_one_found_for_a_caller_and_removed(app: Flask) -> None:
    assert limits.put("user", "Zoë", {"rpm": 7}) == Limits("user", "Zoë", 7)
    assert limits.put("user", "Zoë", {"tpm": 100, "parallel": 2}) == Limits("user", "Zoë", 7, 100, 2)
    assert limits.put("user", "Zoë", {"rpm": None}) == Limits("user", "Zoë", None, 100, 2)
    assert limits.put("user", "Zoë", {}) == Limits("user", "Zoë", None, 100, 2)
    acme, service = limits.put("org", "acme", {"rpm": 1}), limits.put("service", "", {"parallel": 9})
    limits.put("org", "other", {"rpm": 1})
    assert limits.for_caller("Zoë", "acme") == [Limits("user", "Zoë", None, 100, 2), acme, service]
    assert limits.for_caller(None, None) == [service]
    assert len(limits.list_all()) == 4
    assert limits.remove("org", "acme") is True
    assert limits.remove("org", "acme") is False
    for wrong in ({"rpm": 0}, {"budget": 1}):
        with pytest.raises(ValueError):
            limits.put("user", "Zoë", wrong)
    with pytest.raises(ValueError):
        limits.put("service", "x", {"rpm": 1})
