"""Budgets, limits and retention from the command line, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from llm_service import create_app, store
from llm_service.core.errors import Unavailable
from llm_service.extensions import db
from llm_service.settings import Settings
from llm_service.store import budgets, keys, requests
from llm_service.store.budgets import Budget
from llm_service.store.engine import database_url
from llm_service.store.row_inserts import sink_for
from tests.store.conftest import row

Run = Callable[..., Result]


@contextmanager
def application(instance: Path, **settings: Any) -> Iterator[Flask]:
    """The service on a migrated database, whose connections are closed at the end."""
    made = create_app(Settings(instance=instance, secret_text="of sixteen or more", **settings))
    try:
        store.upgrade(made)
        yield made
    finally:
        with made.app_context():
            db.engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flask]:
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with application(tmp_path, database_url=url) as made:
        yield made


@pytest.fixture
def run(app: Flask) -> Run:
    """``run("budgets", "list")`` returns the command's result. Its exit code must be ``code``."""

    def invoke(*arguments: str, code: int = 0) -> Result:
        result = app.test_cli_runner().invoke(args=list(arguments))
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """Runs a command with --json and returns the parsed output."""

    def invoke(*arguments: str) -> Any:
        return json.loads(run(*arguments, "--json").stdout)

    return invoke


def log(app: Flask, *rows: dict[str, Any]) -> None:
    sink = sink_for(database_url(app.extensions["llm_service"].settings))
    sink.write(rows)
    sink.close()


def test_a_key_is_created_with_its_limits_budget_and_networks(run_json: Any) -> None:
    made = run_json(
        "keys", "create", "--name", "ci", "--tpm", "1000", "--parallel", "4",
        "--budget", "0.000000001", "--per", "day",
        "--networks", "10.0.0.0/8, 192.0.2.1,2001:db8::/32,10.0.0.0/8,::ffff:198.51.100.0/120",
    )  # fmt: skip
    assert (made["rpm"], made["tpm"], made["parallel"]) == (None, 1000, 4)
    assert made["networks"] == ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "198.51.100.0/24"]
    (budget,) = made["budgets"]
    assert {name: budget[name] for name in ("amount_nanousd", "per", "model")} == {
        "amount_nanousd": 1,
        "per": "day",
        "model": None,
    }
    shown = run_json("keys", "show", "ci")
    assert {name: value for name, value in made.items() if name != "key"} == shown
    assert run_json("keys", "list") == [shown]


def test_a_key_created_without_limits_budget_and_networks_has_none(run_json: Any) -> None:
    made = run_json("keys", "create", "--name", "ci")
    assert [made[name] for name in ("tpm", "parallel", "budgets", "networks")] == [None, None, [], []]


def test_an_update_changes_only_the_given_options(run_json: Any, run: Run) -> None:
    run_json("keys", "create", "--name", "ci", "--tpm", "7", "--networks", "10.0.0.0/8", "--budget", "5")
    changed = run_json("keys", "update", "ci", "--parallel", "3")
    assert (changed["tpm"], changed["parallel"], changed["networks"]) == (7, 3, ["10.0.0.0/8"])
    changed = run_json("keys", "update", "ci", "--tpm", "none", "--networks", "all", "--budget", "2.50", "--per", "day")
    assert (changed["tpm"], changed["parallel"], changed["networks"]) == (None, 3, [])
    assert [(item["amount_usd"], item["per"]) for item in changed["budgets"]] == [(2.5, "day"), (5, "month")]
    assert "$2.500000 per day; $5.000000 per month" in run("keys", "show", "ci").stdout
    assert [
        item["per"] for item in run_json("keys", "update", "ci", "--budget", "none", "--per", "day")["budgets"]
    ] == ["month"]
    assert run_json("keys", "update", "ci", "--budget", "none")["budgets"] == []


