"""``flask models``: what a catalogue means, with prices, where they are from and since when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_service.prices.library import source
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


def test_the_list_tells_prices_per_tier_with_their_source_and_date(flask: Commands) -> None:
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
        "context": None,
        "max_output": 4096,
    }
    library = rows["openai/o3"]
    assert (library["price_source"], library["price_since"]) == (source(), "2025-06-10")
    assert library["price"]["tiers"]["flex"]["input"] < library["price"]["input"]
    unpriced = rows["free"]
    assert (unpriced["price"], unpriced["price_source"], unpriced["price_since"]) == (None, None, None)


def test_the_list_for_people_has_a_line_per_tier_and_marks_what_has_no_price(flask: Commands) -> None:
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
    told = flask.run("models", "check")
    assert f"Warning: {warning}" in told.stderr


def test_the_check_names_the_model_and_the_field_of_a_hole_in_a_price(flask: Commands, tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text('[models."a/b"]\nprice = { input = 1, outptu = 2 }\n')
    told = flask.run("models", "check", str(broken), fails=1)
    assert 'broken.toml: [models."a/b"] price.outptu: unknown field' in told.stderr
    broken.write_text('[models."a/b"]\nprice = { input = 1, output = nan }\n')
    told = flask.run("models", "check", str(broken), fails=1)
    assert 'broken.toml: [models."a/b"] price.output: must be a number' in told.stderr
