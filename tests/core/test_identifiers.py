"""Only text of an identifier's shape is logged or sent on."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_service.core import identifiers


@pytest.mark.parametrize("text", ["gpt-4o-mini", "anthropic/claude-sonnet-4-6", "llama3:8b", "req_011CYK5n", "a@b+c"])
def test_an_identifier_is_kept(text: str) -> None:
    assert identifiers.loggable(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "two words", "gpt\n", "a" * 129, "été", "nul\x00", "\ud800", None, 7, ["gpt"]],
)
def test_text_that_is_not_an_identifier_becomes_none(text: object) -> None:
    assert identifiers.loggable(text) is None


@pytest.mark.parametrize(
    "key", ["sk-ant-api03-abcdef", "lsk_abcd1234_secret", "openai/sk-proj-abcdef", "eyJhbGciOiJIUzI1NiJ9"]
)
def test_a_key_is_not_accepted_as_an_identifier(key: str) -> None:
    assert identifiers.loggable(key) is None


@given(st.text())
def test_an_identifier_has_only_allowed_characters(text: str) -> None:
    assert identifiers.loggable(text) in (None, text)
    if identifiers.loggable(text):
        assert re.fullmatch(r"[A-Za-z0-9._:/@+-]{1,128}", text)


@pytest.mark.parametrize(
    ("shape", "good", "bad"),
    [
        (identifiers.request_id, "a" * 128, "a" * 129),
        (identifiers.request_id, "req-1_2.3", "req:1"),
        (identifiers.field_path, "messages[2].content", "messages[2] content"),
        (identifiers.field_path, "a" * 128, "a" * 129),
        (identifiers.vendor_code, "rate_limit_error", "rate limit"),
        (identifiers.vendor_code, "a" * 64, "a" * 65),
    ],
)
def test_each_shape_has_its_own_characters_and_length(shape, good: str, bad: str) -> None:
    assert shape(good) == good
    assert shape(bad) is None
    assert shape(f"{good[1:]}\n") is None


def test_a_field_without_the_shape_of_a_name_is_unnamed() -> None:
    assert identifiers.field_name("max_tokens") == "max_tokens"
    assert {identifiers.field_name(name) for name in ("", "two words", "a" * 65, "x\n")} == {"(unnamed)"}


def test_a_model_without_the_shape_of_a_name_is_empty() -> None:
    assert identifiers.model_name("claude-sonnet-4-6") == "claude-sonnet-4-6"
    assert {identifiers.model_name(name) for name in ("", "two words", "a" * 257, None, 4)} == {""}
