"""Thresholds are recorded once and due alerts are claimed once, on every database, with any number of processes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, func, select

from llm_service import store
from llm_service.catalog.load import TierBudget
from llm_service.extensions import db
from llm_service.settings import Settings
from llm_service.store import budgets, keys
from llm_service.store.alerts import Alert, AlertLog, Spender
from llm_service.store.engine import database_url
from llm_service.store.row_inserts import sink_for
from llm_service.store.tables import BudgetAlertRow
from tests.store.conftest import KEY, row

NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
ME = Spender("abcdefgh", "Zoë", "acme")
ROOT = Path(__file__).parents[2]
OpenLog = Callable[..., AlertLog]


@pytest.fixture
def open_log(app: Flask) -> Iterator[OpenLog]:
    """Opens alert logs on the test's database. ``tiers`` maps tier names to budgets."""
    made: list[AlertLog] = []

    def make(zone: str = "UTC", **tiers: TierBudget) -> AlertLog:
        url = db.engine.url.render_as_string(hide_password=False)
        made.append(AlertLog(url, zone, lambda name: tiers.get(name or "default")))
        return made[-1]

    yield make
    for item in made:
        item.close()


def spend(nanousd: int, **values: Any) -> None:
    sink = sink_for(db.engine.url.render_as_string(hide_password=False))
    sink.write([row(**{"created_at": NOW, "user": "Zoë", "org": "acme", "cost_nanousd": nanousd, **values})])
    sink.close()


def thresholds_of(alerts: list[Alert]) -> list[tuple[str, int]]:
    return [(alert.scope, alert.threshold) for alert in alerts]


def test_each_threshold_is_found_once_and_in_order(open_log: OpenLog) -> None:
    budgets.put("key", "abcdefgh", 100, "month")
    log = open_log()
    spend(49)
    assert log.passed({ME}, NOW, due=True) == []
    spend(1)
    (half,) = log.passed({ME}, NOW, due=True)
    assert (half.scope, half.threshold, half.spent_nanousd, half.amount_nanousd) == ("key:abcdefgh", 50, 50, 100)
    assert (half.period, half.period_id, half.resets_at) == ("month", "month:2026-05", datetime(2026, 6, 1, tzinfo=UTC))
    assert (half.created_at, half.attempts) == (NOW, 0)
    assert log.passed({ME}, NOW, due=True) == []
    spend(1000)
    assert thresholds_of(log.passed({ME}, NOW, due=True)) == [("key:abcdefgh", 80), ("key:abcdefgh", 100)]
    assert log.passed({ME}, NOW, due=True) == []


def test_a_threshold_is_found_by_only_one_of_several_concurrent_processes(app: Flask, open_log: OpenLog) -> None:
    for name in range(20):
        budgets.put("key", "abcdefgh", 100, "day", f"echo{'*' * (name + 1)}")
    spend(90)
    logs = [open_log() for _ in range(4)]
    found: list[Alert] = []
    threads = [threading.Thread(target=lambda log=log: found.extend(log.passed({ME}, NOW, due=True))) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(thresholds_of(found))) == 40
    assert open_log().passed({ME}, NOW, due=True) == []  # as after a restart


def test_every_kind_of_budget_of_the_spenders_is_checked_and_no_other(open_log: OpenLog) -> None:
    for kind, name in (("key", "abcdefgh"), ("user", "Zoë"), ("org", "acme"), ("service", ""), ("key", "other234")):
        budgets.put(kind, name, 200, "day")  # type: ignore[arg-type]
    budgets.put("key", "abcdefgh", 200, "day", "echo/*")
    budgets.put("key", "abcdefgh", 200, "day", "openai/*")
    budgets.put("user", "Max", 200, "day")
    spend(100)
    spend(100, key_id="other234", user=None, org=None, provider="openai", model_served="gpt-5")
    found = thresholds_of(open_log().passed({ME}, NOW, due=True))
    assert sorted(found) == [
        ("key:abcdefgh", 50),
        ("model:abcdefgh:echo/*", 50),
        ("org:acme", 50),
        ("service", 50),
        ("service", 80),
        ("service", 100),
        ("user:Zoë", 50),
    ]


