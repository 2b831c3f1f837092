"""What is kept of text from outside: identifiers, and vendors' messages without anything from the request."""

from __future__ import annotations

import json
import re
import time
from decimal import Decimal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llm_service.catalog.prices import Rates
from llm_service.core.errors import UpstreamFailed
from llm_service.observability import scrub
from llm_service.observability.scrub_words import VOCABULARY

# Error messages as api.openai.com and api.anthropic.com send them.
HARMLESS = [
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
    "This model's maximum context length is 128000 tokens. However, your messages resulted in 200123 tokens.",
    "The model `gpt-9-turbo` does not exist or you do not have access to it.",
    "messages.0.content.1.tool_use_id: unexpected `tool_use_id` found in `tool_result` blocks",
    'messages: roles must alternate between "user" and "assistant", but found multiple "user" roles in a row',
    "max_tokens: 200000 > 64000, which is the maximum allowed number of output tokens for claude-sonnet-4-5-20250929",
    "`max_tokens` must be greater than `thinking.budget_tokens`. cache_creation_input_tokens: 12",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "Overloaded",
    "linked_organization_spend_limit_reached",
]
REQUEST = {
    "model": "gpt-9-turbo",
    "max_tokens": 5,
    "messages": [
        {
            "role": "user",
            "content": "my secret-code is AZURITE-99 and my PIN 4711 for bob\nplease keep it, messages and all",
        },
        {"role": "user", "content": [{"type": "tool_use", "input": {"customer_ssn": "078-05-1120"}}]},
    ],
    "tools": [{"name": "lookup_customer_ssn", "input_schema": {"properties": {"customer_ssn": {}}}}],
}


def scrubbed(message: str) -> str:
    return scrub.vendor_message(message, scrub.request_text(REQUEST))


# ---- vendors' messages


@pytest.mark.parametrize("message", HARMLESS)
def test_a_message_about_fields_and_numbers_is_kept_unchanged(message: str) -> None:
    assert scrubbed(message) == message


@pytest.mark.parametrize(
    ("message", "left"),
    [
        ("Invalid value: 'AZURITE-99'. Expected 'user'.", "Invalid value: '[…]'. Expected 'user'."),
        ("Invalid value: 'Azuri'.", "Invalid value: '[…]'."),
        ("could not parse: my PIN 4711 for", "could not parse: […]"),
        ('could not parse: "PIN 4711 for bob\\nplease keep"', 'could not parse: "[…]"'),
        ("tool call_AZURITE99x failed", "tool […] failed"),
        ("tools.0.input_schema.customer_ssn: bad", "tools.0.input_schema.[…]: bad"),
        ("Invalid schema for function 'lookup_customer_ssn'", "Invalid schema for function '[…]'"),
        ("bad value 078-05-1120 given", "bad value […] given"),
    ],
)
def test_text_from_the_request_is_replaced(message: str, left: str) -> None:
    assert scrubbed(message) == left


@pytest.mark.parametrize(
    "secret",
    [
        "https://upstream.internal.example/v1/chat?key=1",
        "10.1.2.3:8080",
        "localhost:11434",
        "ollama:11434",
        "api.openai.com/v1",
        "admin@example.com",
        "sk-abcd***************wxyz",
        "Bearer sk-ant-api03-AbCdEf",
        "org-AbCdEfGhIjKl",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIi",
        "toolu_01A09q90qw90lq917835lq9",
        "iVBORw0KGgoAAAANSUhEUgAAAAUA",
        "d9b2d63d-a233-4123-847a-7090f0a1b2c3",
        "café",
        "日本語のひみつ",
        "\\u65e5\\u672c\\u8a9e",
    ],
)
def test_addresses_keys_and_tokens_are_replaced_whatever_the_request_says(secret: str) -> None:
    result = scrub.vendor_message(f"Failed: {secret} is wrong", "")
    assert secret.removeprefix("Bearer ") not in result
    assert result.startswith("Failed: ")
    assert result.endswith("[…] is wrong")


def test_a_message_is_one_bounded_line_of_printable_text() -> None:
    result = scrub.vendor_message("bad\nvalue\x00\x1b[31m " * 1000, "")
    assert len(result) <= 500
    assert result.isprintable()


@pytest.mark.parametrize("message", [None, 5, {"text": "x"}, ["x"], ""])
def test_a_message_that_is_not_text_becomes_empty(message: object) -> None:
    assert scrub.vendor_message(message, "x") == ""