def test_a_new_amount_changes_the_key_s_only_budget_and_several_budgets_need_per(run_json: Any, run: Run) -> None:
    run_json("keys", "create", "--name", "ci", "--budget", "5", "--per", "day")
    run_json("budgets", "set", "--key", "ci", "--amount", "1", "--per", "week", "--model", "fast")
    changed = run_json("keys", "update", "ci", "--budget", "9")["budgets"]
    assert [(item["amount_usd"], item["per"]) for item in changed if not item["model"]] == [(9, "day")]
    run_json("keys", "update", "ci", "--budget", "100", "--per", "month")
    failed = run("keys", "update", "ci", "--budget", "1", "--tpm", "5", code=2)
    assert "several budgets (day, month)" in failed.stderr
    assert run_json("keys", "show", "ci")["tpm"] is None


def test_two_keys_with_the_same_name_need_their_ids(run_json: Any, run: Run) -> None:
    first = run_json("keys", "create", "--name", "same")["id"]
    run("keys", "create", "--name", "same")
    assert first in run("budgets", "set", "--key", "same", "--amount", "1", code=1).stderr
    assert run_json("budgets", "set", "--key", first, "--amount", "1")["name"] == first


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--budget", "-1"], "negative"),
        (["--budget", "0.0000000001"], "9 decimals"),
        (["--budget", "NaN"], "number of dollars"),
        (["--budget", "9000001"], "9,000,000"),
        (["--budget", "5", "--per", "year"], "month"),
        (["--per", "day"], "--per needs --budget"),
        (["--networks", "10.0.0.1/8"], "write 10.0.0.0/8, or 10.0.0.1 for"),
        (["--networks", "2001:db8::1/32"], "write 2001:db8::/32"),
        (["--networks", "10.0.0.0/33"], "networks such as"),
        (["--networks", "fe80::1%eth0"], "interface"),
        (["--budget", "1e300"], "9,000,000"),
        (["--budget", "1,000"], "number of dollars"),
        (["--networks", "example.com"], "networks"),
        (["--networks", ","], "networks"),
        (["--networks", ",".join(f"10.0.{number}.0/24" for number in range(65))], "at most 64"),
        (["--tpm", "0"], "whole number"),
        (["--parallel", "٣"], "whole number"),
        (["--parallel", "9" * 5000], "whole number"),
    ],
)
def test_an_invalid_value_is_rejected_and_nothing_is_created(
    app: Flask, run: Run, arguments: list[str], reason: str
) -> None:
    assert reason in run("keys", "create", "--name", "ci", *arguments, code=2).stderr
    with app.app_context():
        assert keys.list_all() == []
        assert budgets.list_all() == []


def test_a_budget_is_set_listed_shown_and_removed(app: Flask, run_json: Any, run: Run) -> None:
    key = run_json("keys", "create", "--name", "ci")["id"]
    log(app, row(key_id=key, org="acme", cost_nanousd=1_500_000_000))
    made = run_json("budgets", "set", "--org", "acme", "--amount", "2", "--per", "week")
    assert (made["kind"], made["name"], made["model"], made["per"]) == ("org", "acme", None, "week")
    assert (made["amount_usd"], made["spent_usd"], made["left_usd"], made["over_by_usd"]) == (2, 1.5, 0.5, 0)
    assert made["period"].startswith("week:20")
    assert datetime.fromisoformat(made["resets_at"]) > datetime.now(UTC)
    assert run_json("budgets", "show", made["id"]) == made
    run_json("budgets", "set", "--key", "ci", "--amount", "1", "--per", "total", "--model", "openai/*")
    service = run_json("budgets", "set", "--service", "--amount", "9")
    listed = run_json("budgets", "list")
    assert [(item["kind"], item["name"], item["model"]) for item in listed] == [
        ("key", key, "openai/*"),
        ("org", "acme", None),
        ("service", None, None),
    ]
    assert [item["spent_usd"] for item in listed] == [0, 1.5, 1.5]
    assert listed[0]["resets_at"] is None
    table = run("budgets", "list").stdout
    assert f"{key} (ci)" in table
    assert "$1.500000" in table
    assert run_json("budgets", "remove", service["id"]) == {"id": service["id"], "removed": True}
    assert len(run_json("budgets", "list")) == 2
    assert "budgets list" in run("budgets", "remove", service["id"], code=1).stderr
    assert "budgets list" in run("budgets", "show", "nothing", code=1).stderr


