"""What ``drop`` and ``add`` may not name, because budgets have bounded the cost of the body before."""

from __future__ import annotations

from typing import Any

import pytest

from llm_service.catalog import body_fields
from llm_service.catalog.catalog import Catalog
from llm_service.formats import bounds, registry
from llm_service.settings import Settings, SettingsError
from tests.formats.examples import call

ROW = {"kind": "openai", "base_url": "http://x/v1", "keyless": True}
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
COSTLY: tuple[dict[str, Any], ...] = (
    *({name: 100_000} for name in LIMITS),
    {"n": 8},
    {"best_of": 8},
    {"service_tier": "priority"},
    {"speed": "fast"},
    {"prediction": {"type": "content", "content": "x"}},
    {"web_search_options": {}},
    {"tools": [{"type": "web_search"}]},
    {"functions": []},
    {"models": ["a/b"]},
    {"plugins": [{"id": "web"}]},
    {"messages": []},
    {"system": "x"},
)


def refusal(**words: Any) -> str:
    """What is said of a provider's row with these words, and likewise of a model's."""
    said = []
    for document in (
        {"providers": {"x": {**ROW, **words}}},
        {"providers": {"x": ROW}, "models": {"x/*": words}},
    ):
        with pytest.raises(SettingsError) as caught:
            Catalog(document, Settings.load({}))
        said.append(str(caught.value).partition("]: ")[2])
    assert said[0] == said[1]
    return said[0]


@pytest.mark.parametrize("fields", COSTLY, ids=lambda fields: next(iter(fields)))
def test_a_row_adds_nothing_that_makes_a_call_cost_more(fields: dict[str, Any]) -> None:
    assert f"add must not name {next(iter(fields))}: " in refusal(add={"reasoning_split": True, **fields})


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("behind", ["", "=8192", "[]", ".x"])
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_row_never_drops_the_limit_of_the_output(name: str, behind: str, field: str) -> None:
    words = {"drop": ["user", name + behind], "max_tokens_field": field}
    if (name, field) == ("max_completion_tokens", "max_tokens"):  # the server gets the limit by the other name
        assert Catalog({"providers": {"x": {**ROW, **words}}}, Settings.load({})).providers["x"].drop
    else:
        assert f"drop must not name {name}: " in refusal(**words)
    del words["max_tokens_field"]
    assert f"drop must not name {name}: " in refusal(**words)


@pytest.mark.parametrize("format", ["chat", "completions", "messages", "responses"])
def test_every_field_that_the_bounds_of_a_format_read_is_among_them(format: str) -> None:
    assert set(bounds._LIMITS) | set(registry.format_of(call(format, {})).BOUNDS.LIMITS) <= body_fields.LIMITS
    assert set(bounds._HARMLESS) - {"provider"} <= body_fields.COSTLY  # which server of a router: the operator's choice


def test_other_fields_may_be_added_and_dropped() -> None:
    row = {**ROW, "add": {"reasoning_split": True, "provider": {"order": ["a"]}}, "drop": ["user", "min_tokens", "n=1"]}
    provider = Catalog({"providers": {"x": row}}, Settings.load({})).providers["x"]
    assert (provider.add, provider.drop) == (row["add"], ("user", "min_tokens", "n=1"))