def test_a_tier_s_budget_applies_to_each_of_its_keys_without_a_budget_of_its_own(app: Flask, open_log: OpenLog) -> None:
    mine = keys.issue(KEY, name="mine", tier="gold").stored.id
    own = keys.issue(KEY, name="own", tier="gold").stored.id
    budgets.put("key", own, 1000, "day")
    for key_id in (mine, own, "env-1234abcd"):
        spend(60, key_id=key_id, user=None, org=None)
    log = open_log(gold=TierBudget(100, "day"), default=TierBudget(70, "week"))
    spenders = {Spender(key_id, "", "") for key_id in (mine, own, "env-1234abcd")}
    found = log.passed(spenders, NOW, due=True)
    assert sorted(thresholds_of(found)) == sorted(
        [(f"key:{mine}", 50), ("key:env-1234abcd", 50), ("key:env-1234abcd", 80)]
    )
    assert {alert.period for alert in found if "env" in alert.scope} == {"week"}


def test_a_new_period_and_a_new_amount_start_again_with_all_thresholds(open_log: OpenLog) -> None:
    budgets.put("key", "abcdefgh", 100, "day")
    log = open_log()
    spend(60)
    assert len(log.passed({ME}, NOW, due=True)) == 1
    spend(60, created_at=NOW + timedelta(days=1))
    assert [alert.period_id for alert in log.passed({ME}, NOW + timedelta(days=1), due=True)] == ["day:2026-05-21"]
    budgets.put("key", "abcdefgh", 110, "day")
    assert [alert.amount_nanousd for alert in log.passed({ME}, NOW + timedelta(days=1), due=True)] == [110]
    budgets.put("key", "abcdefgh", 1000, "day")
    assert log.passed({ME}, NOW + timedelta(days=1), due=True) == []


def test_periods_are_those_of_the_time_zone(open_log: OpenLog) -> None:
    budgets.put("key", "abcdefgh", 100, "day")
    late = NOW.replace(hour=23)
    spend(100, created_at=late)
    found = open_log("Asia/Tokyo").passed({ME}, late, due=True)
    assert {alert.period_id for alert in found} == {"day:2026-05-21"}
    assert {alert.resets_at for alert in found} == {datetime(2026, 5, 21, 15, tzinfo=UTC)}


def test_a_budget_of_0_has_no_thresholds_and_a_total_budget_never_resets(open_log: OpenLog) -> None:
    budgets.put("key", "abcdefgh", 0, "day")
    budgets.put("service", "", 10, "total")
    spend(10)
    found = open_log().passed({ME}, NOW, due=True)
    assert {(alert.scope, alert.period_id, alert.resets_at) for alert in found} == {("service", "total", None)}


def test_amounts_beyond_64_bits_are_compared_without_overflow(open_log: OpenLog) -> None:
    budgets.put("key", "abcdefgh", 9_000_000 * 10**9, "total")
    spend(2**62)
    spend(2**62)
    found = open_log().passed({ME}, NOW, due=True)
    assert [alert.spent_nanousd for alert in found] == [2**63 - 1] * 3


