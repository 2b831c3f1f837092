"""What a caller can read about its own account: limits, budgets and spend."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llm_service.api import schemas
from llm_service.store import budgets, limits
from tests.api.budget_helpers import store_context
from tests.api.error_shapes import valid_body
from tests.conftest import settings_for
from tests.support.server import Server
from tests.support.valkey import Valkey
from tests.support.wait import wait_until
from tests.upstream import Upstream

CATALOGUE = """
[tiers.default]
rpm = 1000
tpm = 5000
parallel = 8
budget = { amount_usd = 2, per = "week" }

[tiers.free]

[providers.echo]
kind = "echo"
keyless = true
serves = ["echo"]

[models."echo/echo"]
max_output = 100
price = { input = 1000, output = 2000 }
"""


@pytest.fixture(scope="module")
def tiered(upstream_server: Upstream, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service whose default tier has every limit; its echo model has a price."""
    folder = tmp_path_factory.mktemp("tiered")
    (folder / "models.toml").write_text(CATALOGUE, encoding="utf-8")
    models = str(folder / "models.toml")
    with Server(folder, settings_for(upstream_server, valkey, LLM_SERVICE_MODELS=models)) as server:
        client = server.http(server.create_key().text)
        wait_until(
            lambda: client.post("/v1/complete", json=valid_body()).status_code == 200, 15, "the counters are built", 0.1
        )
        yield server


def account(service: Server, key: str) -> dict[str, Any]:
    reply: dict[str, Any] = service.http(key).get("/v1/key").json()
    schemas.Key().load(reply)
    return reply


def usage(service: Server, key: str) -> dict[str, Any]:
    reply: dict[str, Any] = service.http(key).get("/v1/usage").json()
    schemas.Usage().load(reply)
    return reply


def test_a_key_sees_its_labels_and_limits(service: Server) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    issued = service.create_key(
        name="mine", org="o", user="u", tier="high", models=["echo/*"], networks=["127.0.0.0/8"],
        tpm=9000, parallel=3, expires_at=until,
    )  # fmt: skip
    assert account(service, issued.text) == {
        "id": issued.stored.id,
        "name": "mine",
        "org": "o",
        "user": "u",
        "tier": "high",
        "models": ["echo/*"],
        "networks": ["127.0.0.0/8"],
        "expires_at": until.isoformat(),
        "requests_per_minute": {"limit": 1000, "window_seconds": 60, "remaining": 1000, "reset_seconds": 0},
        "tokens_per_minute": 9000,
        "parallel": 3,
        "shared_limits": [],
        "budgets": [],
    }


def test_a_key_sees_its_own_spend(service: Server) -> None:
    issued = service.create_key()
    assert service.http(issued.text).post("/v1/complete", json=valid_body()).status_code == 200
    service.wait_rows(1, key_id=issued.stored.id)
    reply = usage(service, issued.text)
    assert reply["key_id"] == issued.stored.id
    assert reply["today"] == reply["7d"] == reply["30d"]
    assert (reply["today"]["calls"], reply["today"]["input_tokens"], reply["today"]["cost_usd"]) == (1, 1, 0)
    assert reply["budgets"] == []


def test_a_key_sees_its_tier_s_limits_and_what_is_left_of_its_budget(tiered: Server) -> None:
    issued = tiered.create_key()
    own = account(tiered, issued.text)
    assert (own["requests_per_minute"]["limit"], own["tokens_per_minute"], own["parallel"]) == (1000, 5000, 8)
    (budget,) = own["budgets"]
    assert (budget["scope"], budget["model"], budget["per"]) == ("key", None, "week")
    assert (budget["amount_usd"], budget["spent_usd"], budget["left_usd"]) == (2, 0, 2)
    assert timedelta(0) < datetime.fromisoformat(budget["resets_at"]) - datetime.now(UTC) <= timedelta(days=7)
    reply = tiered.http(issued.text).post("/v1/complete", json=valid_body())
    assert reply.status_code == 200
    cost = reply.json()["usage"]["cost_usd"]
    assert cost > 0
    tiered.wait_rows(1, key_id=issued.stored.id)
    (budget,) = usage(tiered, issued.text)["budgets"]
    assert (budget["spent_usd"], budget["left_usd"]) == (cost, 2 - cost)
    assert account(tiered, issued.text)["budgets"] == [budget]


