"""The models route: the catalogue's facts in both vendors' shapes, read by both official clients."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.cases import CLAUDE, GPT
from tests.support.server import Server


def openai_model(service: Server, name: str) -> dict[str, Any]:
    return service.openai().models.retrieve(name).model_dump()


def anthropic_model(service: Server, name: str) -> dict[str, Any]:
    return service.anthropic().models.retrieve(name).model_dump()


@pytest.mark.parametrize("name", [CLAUDE, GPT, "gpt-4o", "fast", "openai/some/model:with-slashes"])
def test_both_shapes_have_the_same_facts(service: Server, name: str) -> None:
    openai, claude = openai_model(service, name), anthropic_model(service, name)
    assert openai["id"] == claude["id"] == name
    assert openai["capabilities"] == claude["gateway_capabilities"] and claude["capabilities"] is None
    assert (openai["pricing"], openai["targets"]) == (
        claude["pricing"],
        claude["targets"],
    )
    assert openai["max_output_tokens"] == claude["max_tokens"]
    assert openai["context_window"] == claude["max_input_tokens"]


def test_prices_are_dollars_per_million_tokens(service: Server) -> None:
    price = openai_model(service, "openai/text-embedding-3-small")["pricing"]
    assert price == {"currency": "USD", "input": 0.02, "output": 0.0, "source": "models.toml"}
    price = openai_model(service, CLAUDE)["pricing"]
    assert 0 < price["cache_read"] < price["input"] < price["output"] and price["source"].startswith("genai-prices")


def test_an_unknown_price_is_null_and_not_zero(service: Server) -> None:
    assert openai_model(service, "openai/some-model-of-tomorrow")["pricing"] is None


def test_an_alias_lists_its_targets_and_has_the_price_of_the_first(service: Server) -> None:
    model = openai_model(service, "fast")
    assert model["targets"] == ["anthropic/claude-haiku-4-5", "openai/gpt-6.1-terra"]
    assert model["pricing"] == openai_model(service, CLAUDE)["pricing"]


def test_a_model_with_a_known_end_says_so_in_both_vendors_words(service: Server) -> None:
    openai, claude = openai_model(service, GPT), anthropic_model(service, GPT)
    assert (openai["shutdown_date"], openai["replacement"]) == ("2027-01-14", "openai/gpt-6-luna")
    assert (claude["lifecycle"], str(claude["retires_at"])) == ("deprecated", "2027-01-14 00:00:00+00:00")
    openai, claude = openai_model(service, CLAUDE), anthropic_model(service, CLAUDE)
    assert (openai["shutdown_date"], openai["replacement"]) == (None, None)
    assert (claude["lifecycle"], claude["retires_at"]) == ("active", None)


def test_capabilities_come_from_the_catalogue(service: Server) -> None:
    assert openai_model(service, "gpt-5")["capabilities"]["sampling"] is False
    assert openai_model(service, GPT)["capabilities"]["sampling"] is True
    assert openai_model(service, "gpt-3.5-turbo-instruct")["capabilities"]["completions"] is True
    assert openai_model(service, GPT)["capabilities"]["completions"] is False


def test_anthropic_s_client_pages_through_all_models(service: Server) -> None:
    client = service.anthropic()
    names = [model.id for model in service.openai().models.list()]
    assert len(names) > 5
    assert [model.id for model in client.models.list(limit=2)] == names
    page = client.models.list(limit=3)
    assert (page.first_id, page.last_id, page.has_more) == (names[0], names[2], True)
    before = client.models.list(limit=2, before_id=names[4])
    assert [model.id for model in before.data] == names[2:4]
    assert before.has_more
