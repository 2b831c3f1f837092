"""``flask models``: the targets of a catalogue with their prices, and the source and date of each price."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_service.catalog.prices.from_genai_prices import source
from llm_service.settings import Settings
from tests.cli.conftest import Commands

CATALOGUE = """
[defaults]
tier = "default"
model = "cheap"

[tiers.default]
rpm = 60

[providers.openai]
kind = "openai"
key_env = "OPENAI_API_KEY"
prices = "openai"

[providers.local]
kind = "openai"
keyless = true
base_url = "http://127.0.0.1:1/v1"

[aliases.cheap]
targets = ["local/small", "openai/o3"]

[aliases.free]
targets = ["local/free"]

[models."local/small"]
max_output = 4096

[[models."local/small".price]]
input = 9
output = 9

[[models."local/small".price]]
from = 2026-01-01
input = 1
output = 2.5
web_searches = 10
above = [{ tokens = 1000, input = 2, output = 5 }]

[models."local/small".price.tiers]
flex = { input = 0.5, output = 1 }
same = { input = 1, output = 2.5, above = [{ tokens = 1000, input = 2, output = 5 }] }
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "models.toml").write_text(CATALOGUE)
    return Settings.load(
        {
            "LLM_SERVICE_INSTANCE": str(tmp_path / "instance"),
            "LLM_SERVICE_SECRET": "a key of sixteen bytes or more",
            "LLM_SERVICE_MODELS": str(tmp_path / "models.toml"),
            "OPENAI_API_KEY": "none",
        }
    )


def by_id(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in rows}


def test_the_list_has_prices_per_service_tier_with_their_source_and_date(flask: Commands) -> None:
    rows = by_id(flask.json("models", "list"))
    assert rows["cheap"] == {
        "id": "cheap",
        "target": "local/small",
        "provider": "local",
        "model": "small",
        "configured": True,
        "price": {
            "input": 1.0,
            "output": 2.5,
            "web_searches": 10.0,
            "above": [{"tokens": 1000, "input": 2.0, "output": 5.0, "web_searches": 10.0}],
            "tiers": {"flex": {"input": 0.5, "output": 1.0, "web_searches": 10.0}},
        },
        "price_source": "models.toml",
        "price_since": "2026-01-01",
        "retires": None,
        "replacement": None,
        "context": None,
        "max_output": 4096,
    }
    library = rows["openai/o3"]
    assert (library["price_source"], library["price_since"]) == (source(), "2025-06-10")
    assert library["price"]["tiers"]["flex"]["input"] < library["price"]["input"]
    unpriced = rows["free"]
    assert (unpriced["price"], unpriced["price_source"], unpriced["price_since"]) == (None, None, None)


def test_the_table_has_a_line_per_service_tier_and_marks_unknown_prices(flask: Commands) -> None:
    lines = flask.run("models", "list").stdout.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("cheap "))
    assert lines[first].split()[-2:] == ["models.toml", "2026-01-01"]
    assert "standard" in lines[first]
    assert "input 1, output 2.5, web_searches 10 per 1,000" in lines[first]
    assert "standard, above 1,000" in lines[first + 1]
    assert "input 2, output 5" in lines[first + 1]
    assert lines[first + 2].split()[0] == "flex"
    (free,) = [line for line in lines if line.startswith("free ")]
    assert "unknown" in free


def test_the_check_warns_of_aliases_without_a_price(flask: Commands) -> None:
    checked = flask.json("models", "check")
    assert checked["ok"]
    (warning,) = checked["warnings"]
    assert warning.startswith("local/free (behind free) has no known price")
    output = flask.run("models", "check")
    assert f"Warning: {warning}" in output.stderr


def test_the_check_names_the_model_and_the_field_of_a_malformed_price(flask: Commands, tmp_path: Path) -> None:
    malformed = tmp_path / "malformed.toml"
    malformed.write_text('[models."a/b"]\nprice = { input = 1, outptu = 2 }\n')
    output = flask.run("models", "check", str(malformed), fails=1)
    assert 'malformed.toml: [models."a/b"] price.outptu: unknown field' in output.stderr
    malformed.write_text('[models."a/b"]\nprice = { input = 1, output = nan }\n')
    output = flask.run("models", "check", str(malformed), fails=1)
    assert 'malformed.toml: [models."a/b"] price.output: must be a number' in output.stderr
