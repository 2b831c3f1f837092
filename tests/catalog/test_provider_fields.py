"""Rows of providers: variables, keys, addresses, and the errors about a wrong row, which never quote a value."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llm_service.catalog import key_sources
from llm_service.catalog.catalog import Catalog
from llm_service.core.target import Provider
from llm_service.settings import Settings, SettingsError

ROW = {"kind": "openai", "base_url": "http://x/v1", "key_env": "X_KEY"}


def row(environ: dict[str, str] | None = None, **words: Any) -> Provider:
    catalog = Catalog({"providers": {"x": {**ROW, **words}}}, Settings.load(environ or {"X_KEY": "k"}))
    return catalog.providers["x"]


def test_variables_in_an_address_a_path_and_a_header_have_their_values_or_their_defaults() -> None:
    found = row(
        {"X_KEY": "k", "REGION": "eu", "TOKEN": "t"},
        base_url="https://${REGION}.x.com/${PLACE:-here}/v1",
        headers={"X-Token": "Bearer ${TOKEN}"},
        paths={"chat": "/{model}/chat?version=${REGION}"},
    )
    assert found.base_url == "https://eu.x.com/here/v1"
    assert found.headers == {"X-Token": "Bearer t"}
    assert found.paths == {"chat": "/{model}/chat?version=eu"}
    assert "Bearer t" not in repr(found)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"base_url": "https://${GONE}.x.com"}, "base_url: the environment variable GONE is not set"),
        ({"headers": {"X-Token": "${GONE}"}}, "headers: X-Token: the environment variable GONE is not set"),
        ({"paths": {"chat": "/${GONE}"}}, "paths: chat: the environment variable GONE is not set"),
        ({"base_url": "https://${GO NE}/v1"}, "must be written as ${NAME}"),
        ({"base_url": "x.com/v1"}, "base_url must be a URL"),
        ({"base_url": "https://x.com/v1?version=1"}, "must not have a query; put it into paths"),
        ({"base_url": "https://x.com/v1/chat/completions"}, "must end before the route"),
        ({"base_url_env": "BAD_URL"}, "BAD_URL must be a URL"),
        ({"headers": {"X Token": "t"}}, "headers: X Token cannot be set"),
        ({"headers": {"Host": "t"}}, "headers: Host cannot be set"),
        ({"headers": {"X-Token": "a\nb"}}, "headers: X-Token must be one line"),
        ({"headers": {"X-Token": 1}}, "headers must be a table of texts"),
        ({"paths": {"chats": "/x"}}, "paths: unknown field chats; did you mean chat?"),
        ({"paths": {"chat": "x"}}, "paths: chat must begin with /"),
        ({"paths": {"chat": "/{modle}"}}, "no other braces"),
        ({"key_header": "x api key"}, "key_header must be the name of a header"),
        ({"key_header": "Host"}, "key_header must be the name of a header, and of none that the connection needs"),
        ({"key_header": "Content-Length"}, "and of none that the connection needs"),
        ({"key_header": "transfer-encoding"}, "and of none that the connection needs"),
        ({"headers": {"Upgrade": "t"}}, "headers: Upgrade cannot be set"),
        ({"key_command": "gcloud auth"}, 'key_command must be a list such as ["program", "argument"]'),
        ({"key_seconds": 0}, "key_seconds must be a number of seconds"),
        ({"keyless": "no"}, "keyless must be true or false"),
        ({"responses": "no"}, "responses must be true or false"),
        ({"serves": "gpt-*"}, "serves must be a list of texts"),
        ({"thoughts": "reasoning_contents"}, "thoughts must be one of none, reasoning_content"),
        ({"system_role": "user"}, "system_role must be one of system, developer"),
        (
            {"max_tokens_field": "max_output_tokens"},
            "max_tokens_field must be one of max_completion",
        ),
        ({"drop": "store"}, "drop must be a list of paths"),
        ({"drop": ["n=one"]}, "drop must be a list of paths"),
        ({"drop": ["messages..name"]}, "drop must be a list of paths"),
        ({"drop": ["temperature=NaN"]}, "drop must be a list of paths"),
        ({"drop": ["temperature=Infinity"]}, "drop must be a list of paths"),
        ({"drop": ["temperature="]}, "drop must be a list of paths"),
        ({"add": 1}, "add must be a table"),
        ({"input_price": 1}, "unknown field input_price; did you mean"),
        ({"base_ulr": "http://x"}, "unknown field base_ulr; did you mean base_url?"),
        ({"api_key": "sk-in-the-file"}, "unknown field api_key; did you mean key_env?"),
        ({"key_env": "TWO_LINES"}, "the key in TWO_LINES has a line break in it"),
        ({"key_env": "SPACED"}, "the key in SPACED has a space"),
    ],
)
def test_a_wrong_row_is_named_with_what_is_wrong(words: dict[str, Any], expected: str) -> None:
    environ = {"X_KEY": "k", "TWO_LINES": "sk-in-the-file\nb", "SPACED": "sk-in-the-file b", "BAD_URL": "x y"}
    with pytest.raises(SettingsError) as caught:
        row(environ, **words)
    assert "[providers.x]" in str(caught.value)
    assert expected in str(caught.value)
    assert "sk-in-the-file" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"models": {"a/b": {"input_price": 1}}}, '[models."a/b"]: unknown field input_price; did you mean price'),
        ({"models": {"a/b": {"thoughts": "x"}}}, '[models."a/b"]: thoughts must be one of'),
        ({"aliases": {"a": {"target": ["x/y"]}}}, "[aliases.a]: unknown field target; did you mean targets?"),
        ({"defaults": {"modle": "x"}}, "[defaults]: unknown field modle; did you mean model?"),
        ({"tiers": {"a": {"rmp": 1}}}, "[tiers.a]: unknown field rmp; did you mean rpm?"),
        ({"provider": {}}, "unknown field provider; did you mean providers?"),
        ({"providers": 1}, "[providers]: must be a table"),
        ({"providers": {"x": 1}}, "[providers.x]: must be a table"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest_valid_name(document: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Catalog(document, Settings.load({}))
    assert expected in str(caught.value)


def test_a_row_that_is_off_is_not_read_further() -> None:
    assert not row({"OTHER": "1"}, base_url="https://${GONE}/v1").configured
    off = row({"X_KEY": "k"}, base_url="https://${GONE}/v1", needs_env=["GONE"])
    assert (off.configured, off.missing) == (False, ("GONE",))
    assert row({"GONE": "here.com"}, base_url="https://${GONE}/v1", needs_env=["GONE"], keyless=True).configured


def test_a_row_whose_only_address_is_a_variable_never_falls_back_to_openai() -> None:
    with pytest.raises(SettingsError, match="MY_URL is not set"):
        Catalog({"providers": {"x": {"kind": "openai", "keyless": True, "base_url_env": "MY_URL"}}}, Settings.load({}))


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("openai", "http://localhost:11434", "http://localhost:11434/v1"),
        ("openai", "http://localhost:11434/v1/", "http://localhost:11434/v1"),
        ("openai", "localhost:11434", "http://localhost:11434/v1"),
        ("anthropic", "https://x.com/v1", "https://x.com"),
    ],
)
def test_an_address_may_be_written_with_or_without_its_scheme_and_v1(kind: str, given: str, expected: str) -> None:
    words = {"kind": kind, "keyless": True, "base_url": "http://${URL}/v1"}
    assert row({"URL": given}, **words).base_url == expected


@pytest.mark.parametrize(
    ("address", "value"),
    [
        ("https://${V}.x.com/v1", "evil.com/"),
        ("https://${V}.x.com/v1", "evil.com/@"),
        ("https://${V}.x.com/v1", "evil.com\\"),
        ("https://${V}.x.com/v1", "https://evil.com/"),
        ("https://${V}.x.com/v1", "u:p@x"),
        ("https://${V}.x.${END:-com}", "evil.com/"),
        ("https://${V}:8000/v1", "evil.com/"),
        ("https://x.com${V}", "@evil.com"),
        ("https://x.com:${V}/v1", "80@evil.com"),
        ("https://${V}/v1", "u:p@x"),
        ("${V}.x.com/v1", "https://evil.com/"),
    ],
)
def test_the_value_of_a_variable_never_changes_the_host_that_a_row_names(address: str, value: str) -> None:
    with pytest.raises(SettingsError, match="a variable must not change the host") as caught:
        row({"V": value}, keyless=True, base_url=address)
    assert "evil" not in str(caught.value) and "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "value", "expected"),
    [
        ("${V}", "https://x.com/a", "https://x.com/a"),
        ("https://${V}", "x.com:8000/a", "https://x.com:8000/a"),
        ("https://x.com${V}", "/a", "https://x.com/a"),
        ("https://x.com/${V}/v1", "a@b/c", "https://x.com/a@b/c/v1"),
        ("https://${V}.x.com/v1", "eu.west", "https://eu.west.x.com/v1"),
    ],
)
def test_a_variable_may_be_the_host_or_what_follows_it(address: str, value: str, expected: str) -> None:
    assert row({"V": value}, keyless=True, base_url=address).base_url == expected


def test_a_key_s_white_space_at_both_ends_is_not_part_of_it() -> None:
    assert row({"X_KEY": " k\n"}).key == "k"
    assert not row({"X_KEY": " \n"}).configured


def test_only_the_vendor_s_own_row_gets_what_the_environment_sets_for_its_sdk() -> None:
    own = {"kind": "openai", "keyless": True, "base_url_env": "OPENAI_BASE_URL"}
    assert Catalog({"providers": {"x": own}}, Settings.load({})).providers["x"].is_the_vendor
    assert not row().is_the_vendor
    other = {"kind": "openai", "keyless": True, "base_url_env": "MY_URL"}
    assert not Catalog({"providers": {"x": other}}, Settings.load({"MY_URL": "http://x"})).providers["x"].is_the_vendor


def test_chat_responses_and_count_tokens_are_separate_words() -> None:
    assert row(chat=False, responses=True, count_tokens=False).formats == ("responses", "completions", "embeddings")
    assert row(count_tokens=True).formats == ("chat", "input_tokens", "completions", "embeddings")
    assert row(kind="anthropic", count_tokens=False).formats == ("messages",)
    with pytest.raises(SettingsError, match="count_tokens contradicts formats"):
        row(formats=["chat"], count_tokens=True)


def test_a_model_s_row_replaces_its_provider_s_words() -> None:
    document = {
        "providers": {"x": {**ROW, "thoughts": "reasoning", "drop": ["user"]}},
        "models": {"x/old": {"thoughts": "none", "drop": []}},
    }
    catalog = Catalog(document, Settings.load({"X_KEY": "k"}))
    old, new = catalog.resolve("x/old")[0].provider, catalog.resolve("x/new")[0].provider
    assert (old.thoughts, old.drop, new.thoughts, new.drop) == ("none", (), "reasoning", ("user",))


def test_a_price_may_be_known_under_another_name() -> None:
    document = {
        "providers": {"x": {**ROW, "prices": "openai"}},
        "models": {"x/mine": {"price_as": "gpt-4o"}, "x/*": {"price_as": "{name}"}},
    }
    catalog = Catalog(document, Settings.load({"X_KEY": "k"}))
    assert catalog.resolve("x/mine")[0].price is not None
    assert catalog.resolve("x/publisher/gpt-4o")[0].price is not None
    assert catalog.resolve("x/unheard-of")[0].price is None


def test_a_variable_with_file_at_its_end_names_a_file_with_the_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-the-file\n")
    found = row({"X_KEY_FILE": str(tmp_path / "key")})
    assert (found.configured, key_sources.read_key(found)) == (True, "from-the-file")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"a\nb", "has a line break in it"),
        (b"\xff\xfe", "is not a text file"),
        (b"k" * 20_000, "is longer than"),
    ],
)
def test_a_wrong_key_file_is_an_error_with_the_row_s_name(tmp_path: Path, content: bytes | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(ValueError, match=r"\[providers\.x\]: the key file") as caught:
        key_sources.check(row({"X_KEY_FILE": str(tmp_path / "key")}))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise SystemExit(3)", "failed with exit status 3"),
        ("print()", "is empty"),
        ("print('a'); print('b')", "has a line break in it"),
    ],
)
def test_a_wrong_key_command_is_an_error_with_the_row_s_name(code: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r"\[providers\.x\]: key_command") as caught:
        key_sources.check(row({"OTHER": "1"}, key_command=[sys.executable, "-c", code]))
    assert expected in str(caught.value)


def test_a_key_command_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be run: No such file"):
        key_sources.check(row({"OTHER": "1"}, key_command=["/no/such/command"]))


@pytest.mark.parametrize(
    ("words", "environ", "expected"),
    [
        ({"key_command": ["/x/${TOK}"]}, {}, "key_command /x/${TOK} cannot be run: No such file"),
        ({"key_command": ["/bin/sh", "-c", "exit 3", "${TOK}"]}, {}, "key_command /bin/sh failed with exit status 3"),
        ({"key_file": "/x/${TOK}"}, {}, "the key file /x/${TOK} cannot be read: No such file"),
        ({}, {"X_KEY_FILE": "sk-secret"}, "the key file that X_KEY_FILE names cannot be read: No such file"),
        ({}, {"X_KEY_FILE": "/x/${TOK}"}, "the key file that X_KEY_FILE names cannot be read: No such file"),
    ],
)
def test_an_error_about_a_key_s_source_quotes_no_value_of_a_variable(
    words: dict[str, Any], environ: dict[str, str], expected: str
) -> None:
    with pytest.raises(ValueError, match=r"\[providers\.x\]") as caught:
        key_sources.check(row({"TOK": "sk-secret", **environ}, **words))
    assert expected in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_a_key_command_has_ended_although_its_children_hold_its_output_open() -> None:
    command = ("/bin/sh", "-c", "sleep 600 & echo KEY")
    assert key_sources.run_command("[providers.x]", command, 300) == "KEY"


def test_a_key_command_that_hangs_is_ended_with_its_children() -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match="did not end within"):
        key_sources.run_command("[providers.x]", ("/bin/sh", "-c", "sleep 60 & sleep 60"), 0.3)
    assert time.monotonic() - started < 20