def test_nothing_is_computed_for_budgets_whose_last_threshold_is_known(app: Flask, open_log: OpenLog) -> None:
    budgets.put("service", "", 10, "total")
    spend(10)
    log = open_log()
    assert len(log.passed({ME}, NOW, due=True)) == 3
    seen: list[str] = []
    event.listen(log._engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
    assert log.passed({ME}, NOW, due=True) == []
    assert seen
    assert not [statement for statement in seen if "usage_daily" in statement or "INSERT" in statement]


def test_all_spenders_since_yesterday_are_known_after_a_restart(open_log: OpenLog) -> None:
    spend(1)
    spend(0, key_id="other234", user=None, org=None, created_at=NOW - timedelta(days=1))
    spend(1, key_id="longgone", created_at=NOW - timedelta(days=3))
    assert open_log().spenders(NOW - timedelta(days=1)) == {ME, Spender("other234", "", "")}


def test_no_other_process_can_claim_an_alert_before_its_claim_ends(open_log: OpenLog) -> None:
    budgets.put("key", "abcdefgh", 10, "day")
    spend(8)
    first, second = open_log(), open_log()
    assert first.claim(NOW, NOW) is None
    assert first.next_due() is None
    first.passed({ME}, NOW, due=True)
    minute = timedelta(minutes=1)
    claimed = first.claim(NOW, NOW + minute)
    assert claimed is not None
    assert (claimed.threshold, claimed.attempts, claimed.created_at) == (50, 1, NOW)
    other = second.claim(NOW, NOW + minute)
    assert other is not None
    assert other.threshold == 80
    assert second.claim(NOW, NOW + minute) is None
    assert second.next_due() == NOW + minute
    # The first process was stopped for a while; what it does when it wakes up has no effect any more.
    again = second.claim(NOW + minute, NOW + 2 * minute)
    assert again is not None
    assert (again.id, again.attempts) == (claimed.id, 2)
    first.postponed(claimed, None)
    assert second.next_due() is not None
    second.delivered(again, NOW + minute)
    first.postponed(other, None)
    second.postponed(other, None)
    assert second.next_due() is None
    with db.engine.connect() as connection:
        assert set(connection.execute(select(BudgetAlertRow.delivered_at, BudgetAlertRow.next_at)).all()) == {
            (NOW + minute, None),
            (None, None),
        }


def test_concurrent_claims_are_of_different_alerts(app: Flask, open_log: OpenLog) -> None:
    for number in range(1, 9):
        budgets.put("key", "abcdefgh", number, "day", f"echo{'*' * number}")
    spend(100)
    assert len(open_log().passed({ME}, NOW, due=True)) == 24
    claimed: list[str] = []

    def claim(log: AlertLog) -> None:
        while (found := log.claim(NOW, NOW + timedelta(hours=1))) is not None:
            claimed.append(found.id)

    threads = [threading.Thread(target=claim, args=(open_log(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # On PostgreSQL a claim that skips a locked row may find no other: the next claim takes the rest.
    claim(open_log())
    assert len(claimed) == len(set(claimed)) == 24


def test_without_a_webhook_nothing_is_ever_due(open_log: OpenLog) -> None:
    budgets.put("key", "abcdefgh", 10, "day")
    spend(8)
    log = open_log()
    assert len(log.passed({ME}, NOW, due=False)) == 2
    assert log.next_due() is None
    assert log.claim(NOW + timedelta(days=9), NOW + timedelta(days=10)) is None


def test_only_alerts_of_periods_that_ended_long_ago_are_deleted(open_log: OpenLog) -> None:
    budgets.put("key", "abcdefgh", 10, "day")
    budgets.put("service", "", 10, "total")
    spend(10)
    log = open_log()
    log.passed({ME}, NOW, due=True)
    assert log.prune(NOW + timedelta(days=90)) == 0
    assert log.prune(NOW + timedelta(days=91)) == 3
    with db.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(BudgetAlertRow)) == 3


def test_names_of_any_length_and_script_can_be_stored(open_log: OpenLog) -> None:
    name = "𐍈:%" * 66
    budgets.put("user", name, 10, "day", "模" * 190 + "*")
    spend(10, user=name, model_served="模" * 195)
    found = open_log().passed({Spender("abcdefgh", name, "")}, NOW, due=True)
    assert [alert.scope_name for alert in found] == [name] * 3


def test_a_missing_sqlite_file_is_not_replaced(sqlite_settings: Settings) -> None:
    url = database_url(sqlite_settings)
    path = Path(url.removeprefix("sqlite:///"))
    log = AlertLog(url, "UTC", lambda name: None)
    with pytest.raises(Exception, match="unable to open"):
        log.next_due()
    assert not path.exists()


PATCHED = """
import gevent.monkey
gevent.monkey.patch_all()
import json, sys, threading, time
from datetime import UTC, datetime, timedelta
import gevent
from llm_service.store.alerts import AlertLog, Spender

gaps, last, natives = [], [time.perf_counter()], set()
NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)

def tick():
    while True:
        gevent.sleep(0.005)
        now = time.perf_counter()
        gaps.append(now - last[0])
        last[0] = now

log = AlertLog(sys.argv[1], "UTC", lambda name: None)
spenders = log.spenders(NOW)
gevent.spawn(tick)
gevent.sleep(0.05)
gaps.clear()
passed = log._passed
def watched(*given):
    natives.add(threading.get_native_id())
    return passed(*given)
log._passed = watched
found = log.passed(spenders, NOW, True)
claims = []
while (claimed := log.claim(NOW, NOW + timedelta(hours=1))) is not None:
    claims.append(claimed.id)
log.close()
in_a_thread = threading.get_native_id() not in natives
print(json.dumps({"found": len(found), "claims": len(set(claims)), "native": in_a_thread, "worst": max(gaps)}))
"""


def test_a_patched_process_finds_alerts_without_blocking_the_hub(settings: Settings, app: Flask) -> None:
    sink = sink_for(database_url(settings))
    rows = [row(created_at=NOW, key_id=f"k{number % 3000:07}", cost_nanousd=60) for number in range(6000)]
    sink.write(rows)
    sink.close()
    for number in range(20):
        budgets.put("key", f"k{number:07}", 200, "day")
    budgets.put("service", "", 10**9, "day", "echo/*")
    command = [sys.executable, "-c", PATCHED, database_url(settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["found"], result["claims"]) == (20, 20)
    assert result["native"] is (settings.database_url is None)
    assert result["worst"] < 0.5
    assert store.upgrade(app) is False