WORD = st.text(st.sampled_from("abcdefXYZ0123456789_éß日"), min_size=6, max_size=30)
AROUND = st.sampled_from(
    ["{}", "'{}'", "`{}`", "x{}y", "call_{}_0", "messages.0.{}", "{}.", "({})", "{},{}", "…{}", "input_value={}, type"]
)


@given(st.lists(WORD, min_size=1, max_size=8), st.data())
@settings(deadline=None)
def test_no_word_of_six_letters_from_the_request_is_kept(words: list[str], data: st.DataObject) -> None:
    assume(not any(scrub._is_vocabulary(word) for word in words))
    message = "Invalid request:"
    for word in words:
        quoted = data.draw(AROUND).replace(
            "{}", data.draw(st.sampled_from([word, word.upper(), json.dumps(word)[1:-1]]))
        )
        message += f" {quoted} {data.draw(st.sampled_from(HARMLESS))[:30]}"
    result = scrub.vendor_message(message, scrub.request_text({"messages": [{"content": " ".join(words)}]})).lower()
    for word in words:
        assert word.lower() not in result


SHORT = st.text(st.sampled_from("abcdefghijklmnop"), min_size=1, max_size=5).filter(lambda word: word not in VOCABULARY)


@given(st.lists(SHORT, min_size=3, max_size=12), st.integers(0, 9))
@settings(deadline=None)
def test_no_sequence_of_three_words_from_the_request_is_kept(words: list[str], at: int) -> None:
    run = " ".join(words[min(at, len(words) - 3) :][:3])
    result = scrub.vendor_message(f"Could not parse {run}: invalid", " ".join(words))
    assert run not in result


@given(st.text(), st.text(st.characters(exclude_categories=())))
@settings(deadline=None)
def test_any_message_with_any_content_gives_a_bounded_line(message: str, content: str) -> None:
    result = scrub.vendor_message(message, content)
    assert len(result) <= 500
    assert not re.search(r"[^\x00-\x7f…]", result)


def test_a_huge_request_is_searched_in_bounded_time_and_unknown_words_are_replaced() -> None:
    content = ("the quick brown fox jumps over the lazy dog. " * 800_000)[: 32 * 1024 * 1024]
    message = "Unsupported value zyxwvutsrqpo nmlkjihgfedc ponmlkjihgfe at messages[0].content"
    start = time.perf_counter()
    result = scrub.vendor_message(message, content)
    assert time.perf_counter() - start < 5
    assert result == "Unsupported value […] at messages[0].content"


# ---- the request's text


def test_the_requests_text_has_its_strings_and_inner_names() -> None:
    text = scrub.request_text(REQUEST)
    for piece in ("AZURITE-99", "customer_ssn", "078-05-1120", "lookup_customer_ssn"):
        assert piece in text
    assert "gpt-9-turbo" not in text
    assert "max_tokens" not in text


def test_a_prompt_in_the_model_field_is_part_of_the_text() -> None:
    assert "a secret" in scrub.request_text({"model": "tell me a secret"})


@pytest.mark.parametrize("body", [None, "text", 5, ["a"]])
def test_a_body_that_is_not_an_object_has_no_text(body: object) -> None:
    assert scrub.request_text(body) == ""


def test_a_body_nested_100000_deep_is_read() -> None:
    body: object = "bottom"
    for _ in range(100_000):
        body = [body]
    assert scrub.request_text({"messages": body}) == "bottom"


def test_only_the_beginning_and_end_of_binary_data_are_part_of_the_text() -> None:
    data = "HEADhead" + "iVBORw0KGgo" * 1000 + "TAILtail"
    body = {"messages": [{"content": [{"data": data}, {"text": "some words " * 100}]}]}
    assert scrub.data_characters(body) == len(data)
    text = scrub.request_text(body)
    assert "HEADhead" in text
    assert "TAILtail" in text
    assert len(text) < 2000
    assert scrub.vendor_message("bad image 'HEADheadiVBO'", text) == "bad image '[…]'"


# ---- exceptions


def test_an_exception_is_described_without_its_text() -> None:
    try:
        try:
            raise UpstreamFailed("MARKER of a vendor")
        except UpstreamFailed:
            Rates(Decimal(1), Decimal(2)).cost("MARKER")  # type: ignore[arg-type]
    except Exception as error:
        described = scrub.safe_exception(error)
    assert described["type"] == "builtins.AttributeError"
    assert described["caused_by"] == ["llm_service.core.errors.UpstreamFailed"]
    frames = [re.sub(r":\d+ ", ": ", frame) for frame in described["frames"]]
    assert frames == ["llm_service/catalog/prices/rates.py: cost"]
    assert "MARKER" not in str(described)