def test_a_budget_below_the_spent_amount_is_accepted_with_a_warning(app: Flask, run_json: Any, run: Run) -> None:
    key = run_json("keys", "create", "--name", "ci")["id"]
    log(app, row(key_id=key, cost_nanousd=3_000_000_000))
    lowered = run_json("budgets", "set", "--key", "ci", "--amount", "1")
    assert (lowered["over_by_usd"], lowered["left_usd"]) == (2, 0)
    warned = run("budgets", "set", "--key", "ci", "--amount", "1")
    assert "Warning: $3.000000 is already spent" in warned.stderr
    assert "$2.000000 more" in warned.stderr
    assert "Warning" not in run("budgets", "set", "--key", "ci", "--amount", "3").stderr
    assert run_json("keys", "update", "ci", "--budget", "0.5")["over_by_usd"] == 2.5
    assert "Warning: $2.500000" in run("keys", "update", "ci", "--budget", "0.5").stderr
    assert "over_by_usd" not in run_json("keys", "update", "ci", "--budget", "5")


@pytest.mark.parametrize(
    "scope", [[], ["--user", "u", "--org", "o"], ["--service", "--user", "u"], ["--user", ""], ["--key", "nobody"]]
)
def test_a_budget_needs_exactly_one_scope(run: Run, scope: list[str]) -> None:
    failed = run("budgets", "set", "--amount", "1", *scope, code=1 if scope[:1] == ["--key"] else 2)
    assert "Traceback" not in failed.output


def test_budgets_reset_in_the_operator_s_time_zone(tmp_path: Path) -> None:
    words = ["budgets", "set", "--service", "--amount", "1", "--per", "day", "--json"]
    with application(tmp_path, time_zone="Asia/Kathmandu") as app:
        said = app.test_cli_runner().invoke(args=words)
    assert json.loads(said.stdout)["resets_at"].endswith("T18:15:00.000Z")


class FakeReconciler:
    """Answers what the commands ask of the counters. A test can read its calls and make Redis unavailable."""

    def __init__(self, unavailable: bool = False, held: int = 0) -> None:
        self.unavailable, self.held, self.asked, self.rebuilt = unavailable, held, 0, 0

    def rebuild(self) -> int:
        if self.unavailable:
            raise Unavailable("Redis did not answer.")
        self.rebuilt += 1
        return 1234

    def balances(self, budget: Budget) -> tuple[int, int] | None:
        self.asked += 1
        return None if self.unavailable else (0, self.held)


def test_a_rebuild_prints_the_number_of_counters_or_what_to_do(app: Flask, run_json: Any, run: Run) -> None:
    service = app.extensions["llm_service"]
    service.reconciler = FakeReconciler()
    assert run_json("budgets", "rebuild") == {"rebuilt": 1234}
    assert "1,234" in run("budgets", "rebuild").stdout
    service.reconciler = FakeReconciler(unavailable=True)
    failure = run("budgets", "rebuild", code=1).stderr
    assert "Redis did not answer" in failure and "start the service first" in failure


def test_what_running_calls_hold_is_shown_beside_the_spent_amount(app: Flask, run_json: Any, run: Run) -> None:
    service = app.extensions["llm_service"]
    service.reconciler = reconciler = FakeReconciler(held=1_000_000_001)
    shown = run_json("budgets", "set", "--service", "--amount", "5")
    assert (shown["held_nanousd"], shown["held_usd"], shown["left_usd"]) == (1_000_000_001, 1.000000001, 5)
    run_json("budgets", "set", "--org", "acme", "--amount", "5")
    assert "$1.000000001" in run("budgets", "list").stdout
    reconciler.unavailable, reconciler.asked = True, 0
    assert [item["held_usd"] for item in run_json("budgets", "list")] == [None, None]
    assert reconciler.asked == 1


