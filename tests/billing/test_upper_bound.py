"""The upper bounds of a call: its tokens, the limit that applies, and its cost."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_service.billing import upper_bound as billing
from llm_service.billing.upper_bound import CONTEXT, UpperBound, output_limit, upper_bound
from llm_service.catalog.prices import Rates
from llm_service.core.call import Call, Caller, Kind
from llm_service.core.target import Price, Provider, Target, Timeouts
from llm_service.core.usage import Usage
from llm_service.formats import registry
from llm_service.formats.bounds import PER_CALL, PER_OBJECT, PER_TEXT, PER_TOOLS

IMAGE = registry.image_tokens("anthropic")
IMAGE_ELSEWHERE = registry.image_tokens("openai")
RATES = Rates(Decimal(3), Decimal(15), Decimal("0.3"), Decimal("3.75"), Decimal(6))
USER_ITEM = {"role": "user", "content": "Hi"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def target(kind: str = "openai", model: str = "m", **more: Any) -> Target:
    return Target(Provider(kind, kind), model, Timeouts(), **{"price": RATES, "max_output": 1000, **more})


def asks(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def call(body: dict[str, Any], format: str = "chat", kind: Kind = "generate") -> Call:
    return Call("c", "r", "/", format, "m", False, body, Caller("k"), kind=kind)


def bound(body: dict[str, Any], targets: list[Target], format: str = "chat", kind: Kind = "generate") -> UpperBound:
    return upper_bound(call(body, format, kind), targets)


def input_tokens(body: dict[str, Any], target: Target, format: str = "chat") -> int:
    return billing.input_tokens(registry.format_of(call(body, format)).BOUNDS.input_bound(body), target)


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for inner in pair for text in strings(inner)]
    return [text for inner in value for text in strings(inner)] if isinstance(value, list) else []


@given(JSON)
def test_no_text_has_more_tokens_than_its_bound(value: Any) -> None:
    body = asks("x", tools=[{"type": "function", "function": {"name": "f", "parameters": {"schema": value}}}])
    text = sum(len(text.encode("utf-8", "surrogatepass")) for text in strings(body))
    assert input_tokens(body, target()) >= text + PER_CALL + PER_TOOLS


def test_a_text_counts_its_bytes_and_an_object_what_a_template_adds_to_it() -> None:
    one, two = input_tokens(asks("ä" * 100), target()), input_tokens(asks("ä" * 101), target())
    assert two - one == 2
    more = {"model": "m", "messages": asks("x")["messages"] * 2}
    assert input_tokens(more, target()) - input_tokens(asks("x"), target()) >= PER_OBJECT


def test_a_character_that_a_tokenizer_may_expand_counts_as_its_expansion() -> None:
    ligature = "\ufdfa"  # one character of 3 bytes; 18 characters in its compatibility form
    assert input_tokens(asks(ligature), target()) - input_tokens(asks(""), target()) == 33


def test_an_image_counts_its_vendors_maximum_and_not_its_bytes() -> None:
    data = base64.b64encode(b"x" * 1_000_000).decode()
    anthropic = asks([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}])
    assert IMAGE < input_tokens(anthropic, target("anthropic"), "messages") < IMAGE + 500
    openai = asks([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}])
    assert IMAGE_ELSEWHERE < input_tokens(openai, target()) < IMAGE_ELSEWHERE + 500


def test_an_image_within_a_tools_arguments_or_schema_counts_as_text() -> None:
    fake = {"type": "image", "source": {"type": "base64", "data": "x" * 300_000}}
    use = {"type": "tool_use", "id": "1", "name": "f", "input": {"content": [fake]}}
    assert input_tokens(asks([use]), target("anthropic"), "messages") > 300_000
    tools = [{"name": "f", "input_schema": fake}]
    assert input_tokens(asks("x", tools=tools), target("anthropic"), "messages") > 300_000


def test_a_document_counts_as_the_whole_context() -> None:
    pdf = asks([{"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}])
    assert input_tokens(pdf, target(), "messages") >= CONTEXT
    assert input_tokens(pdf, target(context=200_000), "messages") == 200_000
    plain = asks([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "abc"}}])
    assert input_tokens(plain, target(), "messages") < 500


def test_no_input_is_larger_than_a_known_context() -> None:
    assert input_tokens(asks("x" * 500_000), target(context=128_000)) == 128_000


@pytest.mark.parametrize(
    ("format", "fields", "expected"),
    [
        ("chat", {"max_tokens": 5}, (5, True)),
        ("chat", {"max_completion_tokens": 7, "max_tokens": 5}, (7, True)),
        ("messages", {"max_tokens": 5}, (5, True)),
        ("responses", {"max_output_tokens": 9}, (9, True)),
        ("completions", {"max_tokens": 0}, (0, True)),
        ("simple", {"max_tokens": 3}, (3, True)),
        ("chat", {"max_tokens": None}, (1000, False)),
        ("chat", {}, (1000, False)),
        ("chat", {"max_tokens": 10**12}, (2**31, True)),
        # A name of another format may be what the vendor obeys, or nothing to it.
        ("messages", {"max_tokens": 5, "max_output_tokens": 9}, (9, True)),
        ("chat", {"max_output_tokens": 9}, (1000, False)),
        ("responses", {"max_tokens": 9}, (1000, False)),
    ],
)
def test_the_limit_that_applies_is_the_clients_else_the_models(
    format: str, fields: dict[str, Any], expected: tuple[int, bool]
) -> None:
    assert output_limit(call(asks("x", **fields), format), [target()]) == expected


@pytest.mark.parametrize(
    ("format", "field"),
    [("chat", "max_completion_tokens"), ("messages", "max_tokens"), ("responses", "max_output_tokens")],
)
def test_a_limit_is_written_by_the_name_that_its_format_reads(format: str, field: str) -> None:
    bounds = registry.format_of(call({}, format)).BOUNDS
    body = bounds.with_output_limit({"model": "m"}, 5)
    assert body == {"model": "m", field: 5} and bounds.output_limit(body) == 5


def test_the_smallest_limit_of_several_targets_travels_and_an_unknown_limit_bounds_nothing() -> None:
    asked = call(asks("x"))
    assert output_limit(asked, [target(max_output=10), target(max_output=5)]) == (5, False)
    assert output_limit(asked, [target(max_output=10), target(max_output=None)]) == (None, False)
    bounds = upper_bound(asked, [target(max_output=None)])
    assert bounds.max_tokens is None and bounds.cost_nanousd is None


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 1000))
def test_no_split_of_the_input_costs_more(plain: int, read: int, written: int, hour: int, output: int) -> None:
    whole = plain + read + written + hour
    bounds = bound(asks("x" * whole, max_tokens=1000), [target()])
    cost = RATES.cost(Usage(whole, output, read, written + hour, hour))
    assert cost is not None and bounds.cost_nanousd is not None and bounds.cost_nanousd >= cost


def test_the_cost_covers_the_most_expensive_target_and_every_choice() -> None:
    expensive = Rates(Decimal(30), Decimal(150))
    body = asks("x" * 1000, max_tokens=100)
    both = bound(body, [target(), target(price=expensive)])
    assert both.cost_nanousd == expensive.cost(Usage(both.input_tokens, 100))
    assert bound({**body, "n": 3}, [target()]).output_tokens == 300
    assert both.tokens == both.input_tokens + 100


def test_a_service_tier_costs_its_own_price_and_without_a_price_its_cost_is_unknown() -> None:
    tiered: Price = Rates(Decimal(1), Decimal(1), tiers=(("priority", Rates(Decimal(2), Decimal(2))),))

    def cost(**fields: Any) -> int | None:
        return bound(asks("x", **fields), [target(price=tiered)]).cost_nanousd

    standard = cost(service_tier="default")
    assert standard is not None
    # The vendor may choose the most expensive one.
    for fields in ({}, {"service_tier": "auto"}, {"service_tier": "priority"}):
        more = cost(**fields)
        assert more is not None and more > 1.9 * standard
    assert cost(service_tier="new") is None
    assert cost(speed="fast") is None
    assert bound(asks("x", speed="fast"), [target(price=tiered)]).unpriced == "openai/m"


@pytest.mark.parametrize("format", registry.NAMES)
def test_no_field_hides_a_dearer_service_tier_from_the_bound(format: str) -> None:
    cheap, dear = Rates(Decimal(1), Decimal(1)), Rates(Decimal(9), Decimal(9))
    names = {"flex": cheap, "batch": cheap, "fast": dear, "priority": dear}
    tiered = target(price=Rates(Decimal(2), Decimal(2), tiers=tuple(names.items())))

    def cost(**fields: Any) -> int | None:
        return bound({**asks("x" * 1000), "max_tokens": 100, **fields}, [tiered], format).cost_nanousd

    most = cost(service_tier="priority", speed="standard")
    assert most is not None
    # A target may drop either field; and a vendor may not know the word, and then chooses by itself.
    for fields in (
        {"speed": "flex", "service_tier": "priority"},
        {"speed": "priority", "service_tier": "flex"},
        {"speed": "flex"},
        {"service_tier": "batch"},
    ):
        higher = cost(**fields)
        assert higher is not None and higher >= most * 0.9
    standard = cost(service_tier="standard_only")
    assert standard is not None and standard < most / 4
    assert cost(service_tier="scale", speed="fast") is None
    assert cost(service_tier="fast", speed=["new"]) is None


def test_what_the_vendor_keeps_or_fetches_is_not_bounded_by_the_text_of_its_name() -> None:
    spoken = {"model": "m", "messages": [{"role": "assistant", "audio": {"id": "audio_1"}}, *asks("x")["messages"]]}
    assert bound(spoken, [target()]).unbounded == "messages[0].audio"
    url = asks([{"type": "audio_url", "audio_url": {"url": "https://example.com/a.wav"}}])
    assert input_tokens(url, target()) >= CONTEXT


def test_a_wrong_prediction_is_billed_as_output() -> None:
    body = asks("x", max_tokens=100, prediction={"type": "content", "content": "y" * 5000})
    assert bound(body, [target()]).output_tokens >= 5100


def test_a_target_without_a_price_is_named() -> None:
    bounds = bound(asks("x"), [target(), target(price=None, model="new")])
    assert (bounds.cost_nanousd, bounds.unpriced) == (None, "openai/new")


@pytest.mark.parametrize(
    ("format", "fields", "named"),
    [
        ("chat", {}, None),
        ("chat", {"tools": [{"type": "function", "function": {"name": "f"}}, {"name": "g", "input_schema": {}}]}, None),
        ("messages", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ("chat", {"web_search_options": {}}, "web_search_options"),
        ("messages", {"mcp_servers": []}, None),
        ("messages", {"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ("responses", {"previous_response_id": "resp_1"}, "previous_response_id"),
        ("responses", {"conversation": {"id": "conv_1"}}, "conversation"),
        ("responses", {"background": False}, None),
        ("responses", {"background": True}, "background"),
        ("completions", {"prompt": "Hi"}, None),
        ("responses", {"prompt": {"id": "pmpt_1", "variables": {}}}, "prompt"),
        ("responses", {"input": "Hi"}, None),
        (
            "responses",
            {"input": [{"role": "user", "content": "Hi"}, {"type": "function_call_output", "output": "1"}]},
            None,
        ),
        (
            "responses",
            {"input": [{"role": "user", "content": "Hi"}, {"type": "item_reference", "id": "msg_1"}]},
            "input[1].type",
        ),
        ("responses", {"input": [{"type": "additional_tools", "tools": [{"type": "web_search"}]}]}, "input[0].type"),
        ("responses", {"input": [{"type": "additional_tools", "tools": [{"type": "custom"}]}]}, None),
        ("responses", {"tools": [{"type": "namespace", "tools": [{"type": "function"}]}]}, None),
        ("responses", {"tools": [{"type": "namespace", "tools": [{"type": "web_search"}]}]}, "tools[0].type"),
    ],
)
def test_a_field_that_costs_more_than_tokens_is_named(format: str, fields: dict[str, Any], named: str | None) -> None:
    assert bound(asks("x", **fields), [target()], format).unbounded == named


def test_tools_that_are_left_out_for_every_target_cost_nothing() -> None:
    crossing = replace(target(), provider=Provider("anthropic", "anthropic", formats=("messages",)))
    own = replace(target(), provider=Provider("openai", "openai", formats=("chat", "responses")))
    body = {**asks("x"), "input": [{"type": "web_search_call"}], "tools": [{"type": "web_search"}]}
    assert bound(body, [crossing], "responses").unbounded is None
    assert bound(body, [crossing, own], "responses").unbounded == "tools[0].type"
    assert bound({**body, "tools": []}, [own], "responses").unbounded == "input[0].type"
    assert bound({**body, "previous_response_id": "r"}, [crossing], "responses").unbounded == "previous_response_id"


@pytest.mark.parametrize("name", registry.NAMES)
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"web_search_options": {}}, "web_search_options"),
        ({"container": "c"}, "container"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"compaction": {"type": "summarize"}}, "compaction"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management"),
        ({"context_management": {"edits": [{"type": ["clear_"]}]}}, "context_management"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, None),
        ({"context_management": []}, None),
        ({"models": ["dear/model"]}, "models"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"search_parameters": {"mode": "on"}}, "search_parameters"),
    ],
)
def test_a_field_of_another_format_is_named_too(name: str, fields: dict[str, Any], named: str | None) -> None:
    assert bound({"model": "m", **fields}, [target()], name).unbounded == named


# ---- bodies of other routes


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
    bounds = bound(body, [target()], "responses")
    assert 63_000 < bounds.input_tokens < 63_000 + 1000
    assert (bounds.output_tokens, bounds.given) == (70, True)
    assert input_tokens({"model": "m", "input": "x" * 500}, target(), "responses") > 500


def test_images_and_files_of_a_responses_input_count_as_media_and_within_arguments_as_text() -> None:
    data = "data:image/png;base64," + "x" * 300_000

    def asked(*content: dict[str, Any]) -> int:
        return input_tokens({"input": [{"role": "user", "content": list(content)}]}, target(), "responses")

    assert IMAGE_ELSEWHERE < asked({"type": "input_image", "image_url": data}) < IMAGE_ELSEWHERE + 500
    assert IMAGE_ELSEWHERE < asked({"type": "input_image", "file_id": "file-1"}) < IMAGE_ELSEWHERE + 500
    assert asked({"type": "input_file", "file_id": "file-1"}) >= CONTEXT
    output = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": data}]}
    assert IMAGE_ELSEWHERE < input_tokens({"input": [output]}, target(), "responses") < IMAGE_ELSEWHERE + 500


TOKENS = st.lists(st.integers(0, 200_000), min_size=1, max_size=50)


@given(
    TOKENS,
    st.lists(TOKENS, min_size=1, max_size=20),
    st.sampled_from([("completions", "prompt"), ("embeddings", "input"), ("responses", "input")]),
)
def test_a_token_given_by_its_number_is_one(tokens: list[int], many: list[list[int]], row: tuple[str, str]) -> None:
    format, name = row
    empty = input_tokens({name: []}, target(), format)
    assert input_tokens({name: tokens}, target(), format) == empty + len(tokens) + PER_TEXT
    assert input_tokens({name: many}, target(), format) == empty + sum(len(one) + PER_TEXT for one in many)


@given(st.lists(st.text(), min_size=1, max_size=10))
def test_each_text_of_a_list_counts_its_bytes_and_what_a_tokenizer_adds(texts: list[str]) -> None:
    size = sum(len(text.encode("utf-8", "surrogatepass")) + PER_TEXT for text in texts)
    assert input_tokens({"model": "m", "input": texts}, target(), "embeddings") >= size + PER_CALL


def test_embeddings_have_no_output_and_need_no_limit_of_it() -> None:
    body = {"model": "m", "input": ["a", "b"]}
    free = target(max_output=None, price=Rates(Decimal(3), Decimal(0)))
    bounds = bound(body, [free], "embeddings", "embed")
    assert (bounds.output_tokens, bounds.max_tokens, bounds.given) == (0, 0, True)
    assert bounds.cost_nanousd == bounds.input_tokens * 3000
    assert bound(body, [target(max_output=None)], "responses").cost_nanousd is None


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
def test_every_answer_that_is_generated_counts(fields: dict[str, Any], answers: int) -> None:
    body = {"model": "m", "max_tokens": 50, **fields}
    assert bound(body, [target()], "completions").output_tokens == 50 * answers


@pytest.mark.parametrize(("limit", "held"), [(0, 0), (1, 16), (15, 16), (16, 16), (17, 17)])
def test_a_limit_that_the_responses_api_would_raise_is_held_as_raised(limit: int, held: int) -> None:
    bounds = bound({"model": "m", "prompt": "Hi", "max_tokens": limit}, [target()], "completions")
    assert (bounds.output_tokens, bounds.max_tokens) == (held, limit)


def test_a_body_that_is_nested_deep_causes_no_recursion() -> None:
    body = json.loads('{"messages":' + "[" * 900 + "]" * 900 + "}")
    for _ in range(20_000):
        body = {"messages": [body]}
    assert input_tokens(body, target()) > 20_000
