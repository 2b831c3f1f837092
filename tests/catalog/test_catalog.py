"""What a name resolves to, and what a wrong catalogue says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_service.catalog.catalog import Catalog
from llm_service.core.call import Caller
from llm_service.core.errors import Forbidden, ModelNotFound
from llm_service.core.usage import Usage
from llm_service.settings import Settings, SettingsError

BOTH = {"OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a"}


def catalog(environ: dict[str, str] = BOTH, **document: Any) -> Catalog:
    settings = Settings.load(environ)
    return Catalog(document, settings) if document else Catalog.load(settings)


def names(found: Any) -> list[str]:
    return [target.name for target in found]


def test_an_alias_resolves_to_its_configured_targets_in_order() -> None:
    assert names(catalog().resolve("fast")) == ["anthropic/claude-haiku-4-5", "openai/gpt-5-mini"]
    assert names(catalog({"OPENAI_API_KEY": "o"}).resolve("fast")) == ["openai/gpt-5-mini"]


def test_an_alias_without_a_configured_provider_is_not_found_and_never_echo() -> None:
    with pytest.raises(ModelNotFound):
        catalog({}).resolve("fast")


def test_provider_slash_model_works_listed_or_not() -> None:
    assert names(catalog().resolve("openai/brand-new")) == ["openai/brand-new"]


def test_a_bare_vendor_name_works_when_one_configured_provider_serves_it() -> None:
    assert names(catalog().resolve("gpt-4o-mini")) == ["openai/gpt-4o-mini"]
    with pytest.raises(ModelNotFound):
        catalog({"ANTHROPIC_API_KEY": "a"}).resolve("gpt-4o-mini")


def test_a_bare_name_that_two_providers_serve_asks_for_the_provider() -> None:
    providers = {
        name: {"kind": "openai", "keyless": True, "base_url": "http://x/v1", "serves": ["llama*"]}
        for name in ("a", "b")
    }
    with pytest.raises(ModelNotFound, match="provider/model"):
        catalog(providers=providers).resolve("llama3")


def test_a_key_with_an_allow_list_may_use_only_what_it_names() -> None:
    caller = Caller("k", models=("fast", "openai/gpt-4o*"))
    book = catalog()
    assert book.resolve("fast", caller)
    assert book.resolve("gpt-4o-mini", caller)
    with pytest.raises(Forbidden):
        book.resolve("smart", caller)
    with pytest.raises(Forbidden):
        book.resolve("anthropic/claude-haiku-4-5", caller)


def test_the_models_list_shows_what_the_key_may_use() -> None:
    listed = [name for name, _ in catalog().names(Caller("k", models=("fast",)))]
    assert listed == ["fast"]


def test_the_first_matching_model_row_wins_field_by_field() -> None:
    book = catalog(
        providers={"p": {"kind": "openai", "keyless": True}},
        models={"p/m-1": {"max_output": 7}, "p/*": {"max_output": 9, "sampling": False}},
    )
    target = book.resolve("p/m-1")[0]
    assert (target.max_output, target.sampling) == (7, False)


def test_a_price_of_the_catalogue_wins_over_the_library_s_and_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        """
        [providers.openai]
        kind = "openai"
        keyless = true
        prices = "openai"
        [models."openai/gpt-5"]
        price = [
            { input = 1, output = 2 },
            { from = 2026-01-01, input = 2.5, output = 4, tiers = { flex = { input = 1, output = 2 } } },
        ]
        """
    )
    book = Catalog.load(Settings.load({"LLM_SERVICE_MODELS": str(path)}))
    mine, library = book.resolve("openai/gpt-5")[0].price, book.resolve("openai/gpt-5-mini")[0].price
    assert mine is not None
    assert library is not None
    assert (mine.source, library.source.split()[0]) == ("mine.toml", "genai-prices")
    assert mine.cost(Usage(1000), at=1_700_000_000) == 1_000_000
    assert mine.cost(Usage(1000), at=1_800_000_000) == 2_500_000
    assert mine.cost(Usage(1000, tier="flex"), at=1_800_000_000) == 1_000_000


def test_time_outs_are_settable_per_model() -> None:
    book = catalog(
        defaults={"timeouts": {"idle": 9}},
        providers={"p": {"kind": "openai", "keyless": True}},
        models={"p/slow": {"timeouts": {"first_byte": 300}}},
    )
    timeouts = book.resolve("p/slow")[0].timeouts
    assert (timeouts.first_byte, timeouts.idle, timeouts.connect) == (300, 9, 5)


def test_any_openai_compatible_server_is_one_row_with_its_own_key() -> None:
    book = catalog(
        {"VLLM_KEY": "v"},
        providers={"vllm": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "key_env": "VLLM_KEY"}},
    )
    provider = book.resolve("vllm/mistral")[0].provider
    assert (provider.base_url, provider.key) == ("http://127.0.0.1:1/v1", "v")
    assert "'v'" not in repr(provider)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"provider": {}}, "provider"),
        ({"providers": {"x": {"kind": "grpc"}}}, "kind"),
        ({"providers": {"x": {"kind": "openai", "key": "sk-in-the-file"}}}, "key"),
        ({"providers": {"x": {"kind": "openai", "colour": 1}}}, "colour"),
        ({"providers": {}, "aliases": {"fast": {"targets": ["gone/model"]}}}, "gone/model"),
        ({"models": {"a/b": {"price": {"input": 1}}}}, '[models."a/b"] price.output: missing'),
        ({"models": {"a/b": {"price": {"input": -1, "output": 1}}}}, '[models."a/b"] price.input'),
        ({"models": {"a/b": {"price": {"input": "1", "output": 1}}}}, '[models."a/b"] price.input'),
        ({"models": {"a/b": {"price": {"input": 1, "output": float("nan")}}}}, '[models."a/b"] price.output'),
        ({"models": {"a/b": {"price": [{"input": 1, "output": 1}, {"input": 2}]}}}, '[models."a/b"] price[1].output'),
        ({"models": {"a/b": {"timeouts": {"idle": 0}}}}, "idle"),
        ({"models": {"a/b": {"timeouts": {"lunch": 1}}}}, "lunch"),
    ],
)
def test_a_wrong_catalogue_stops_the_start_and_says_where(document: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=r"models\.toml") as caught:
        Catalog(document, Settings.load({}))
    assert told in str(caught.value)
    assert "sk-in-the-file" not in str(caught.value)


def test_a_catalogue_that_is_no_toml_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[aliases\n")
    with pytest.raises(SettingsError, match=r"mine\.toml"):
        Catalog.load(Settings.load({"LLM_SERVICE_MODELS": str(path)}))


def test_names_from_callers_do_not_grow_the_memory_without_end() -> None:
    book = catalog()
    for number in range(10_500):
        book.resolve(f"openai/x-{number}")
    assert len(book._targets) <= 10_001


def test_the_packaged_models_are_told_to_think_as_they_understand() -> None:
    book = catalog()
    said = {
        name: book.resolve(name)[0].thinking
        for name in ("claude-haiku-4-5", "claude-opus-4-6", "claude-fable-5", "claude-3-opus", "gpt-5-mini", "gpt-4o")
    }
    assert list(said.values()) == ["budget", "adaptive", "always", "none", "effort", "none"]


def test_a_way_of_thinking_nobody_knows_is_refused() -> None:
    with pytest.raises(SettingsError, match="thinking must be one of"):
        catalog(models={"p/*": {"thinking": "hard"}})
