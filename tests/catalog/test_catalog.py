"""What a model's name resolves to, what a row of a provider means, and the errors about a wrong catalogue."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot

from llm_service.catalog.catalog import PACKAGED, Catalog
from llm_service.core.call import Call, Caller
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import Forbidden, ModelNotFound
from llm_service.core.events import Finished
from llm_service.core.target import Provider
from llm_service.core.usage import Usage
from llm_service.providers import openai
from llm_service.settings import Settings, SettingsError
from tests.upstream import OPENAI_KEY, Upstream

BOTH = {"OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a"}


def make_catalog(environ: dict[str, str] = BOTH, **document: Any) -> Catalog:
    settings = Settings.load(environ)
    return Catalog(document, settings) if document else Catalog.load(settings)


def names(targets: Any) -> list[str]:
    return [target.name for target in targets]


def test_an_alias_resolves_to_its_configured_targets_in_order() -> None:
    assert names(make_catalog().resolve("fast")) == ["anthropic/claude-haiku-4-5", "openai/gpt-6.1-terra"]
    assert names(make_catalog({"OPENAI_API_KEY": "o"}).resolve("fast")) == ["openai/gpt-6.1-terra"]


def test_an_alias_without_a_configured_provider_is_not_found_and_is_not_served_by_echo() -> None:
    with pytest.raises(ModelNotFound):
        make_catalog({}).resolve("fast")


def test_provider_slash_model_works_whether_the_model_is_listed_or_not() -> None:
    assert names(make_catalog().resolve("openai/brand-new")) == ["openai/brand-new"]


def test_a_name_without_a_provider_works_if_one_configured_provider_serves_it() -> None:
    assert names(make_catalog().resolve("gpt-4o-mini")) == ["openai/gpt-4o-mini"]
    with pytest.raises(ModelNotFound):
        make_catalog({"ANTHROPIC_API_KEY": "a"}).resolve("gpt-4o-mini")


def test_a_name_that_two_providers_serve_needs_the_provider_s_name() -> None:
    providers = {
        name: {"kind": "openai", "keyless": True, "base_url": "http://x/v1", "serves": ["llama*"]}
        for name in ("a", "b")
    }
    with pytest.raises(ModelNotFound, match="provider/model"):
        make_catalog(providers=providers).resolve("llama3")


def test_a_key_with_a_list_of_models_may_use_only_these() -> None:
    caller = Caller("k", models=("fast", "openai/gpt-4o*"))
    catalog = make_catalog()
    assert catalog.resolve("fast", caller)
    assert catalog.resolve("gpt-4o-mini", caller)
    with pytest.raises(Forbidden):
        catalog.resolve("smart", caller)
    with pytest.raises(Forbidden):
        catalog.resolve("anthropic/claude-haiku-4-5", caller)


def test_the_list_of_models_has_only_those_that_the_key_may_use() -> None:
    listed = [name for name, _ in make_catalog().names(Caller("k", models=("fast",)))]
    assert listed == ["fast"]


def test_each_field_comes_from_the_first_matching_row_that_has_it() -> None:
    catalog = make_catalog(
        providers={"p": {"kind": "openai", "keyless": True}},
        models={"p/m-1": {"max_output": 7}, "p/*": {"max_output": 9, "sampling": False}},
    )
    target = catalog.resolve("p/m-1")[0]
    assert (target.max_output, target.sampling) == (7, False)


def test_a_price_in_the_catalogue_replaces_the_library_s_and_names_its_file(tmp_path: Path) -> None:
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
    catalog = Catalog.load(Settings.load({"LLM_SERVICE_MODELS": str(path)}))
    mine, library = catalog.resolve("openai/gpt-5")[0].price, catalog.resolve("openai/gpt-5-mini")[0].price
    assert mine is not None
    assert library is not None
    assert (mine.source, library.source.split()[0]) == ("mine.toml", "genai-prices")
    assert mine.cost(Usage(1000), at=1_700_000_000) == 1_000_000
    assert mine.cost(Usage(1000), at=1_800_000_000) == 2_500_000
    assert mine.cost(Usage(1000, tier="flex"), at=1_800_000_000) == 1_000_000


def test_a_model_may_have_its_own_time_outs() -> None:
    catalog = make_catalog(
        defaults={"timeouts": {"idle": 9}},
        providers={"p": {"kind": "openai", "keyless": True}},
        models={"p/slow": {"timeouts": {"first_byte": 300}}},
    )
    timeouts = catalog.resolve("p/slow")[0].timeouts
    assert (timeouts.first_byte, timeouts.idle, timeouts.connect) == (300, 9, 5)


def test_an_openai_compatible_server_is_one_row_with_its_own_key() -> None:
    catalog = make_catalog(
        {"VLLM_KEY": "v"},
        providers={"vllm": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "key_env": "VLLM_KEY"}},
    )
    provider = catalog.resolve("vllm/mistral")[0].provider
    assert (provider.base_url, provider.key) == ("http://127.0.0.1:1/v1", "v")
    assert "'v'" not in repr(provider)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"provider": {}}, "provider"),
        ({"providers": {"x": {"kind": "grpc"}}}, "kind"),
        ({"providers": {"x": {"kind": "openaii"}}}, "[providers.x]: kind must be one of anthropic, openai, echo"),
        ({"providers": {"x": {"keyless": True}}}, "[providers.x]: kind must be"),
        ({"providers": {"x": {"kind": "mine."}}}, "[providers.x]: kind must be"),
        ({"providers": {"x": {"kind": "openai", "formats": ["chat", "chats"]}}}, "[providers.x]: unknown format chats"),
        ({"providers": {"x": {"kind": "anthropic", "formats": ["chat"]}}}, "formats may be messages, count_tokens"),
        ({"providers": {"x": {"kind": "echo", "formats": ["chat"]}}}, "formats must be left out for this kind"),
        ({"providers": {"x": {"kind": "openai", "formats": "chat"}}}, "formats must be a list of names"),
        ({"providers": {"x": {"kind": "openai", "formats": ["chat"], "responses": True}}}, "responses contradicts"),
        ({"providers": {"x": {"kind": "openai", "store": "no"}}}, "[providers.x]: store must be true or false"),
        ({"providers": {"x": {"kind": "openai", "own_address": True}}}, "unknown field own_address"),
        ({"providers": {"x": {"kind": "openai", "key": "sk-in-the-file"}}}, "key"),
        ({"providers": {"x": {"kind": "openai", "colour": 1}}}, "colour"),
        ({"providers": {}, "aliases": {"fast": {"targets": ["gone/model"]}}}, "gone/model"),
        ({"providers": {}, "aliases": {"fast": {}}}, "[aliases.fast]: targets must be a list"),
        ({"models": {"a/b": {"price": {"input": 1}}}}, '[models."a/b"] price.output: missing'),
        ({"models": {"a/b": {"price": {"input": -1, "output": 1}}}}, '[models."a/b"] price.input'),
        ({"models": {"a/b": {"price": {"input": "1", "output": 1}}}}, '[models."a/b"] price.input'),
        ({"models": {"a/b": {"price": {"input": 1, "output": float("nan")}}}}, '[models."a/b"] price.output'),
        ({"models": {"a/b": {"price": [{"input": 1, "output": 1}, {"input": 2}]}}}, '[models."a/b"] price[1].output'),
        ({"models": {"a/b": {"timeouts": {"idle": 0}}}}, "idle"),
        ({"models": {"a/b": {"timeouts": {"lunch": 1}}}}, "lunch"),
        ({"models": {"a/b": 1}}, '[models."a/b"]: must be a table'),
        (
            {"models": {"a/b": {"max_outptu": 1}}},
            '[models."a/b"]: unknown field max_outptu; did you mean max_output? There',
        ),
        ({"models": {"a/b": {"max_output": 0}}}, '[models."a/b"]: max_output must be a whole number of tokens'),
        ({"models": {"a/b": {"context": "128k"}}}, '[models."a/b"]: context must be a whole number of tokens'),
        ({"models": {"a/b": {"sampling": "no"}}}, '[models."a/b"]: sampling must be true or false'),
        ({"models": {"a/b": {"efforts": "low"}}}, '[models."a/b"]: efforts must be a list of words'),
        ({"models": {"a/b": {"default_effort": 1}}}, '[models."a/b"]: default_effort must be a word'),
        (
            {"models": {"a/b": {"chat_tools": "sometimes"}}},
            "chat_tools must be one of always, without_re",
        ),
        ({"models": {"a/b": {"forced_tools": "no"}}}, "forced_tools must be one of always, without_thinking, never"),
        ({"models": {"a/b": {"tool_ids": "["}}}, '[models."a/b"]: tool_ids must be a regular expression'),
        ({"models": {"a/b": {"tool_names": "[a-z]{3}"}}}, '[models."a/b"]: tool_names must be a regular expression'),
        ({"models": {"a/b": {"tool_names": 64}}}, '[models."a/b"]: tool_names must be a regular expression'),
    ],
)
def test_a_wrong_catalogue_stops_the_start_and_names_the_wrong_part(document: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError, match=r"models\.toml") as caught:
        Catalog(document, Settings.load({}))
    assert expected in str(caught.value)
    assert "sk-in-the-file" not in str(caught.value)


def test_a_catalogue_that_is_not_toml_is_rejected_with_its_file_s_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[aliases\n")
    with pytest.raises(SettingsError, match=r"mine\.toml"):
        Catalog.load(Settings.load({"LLM_SERVICE_MODELS": str(path)}))


def test_the_number_of_remembered_names_is_limited() -> None:
    catalog = make_catalog()
    for number in range(10_500):
        catalog.resolve(f"openai/x-{number}")
    assert len(catalog._targets) <= 10_001


def test_the_packaged_models_have_the_right_way_of_thinking() -> None:
    catalog = make_catalog()
    thinking = {
        name: catalog.resolve(name)[0].thinking
        for name in ("claude-haiku-4-5", "claude-opus-4-6", "claude-fable-5", "claude-3-opus", "gpt-5-mini", "gpt-4o")
    }
    assert list(thinking.values()) == ["budget", "adaptive", "always", "none", "effort", "none"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4o", (True, True, True)),
        ("gpt-5-mini", (True, True, True)),
        ("gpt-5.2", (True, True, True)),
        ("gpt-5.4-2026-03-05", (True, True, False)),
        ("gpt-5.5", (True, True, False)),
        ("gpt-5.6-terra", (False, True, False)),
        ("gpt-6-luna", (False, True, False)),
        ("gpt-6-astra", (False, False, False)),
        ("gpt-6.1-sol", (False, False, False)),
        ("gpt-6.1-terra", (False, False, False)),
        ("gpt-5.4-pro", (False, False, False)),
        ("gpt-5.3-codex", (False, False, False)),
        ("o3-pro", (False, False, False)),
    ],
)
def test_the_packaged_models_say_with_which_effort_they_take_tools_in_chat(
    model: str, expected: tuple[bool, bool, bool]
) -> None:
    target = make_catalog().resolve(f"openai/{model}")[0]
    assert tuple(target.takes_chat_tools(effort) for effort in (None, "none", "high")) == expected


# Models that genai-prices knows and that the packaged catalogue has no sizes for: they are not asked for text, OpenAI
# does not serve them, or they were retired years ago.
WITHOUT_SIZES = ("codex-mini", "computer-use", "gpt-4-32k", "gpt-4-vision", "gpt-oss", "gpt-realtime", "text-embedding")


def test_the_packaged_models_have_sizes_that_are_not_smaller_than_those_of_genai_prices() -> None:
    """A context that is too small would be a money fault: no call is held to cost more than a full context."""
    catalog, wrong = make_catalog(), []
    for vendor in get_snapshot().providers:
        if vendor.id not in ("openai", "anthropic"):
            continue
        for model in vendor.models:
            target = catalog.target(catalog.providers[vendor.id], model.id)
            if model.context_window is None or model.id.startswith(WITHOUT_SIZES):
                continue
            if target.max_output is None or target.context is None or target.context < model.context_window:
                wrong.append((target.name, model.context_window, target.context, target.max_output))
    assert wrong == []


@pytest.mark.parametrize(
    ("model", "retires", "replacement"),
    [
        ("gpt-5", "2026-12-11", "openai/gpt-6.1-sol"),
        ("gpt-5-2025-08-07", "2026-12-11", "openai/gpt-6.1-sol"),
        ("gpt-5-mini", "2026-12-11", "openai/gpt-6.1-terra"),
        ("gpt-4o", "2027-01-14", "openai/gpt-6-luna"),
        ("gpt-4o-mini-2024-07-18", "2027-01-14", "openai/gpt-6-luna"),
        ("ft:gpt-4o-mini-2024-07-18:acme::1", "2027-01-14", "openai/gpt-6-luna"),
        ("gpt-5.5", "None", None),
        ("gpt-6.1-sol", "None", None),
    ],
)
def test_the_packaged_models_know_when_they_retire(model: str, retires: str, replacement: str | None) -> None:
    target = make_catalog().resolve(f"openai/{model}")[0]
    assert (str(target.retires), target.replacement) == (retires, replacement)


def test_the_packaged_aliases_and_replacements_are_models_without_a_known_end() -> None:
    catalog = make_catalog()
    for targets in catalog.aliases.values():
        assert [name for name in targets if catalog.resolve(name)[0].retires is not None] == []
    for row in tomllib.loads(PACKAGED.read_text())["models"].values():
        assert "replacement" not in row or catalog.resolve(row["replacement"])[0].retires is None


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-sonnet-4-6", "without_thinking"),
        ("claude-opus-4-7", "without_thinking"),
        ("claude-opus-4-8", "always"),
        ("claude-sonnet-5", "always"),
        ("claude-opus-5-5", "never"),
        ("claude-sonnet-5-5", "never"),
        ("claude-fable-5", "always"),
        ("claude-fable-5-1", "never"),
        ("claude-haiku-5-5", "always"),
    ],
)
def test_the_packaged_models_say_when_a_tool_may_be_forced(model: str, expected: str) -> None:
    assert make_catalog().resolve(f"anthropic/{model}")[0].forced_tools == expected


def test_an_unknown_way_of_thinking_is_rejected() -> None:
    with pytest.raises(SettingsError, match="thinking must be one of"):
        make_catalog(models={"p/*": {"thinking": "hard"}})


def openai_row(**fields: Any) -> Provider:
    row = {"kind": "openai", "keyless": True, "base_url": "http://x/v1", **fields}
    return make_catalog(providers={"p": row}).resolve("p/m")[0].provider


def test_a_row_without_formats_has_those_of_its_kind() -> None:
    catalog = make_catalog()
    assert catalog.providers["openai"].formats == ("chat", "responses", "input_tokens", "completions", "embeddings")
    assert catalog.providers["anthropic"].formats == ("messages", "count_tokens")
    assert openai_row().formats == ("chat", "completions", "embeddings")
    assert openai_row(responses=True).formats == catalog.providers["openai"].formats


def test_formats_say_whether_a_server_has_the_responses_api_and_counts_tokens() -> None:
    chat, responses = openai_row(formats=["chat"]), openai_row(formats=["chat", "responses"])
    both = openai_row(formats=["chat", "responses", "input_tokens"])
    assert [row.responses for row in (chat, responses, both)] == [False, True, True]
    assert [row.counts_tokens for row in (chat, responses, both)] == [False, False, True]


@pytest.mark.parametrize("responses", [True, False])
def test_whether_requests_carry_store_does_not_depend_on_responses(responses: bool) -> None:
    own = make_catalog(providers={"p": {"kind": "openai", "keyless": True, "responses": responses}}).providers["p"]
    assert (own.store, own.own_address) == (None, False)
    for said in (None, True, False):
        row = openai_row(responses=responses, **({} if said is None else {"store": said}))
        assert (row.store, row.own_address, row.responses) == (said, True, responses)


@pytest.mark.parametrize(
    ("formats", "path"),
    [(["chat", "embeddings"], "/v1/chat/completions"), (["chat", "responses"], "/v1/responses")],
)
def test_a_server_without_the_format_responses_gets_such_requests_as_chat(
    upstream: Upstream, own_connections: None, formats: list[str], path: str
) -> None:
    row = {"kind": "openai", "key_env": "KEY", "base_url": upstream.openai_url, "formats": formats}
    catalog = make_catalog({"KEY": OPENAI_KEY}, providers={"p": row})
    body = {"model": "p/gpt-4o", "input": "hello"}
    call = Call("id", "r", "/v1/responses", "responses", "p/gpt-4o", False, body, Caller("key"))
    provider = openai.connect(catalog.providers["p"], tick=15, echo_delay=0)
    *_, finished = provider.events(call, catalog.resolve("p/gpt-4o")[0], Cancel())
    assert isinstance(finished, Finished)
    assert upstream.last.path == path


def test_a_kind_may_be_the_dotted_name_of_a_module() -> None:
    row = {"kind": "tests.providers.third_vendor", "keyless": True, "formats": ["of_its_own"]}
    provider = make_catalog(providers={"third": row}).providers["third"]
    assert (provider.kind, provider.formats) == ("tests.providers.third_vendor", ("of_its_own",))