def test_a_new_budget_counts_earlier_costs(app: Flask, run_json: Any, run: Run) -> None:
    service = app.extensions["llm_service"]
    service.reconciler = reconciler = FakeReconciler()
    key = run_json("keys", "create", "--name", "ci", "--org", "acme")["id"]
    run_json("budgets", "set", "--org", "acme", "--amount", "1")
    assert reconciler.rebuilt == 0  # nothing was spent
    log(app, row(key_id=key, org="acme", cost_nanousd=5))
    run_json("budgets", "set", "--org", "acme", "--amount", "2")
    assert reconciler.rebuilt == 0  # this budget is counted already
    run_json("budgets", "set", "--key", "ci", "--amount", "1", "--per", "day")
    run_json("keys", "update", "ci", "--budget", "1", "--per", "week")
    assert reconciler.rebuilt == 2
    reconciler.unavailable = True
    warned = run("budgets", "set", "--service", "--amount", "1")
    assert "not counted yet" in warned.stderr and "budgets rebuild" in warned.stderr


def test_limits_are_set_field_by_field_listed_and_removed(run_json: Any, run: Run) -> None:
    assert run_json("limits", "set", "--user", "Zoë", "--rpm", "7")["rpm"] == 7
    assert run_json("limits", "set", "--user", "Zoë", "--tpm", "9", "--rpm", "none") == {
        "kind": "user", "name": "Zoë", "rpm": None, "tpm": 9, "parallel": None,
    }  # fmt: skip
    run_json("limits", "set", "--service", "--parallel", "100")
    assert [(item["kind"], item["name"]) for item in run_json("limits", "list")] == [("user", "Zoë"), ("service", None)]
    assert "Zoë" in run("limits", "list").stdout
    assert run_json("limits", "remove", "--user", "Zoë")["removed"] is True
    assert "limits list" in run("limits", "remove", "--user", "Zoë", code=1).stderr
    assert "at least one limit" in run("limits", "set", "--org", "acme", code=2).stderr
    assert "exactly one" in run("limits", "set", "--rpm", "1", code=2).stderr


def test_networks_and_models_can_be_limited_for_all_callers(run_json: Any, run: Run) -> None:
    assert run_json("limits", "set", "--network", "192.0.2.1", "--rpm", "7")["name"] == "192.0.2.1/32"
    run_json("limits", "set", "--network", "2001:db8::/32", "--parallel", "7")
    assert run_json("limits", "set", "--model", "openai/gpt-5*", "--tpm", "9")["kind"] == "model"
    assert [item["kind"] for item in run_json("limits", "list")] == ["network", "network", "model"]
    assert "write 10.0.0.0/8" in run("limits", "set", "--network", "10.0.0.1/8", "--rpm", "1", code=2).stderr
    assert run_json("limits", "remove", "--network", "192.0.2.1/32")["removed"] is True
    assert run_json("limits", "remove", "--model", "openai/gpt-5*")["removed"] is True
    assert len(run_json("limits", "list")) == 1


def test_old_rows_are_deleted_and_usage_stays(app: Flask, run_json: Any, run: Run) -> None:
    now = datetime.now(UTC)
    log(app, *(row(created_at=now - timedelta(days=days), cost_nanousd=5) for days in range(10)))
    before = run_json("usage", "--by", "day")
    assert "LLM_SERVICE_LOG_RETENTION_DAYS" in run("requests", "prune", code=2).stderr
    pruned = run_json("requests", "prune", "--days", "3")
    assert pruned["deleted"] == 6
    assert pruned["before"].endswith("T00:00:00.000Z")
    assert "Deleted 0 rows" in run("requests", "prune", "--days", "3").stdout
    with app.app_context():
        assert len(requests.recent()) == 4
    assert run_json("usage", "--by", "day") == before
    assert len(before) == 10