def test_a_key_s_own_budget_replaces_the_tier_s_and_others_are_listed_too(tiered: Server) -> None:
    issued = tiered.create_key(org="acme", user="zoe")
    with store_context(tiered):
        budgets.put("key", issued.stored.id, 10**9, "total")
        budgets.put("key", issued.stored.id, 10**9, "day", "openai/*")
        budgets.put("org", "acme", 0, "month")
        budgets.put("user", "somebody", 1, "month")
    reply = account(tiered, issued.text)["budgets"]
    assert [(item["scope"], item["model"], item["per"]) for item in reply] == [
        ("key", None, "total"),
        ("key", "openai/*", "day"),
        ("org", None, "month"),
    ]
    assert reply[0]["resets_at"] is None
    assert (reply[2]["amount_usd"], reply[2]["left_usd"]) == (0, 0)


def test_an_overspent_budget_shows_zero_left(tiered: Server) -> None:
    issued = tiered.create_key()
    assert tiered.http(issued.text).post("/v1/complete", json=valid_body()).status_code == 200
    tiered.wait_rows(1, key_id=issued.stored.id)
    with store_context(tiered):
        budgets.put("key", issued.stored.id, 1, "week")

    def lowered() -> dict[str, Any]:
        (own,) = account(tiered, issued.text)["budgets"]
        return own if own["amount_usd"] < 2 else {}

    own = wait_until(lowered, 3, "the new amount applies")
    assert own["spent_usd"] > own["amount_usd"]
    assert own["left_usd"] == 0
    (others,) = account(tiered, tiered.create_key().text)["budgets"]
    assert others["left_usd"] == 2  # each key has a budget of its own from the tier


def test_shared_limits_are_listed_and_those_of_other_networks_are_not(tiered: Server) -> None:
    issued = tiered.create_key(org="shared", user="zoe")
    with store_context(tiered):
        limits.put("org", "shared", {"rpm": 100, "tpm": 100_000})
        limits.put("user", "somebody", {"rpm": 1})
        limits.put("network", "127.0.0.0/8", {"parallel": 50})
        limits.put("network", "192.0.2.0/24", {"rpm": 1})
        limits.put("model", "openai/*", {"tpm": 7})
    try:
        reply = account(tiered, issued.text)["shared_limits"]
    finally:
        with store_context(tiered):
            for kind, name in (("network", "127.0.0.0/8"), ("network", "192.0.2.0/24"), ("model", "openai/*")):
                limits.remove(kind, name)  # type: ignore[arg-type]
    assert {(item["scope"], item["name"]) for item in reply} == {
        ("org", "shared"),
        ("network", "127.0.0.0/8"),
        ("model", "openai/*"),
    }
    assert reply[0] == {
        "scope": "org",
        "name": "shared",
        "requests_per_minute": 100,
        "tokens_per_minute": 100_000,
        "parallel": None,
    }


def test_an_unknown_cost_is_null_and_not_zero(tiered: Server) -> None:
    issued = tiered.create_key(tier="free")
    assert usage(tiered, issued.text)["today"]["cost_usd"] == 0
    client = tiered.http(issued.text)
    reply = client.post("/v1/complete", json=valid_body(model="echo/unpriced"))
    assert (reply.status_code, reply.json()["usage"]["cost_usd"]) == (200, None)
    tiered.wait_rows(1, key_id=issued.stored.id)
    today = usage(tiered, issued.text)["today"]
    assert (today["calls"], today["unpriced_calls"], today["cost_usd"]) == (1, 1, None)
    known = client.post("/v1/complete", json=valid_body())
    tiered.wait_rows(2, key_id=issued.stored.id)
    today = usage(tiered, issued.text)["today"]
    assert (today["unpriced_calls"], today["cost_usd"]) == (1, known.json()["usage"]["cost_usd"])


def test_no_limit_is_null(tiered: Server) -> None:
    reply = account(tiered, tiered.create_key(tier="free").text)
    assert [reply[name] for name in ("requests_per_minute", "tokens_per_minute", "parallel")] == [None, None, None]
    assert reply["budgets"] == [] and reply["networks"] is None
