"""The estimate is an upper bound: of tokens, of what applies, and of the cost."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_service.billing.upper_bound import (
    CONTEXT,
    IMAGE,
    IMAGE_ELSEWHERE,
    PER_CALL,
    PER_OBJECT,
    PER_TEXT,
    PER_TOOLS,
    choices,
    estimate,
    input_tokens,
    max_tokens,
    unbounded,
)
from llm_service.catalog.prices import Rates
from llm_service.core.target import Price, Provider, Target, Timeouts
from llm_service.core.usage import Usage

RATES = Rates(Decimal(3), Decimal(15), Decimal("0.3"), Decimal("3.75"), Decimal(6))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def target(kind: str = "openai", model: str = "m", **more: Any) -> Target:
    return Target(Provider(kind, kind), model, Timeouts(), **{"price": RATES, "max_output": 1000, **more})


def asks(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for inner in pair for text in strings(inner)]
    return [text for inner in value for text in strings(inner)] if isinstance(value, list) else []


@given(JSON)
def test_no_text_has_more_tokens_than_its_estimate(value: Any) -> None:
    body = asks("x", tools=[{"type": "function", "function": {"name": "f", "parameters": {"schema": value}}}])
    text = sum(len(text.encode("utf-8", "surrogatepass")) for text in strings(body))
    assert input_tokens(body, target()) >= text + PER_CALL + PER_TOOLS


def test_a_text_counts_its_bytes_and_each_object_its_place_in_the_template() -> None:
    one, two = input_tokens(asks("ä" * 100), target()), input_tokens(asks("ä" * 101), target())
    assert two - one == 2
    more = {"model": "m", "messages": asks("x")["messages"] * 2}
    assert input_tokens(more, target()) - input_tokens(asks("x"), target()) >= PER_OBJECT


def test_a_character_that_a_tokenizer_may_expand_counts_as_what_it_becomes() -> None:
    ligature = "\ufdfa"  # one character of 3 bytes; 18 characters in its compatibility form
    assert input_tokens(asks(ligature), target()) - input_tokens(asks(""), target()) == 33


def test_an_image_counts_what_its_vendor_counts_at_most_whatever_its_bytes() -> None:
    data = base64.b64encode(b"x" * 1_000_000).decode()
    theirs = asks([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}])
    assert IMAGE["anthropic"] < input_tokens(theirs, target("anthropic")) < IMAGE["anthropic"] + 500
    ours = asks([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}])
    assert IMAGE_ELSEWHERE < input_tokens(ours, target()) < IMAGE_ELSEWHERE + 500


def test_text_that_poses_as_an_image_within_a_tools_arguments_is_counted_as_text() -> None:
    fake = {"type": "image", "source": {"type": "base64", "data": "x" * 300_000}}
    use = {"type": "tool_use", "id": "1", "name": "f", "input": {"content": [fake]}}
    assert input_tokens(asks([use]), target("anthropic")) > 300_000
    assert input_tokens(asks("x", tools=[{"name": "f", "input_schema": fake}]), target("anthropic")) > 300_000


def test_a_document_counts_as_the_whole_context() -> None:
    pdf = asks([{"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}])
    assert input_tokens(pdf, target()) >= CONTEXT
    assert input_tokens(pdf, target(context=200_000)) == 200_000
    plain = asks([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "abc"}}])
    assert input_tokens(plain, target()) < 500


def test_no_input_is_larger_than_a_known_context() -> None:
    assert input_tokens(asks("x" * 500_000), target(context=128_000)) == 128_000


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 5}, (5, True)),
        ({"max_completion_tokens": 7, "max_tokens": 5}, (7, True)),
        ({"max_output_tokens": 9}, (9, True)),
        ({"max_tokens": 0}, (0, True)),
        ({"max_tokens": None}, (1000, False)),
        ({}, (1000, False)),
    ],
)
def test_the_limit_that_applies_is_the_clients_else_the_models(
    fields: dict[str, Any], expected: tuple[int, bool]
) -> None:
    assert max_tokens(asks("x", **fields), [target()]) == expected


def test_of_several_targets_the_smallest_limit_travels_and_an_unknown_one_bounds_nothing() -> None:
    assert max_tokens(asks("x"), [target(max_output=10), target(max_output=5)]) == (5, False)
    assert max_tokens(asks("x"), [target(max_output=10), target(max_output=None)]) == (None, False)
    told = estimate(asks("x"), [target(max_output=None)])
    assert told.max_tokens is None and told.cost_nanousd is None


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 1000))
def test_no_split_of_the_input_costs_more(plain: int, read: int, made: int, hour: int, out: int) -> None:
    whole = plain + read + made + hour
    told = estimate(asks("x" * whole, max_tokens=1000), [target()])
    cost = RATES.cost(Usage(whole, out, read, made + hour, hour))
    assert cost is not None and told.cost_nanousd is not None and told.cost_nanousd >= cost


def test_the_cost_is_of_the_dearest_target_and_of_every_choice() -> None:
    dear = Rates(Decimal(30), Decimal(150))
    body = asks("x" * 1000, max_tokens=100)
    both = estimate(body, [target(), target(price=dear)])
    assert both.cost_nanousd == dear.cost(Usage(both.input_tokens, 100))
    assert estimate({**body, "n": 3}, [target()]).output_tokens == 300
    assert both.tokens == both.input_tokens + 100


def test_a_tier_costs_its_own_price_and_one_without_a_price_is_unknown() -> None:
    tiered: Price = Rates(Decimal(1), Decimal(1), tiers=(("priority", Rates(Decimal(2), Decimal(2))),))

    def cost(**fields: Any) -> int | None:
        return estimate(asks("x", **fields), [target(price=tiered)]).cost_nanousd

    standard = cost(service_tier="default")
    assert standard is not None
    # Left to the vendor, it may be the dearest.
    for fields in ({}, {"service_tier": "auto"}, {"service_tier": "priority"}):
        dearer = cost(**fields)
        assert dearer is not None and dearer > 1.9 * standard
    assert cost(service_tier="new") is None
    assert cost(speed="fast") is None
    assert estimate(asks("x", speed="fast"), [target(price=tiered)]).unpriced == "openai/m"


def test_a_wrong_prediction_is_billed_as_output() -> None:
    body = asks("x", max_tokens=100, prediction={"type": "content", "content": "y" * 5000})
    assert estimate(body, [target()]).output_tokens >= 5100


def test_a_target_without_a_price_is_named() -> None:
    told = estimate(asks("x"), [target(), target(price=None, model="new")])
    assert (told.cost_nanousd, told.unpriced) == (None, "openai/new")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, None),
        ({"tools": [{"type": "function", "function": {"name": "f"}}, {"name": "g", "input_schema": {}}]}, None),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"mcp_servers": []}, None),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"background": False}, None),
        ({"background": True}, "background"),
        ({"prompt": "Hi"}, None),
        ({"prompt": {"id": "pmpt_1", "variables": {}}}, "prompt"),
        ({"input": "Hi"}, None),
        ({"input": [{"role": "user", "content": "Hi"}, {"type": "function_call_output", "output": "1"}]}, None),
        ({"input": [{"role": "user", "content": "Hi"}, {"type": "item_reference", "id": "msg_1"}]}, "input[1].type"),
        ({"input": [{"type": "additional_tools", "tools": [{"type": "web_search"}]}]}, "input[0].type"),
    ],
)
def test_what_costs_more_than_tokens_is_named(fields: dict[str, Any], named: str | None) -> None:
    assert unbounded(asks("x", **fields)) == named


# ---- what other routes' bodies hold


def test_a_responses_body_counts_instructions_input_and_the_format_of_its_text() -> None:
    body = {
        "model": "m",
        "instructions": "i" * 1000,
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "t" * 2000}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "a" * 4000},
            {"type": "function_call_output", "call_id": "c", "output": "o" * 8000},
            {"type": "reasoning", "summary": [], "encrypted_content": "e" * 16_000},
        ],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"description": "s" * 32_000}}},
        "max_output_tokens": 70,
    }
    told = estimate(body, [target()])
    assert 63_000 < told.input_tokens < 63_000 + 1000
    assert (told.output_tokens, told.given) == (70, True)
    assert input_tokens({"model": "m", "input": "x" * 500}, target()) > 500


def test_images_and_files_of_a_responses_input_count_as_media_and_within_arguments_as_text() -> None:
    data = "data:image/png;base64," + "x" * 300_000

    def asked(*content: dict[str, Any]) -> int:
        return input_tokens({"model": "m", "input": [{"role": "user", "content": list(content)}]}, target())

    assert IMAGE_ELSEWHERE < asked({"type": "input_image", "image_url": data}) < IMAGE_ELSEWHERE + 500
    assert IMAGE_ELSEWHERE < asked({"type": "input_image", "file_id": "file-1"}) < IMAGE_ELSEWHERE + 500
    assert asked({"type": "input_file", "file_id": "file-1"}) >= CONTEXT
    output = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": data}]}
    assert IMAGE_ELSEWHERE < input_tokens({"model": "m", "input": [output]}, target()) < IMAGE_ELSEWHERE + 500


TOKENS = st.lists(st.integers(0, 200_000), min_size=1, max_size=50)


@given(TOKENS, st.lists(TOKENS, min_size=1, max_size=20), st.sampled_from(["prompt", "input"]))
def test_a_token_given_by_its_number_is_one(tokens: list[int], many: list[list[int]], name: str) -> None:
    empty = input_tokens({"model": "m", name: []}, target())
    assert input_tokens({"model": "m", name: tokens}, target()) == empty + len(tokens) + PER_TEXT
    assert input_tokens({"model": "m", name: many}, target()) == empty + sum(len(one) + PER_TEXT for one in many)


@given(st.lists(st.text(), min_size=1, max_size=10))
def test_of_a_list_of_texts_each_counts_its_bytes_and_what_a_tokenizer_puts_around_it(texts: list[str]) -> None:
    size = sum(len(text.encode("utf-8", "surrogatepass")) + PER_TEXT for text in texts)
    assert input_tokens({"model": "m", "input": texts}, target()) >= size + PER_CALL


def test_embeddings_have_no_output_and_need_no_limit_of_it() -> None:
    body = {"model": "m", "input": ["a", "b"]}
    told = estimate(body, [target(max_output=None, price=Rates(Decimal(3), Decimal(0)))], generates=False)
    assert (told.output_tokens, told.max_tokens, told.given) == (0, 0, True)
    assert told.cost_nanousd == told.input_tokens * 3000
    assert estimate(body, [target(max_output=None)]).cost_nanousd is None


@pytest.mark.parametrize(
    ("fields", "answers"),
    [
        ({"prompt": "Hi"}, 1),
        ({"prompt": "Hi", "n": 2}, 2),
        ({"prompt": "Hi", "n": 2, "best_of": 5}, 5),
        ({"prompt": ["a", "b", "c"], "n": 2, "best_of": 5}, 15),
        ({"prompt": [1, 2, 3], "n": 2}, 2),
        ({"prompt": [[1, 2], [3]], "best_of": 4}, 8),
        ({"prompt": [], "n": 2}, 2),
        ({"prompt": None}, 1),
        ({"n": None, "best_of": True}, 1),
        ({"n": 0, "best_of": -3}, 1),
        ({"n": 10**12}, 128),
    ],
)
def test_every_answer_that_is_generated_is_held_for(fields: dict[str, Any], answers: int) -> None:
    assert choices(fields) == answers
    assert estimate({"model": "m", "max_tokens": 10, **fields}, [target()]).output_tokens == 10 * answers


def test_a_body_nested_deep_is_no_recursion() -> None:
    body = json.loads('{"messages":' + "[" * 900 + "]" * 900 + "}")
    for _ in range(20_000):
        body = {"messages": [body]}
    assert input_tokens(body, target()) > 20_000
