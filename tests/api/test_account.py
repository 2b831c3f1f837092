"""What a caller is told of its own account: limits, budgets, spend."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llm_service.api import schemas
from llm_service.store import budgets, limits
from tests.api.books import database
from tests.api.shapes import sound
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
def priced(upstream_server: Upstream, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service whose default tier has every limit; its echo model has a price."""
    folder = tmp_path_factory.mktemp("priced")
    (folder / "models.toml").write_text(CATALOGUE, encoding="utf-8")
    models = str(folder / "models.toml")
    with Server(folder, settings_for(upstream_server, valkey, LLM_SERVICE_MODELS=models)) as server:
        client = server.http(server.create_key().text)
        wait_until(
            lambda: client.post("/v1/complete", json=sound()).status_code == 200, 15, "the counters are built", 0.1
        )
        yield server


def account(service: Server, key: str) -> dict[str, Any]:
    told: dict[str, Any] = service.http(key).get("/v1/key").json()
    schemas.Key().load(told)
    return told


def usage(service: Server, key: str) -> dict[str, Any]:
    told: dict[str, Any] = service.http(key).get("/v1/usage").json()
    schemas.Usage().load(told)
    return told


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
    assert service.http(issued.text).post("/v1/complete", json=sound()).status_code == 200
    service.wait_rows(1, key_id=issued.stored.id)
    told = usage(service, issued.text)
    assert told["key_id"] == issued.stored.id
    assert told["today"] == told["7d"] == told["30d"]
    assert (told["today"]["calls"], told["today"]["input_tokens"], told["today"]["cost_usd"]) == (1, 1, 0)
    assert told["budgets"] == []


def test_a_key_sees_its_tier_s_limits_and_what_is_left_of_its_budget(priced: Server) -> None:
    issued = priced.create_key()
    told = account(priced, issued.text)
    assert (told["requests_per_minute"]["limit"], told["tokens_per_minute"], told["parallel"]) == (1000, 5000, 8)
    (tiers,) = told["budgets"]
    assert (tiers["scope"], tiers["model"], tiers["per"]) == ("key", None, "week")
    assert (tiers["amount_usd"], tiers["spent_usd"], tiers["left_usd"]) == (2, 0, 2)
    assert timedelta(0) < datetime.fromisoformat(tiers["resets_at"]) - datetime.now(UTC) <= timedelta(days=7)
    reply = priced.http(issued.text).post("/v1/complete", json=sound())
    assert reply.status_code == 200
    cost = reply.json()["usage"]["cost_usd"]
    assert cost > 0
    priced.wait_rows(1, key_id=issued.stored.id)
    (tiers,) = usage(priced, issued.text)["budgets"]
    assert (tiers["spent_usd"], tiers["left_usd"]) == (cost, 2 - cost)
    assert account(priced, issued.text)["budgets"] == [tiers]


def test_its_own_budget_stands_instead_of_the_tier_s_and_others_beside_it(priced: Server) -> None:
    issued = priced.create_key(org="acme", user="zoe")
    with database(priced):
        budgets.put("key", issued.stored.id, 10**9, "total")
        budgets.put("key", issued.stored.id, 10**9, "day", "openai/*")
        budgets.put("org", "acme", 0, "month")
        budgets.put("user", "somebody", 1, "month")
    told = account(priced, issued.text)["budgets"]
    assert [(item["scope"], item["model"], item["per"]) for item in told] == [
        ("key", None, "total"),
        ("key", "openai/*", "day"),
        ("org", None, "month"),
    ]
    assert told[0]["resets_at"] is None
    assert (told[2]["amount_usd"], told[2]["left_usd"]) == (0, 0)


def test_what_is_overspent_is_not_a_debt(priced: Server) -> None:
    issued = priced.create_key()
    assert priced.http(issued.text).post("/v1/complete", json=sound()).status_code == 200
    priced.wait_rows(1, key_id=issued.stored.id)
    with database(priced):
        budgets.put("key", issued.stored.id, 1, "week")

    def lowered() -> dict[str, Any]:
        (own,) = account(priced, issued.text)["budgets"]
        return own if own["amount_usd"] < 2 else {}

    own = wait_until(lowered, 3, "the new amount is seen")
    assert own["spent_usd"] > own["amount_usd"]
    assert own["left_usd"] == 0
    (others,) = account(priced, priced.create_key().text)["budgets"]
    assert others["left_usd"] == 2  # the tier's is each key's own


def test_limits_that_are_shared_are_told_and_other_networks_are_not(priced: Server) -> None:
    issued = priced.create_key(org="shared", user="zoe")
    with database(priced):
        limits.put("org", "shared", {"rpm": 100, "tpm": 100_000})
        limits.put("user", "somebody", {"rpm": 1})
        limits.put("network", "127.0.0.0/8", {"parallel": 50})
        limits.put("network", "192.0.2.0/24", {"rpm": 1})
        limits.put("model", "openai/*", {"tpm": 7})
    try:
        told = account(priced, issued.text)["shared_limits"]
    finally:
        with database(priced):
            for kind, name in (("network", "127.0.0.0/8"), ("network", "192.0.2.0/24"), ("model", "openai/*")):
                limits.remove(kind, name)  # type: ignore[arg-type]
    assert {(item["scope"], item["name"]) for item in told} == {
        ("org", "shared"),
        ("network", "127.0.0.0/8"),
        ("model", "openai/*"),
    }
    assert told[0] == {
        "scope": "org",
        "name": "shared",
        "requests_per_minute": 100,
        "tokens_per_minute": 100_000,
        "parallel": None,
    }


def test_a_cost_that_is_not_known_is_null_and_not_nothing(priced: Server) -> None:
    issued = priced.create_key(tier="free")
    assert usage(priced, issued.text)["today"]["cost_usd"] == 0
    client = priced.http(issued.text)
    reply = client.post("/v1/complete", json=sound(model="echo/unpriced"))
    assert (reply.status_code, reply.json()["usage"]["cost_usd"]) == (200, None)
    priced.wait_rows(1, key_id=issued.stored.id)
    today = usage(priced, issued.text)["today"]
    assert (today["calls"], today["unpriced_calls"], today["cost_usd"]) == (1, 1, None)
    known = client.post("/v1/complete", json=sound())
    priced.wait_rows(2, key_id=issued.stored.id)
    today = usage(priced, issued.text)["today"]
    assert (today["unpriced_calls"], today["cost_usd"]) == (1, known.json()["usage"]["cost_usd"])


def test_no_limit_is_null(priced: Server) -> None:
    told = account(priced, priced.create_key(tier="free").text)
    assert [told[name] for name in ("requests_per_minute", "tokens_per_minute", "parallel")] == [None, None, None]
    assert told["budgets"] == [] and told["networks"] is None
