"""Schemas of tools as vendors take them: what the scripted vendors reject in them does not reach a vendor."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core.content import Tool
from llm_service.core.errors import InvalidRequest, UnsupportedParameter
from llm_service.formats import tool_schemas
from tests.upstream.tool_schemas import anthropic_problem, openai_problem

NAMES = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


def fitted(schema: Any, **rules: Any) -> Tool:
    return tool_schemas.fit(Tool("look", "Looks.", schema, path="tools[0].p"), **rules)


def for_openai(schema: Any) -> Any:
    return fitted(schema, complete=True).schema


@pytest.mark.parametrize(
    ("given_schema", "sent"),
    [
        ({"type": "object"}, {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        ({"type": ["object", "null"], "properties": {}}, {"type": "object", "properties": {}}),
        ({"type": "object", "properties": None, "required": None}, {"type": "object", "properties": {}}),
        ({"type": "object", "properties": []}, {"type": "object", "properties": {}}),
        (
            {"properties": {"a": {"type": "array"}, "b": {"type": "object"}}},
            {
                "properties": {"a": {"type": "array", "items": {}}, "b": {"type": "object", "properties": {}}},
                "type": "object",
            },
        ),
        (
            {"properties": {"a": {"type": "str"}, "b": {"type": "any"}, "c": {"type": ["INT", "null"]}}},
            {"properties": {"a": {"type": "string"}, "b": {}, "c": {"type": ["integer", "null"]}}, "type": "object"},
        ),
        (
            {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1, "exclusiveMinimum": True}}},
            {"type": "object", "properties": {"a": {"type": "integer", "exclusiveMinimum": 1}}},
        ),
        (
            {"type": "object", "properties": {"a": {"type": "integer", "required": True}}},
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        ),
        (
            {"properties": {"a": {"type": "array", "items": [{"type": "null"}], "additionalItems": False}}},
            {
                "type": "object",
                "properties": {"a": {"type": "array", "prefixItems": [{"type": "null"}], "items": {}, "maxItems": 1}},
            },
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string", "pattern": r"\p{L}+", "description": "D"}}},
            {
                "type": "object",
                "properties": {
                    "a": {"type": "string", "description": "D\n\nIt must match the regular expression \\p{L}+"}
                },
            },
        ),
        (
            {"$ref": "#/definitions/A", "definitions": {"A": {"type": "object", "properties": {"a": {"const": None}}}}},
            {
                "type": "object",
                "properties": {"a": {"const": None}},
                "definitions": {"A": {"type": "object", "properties": {"a": {"const": None}}}},
            },
        ),
    ],
)  # fmt: skip
def test_another_way_to_write_a_schema_is_rewritten(given_schema: Any, sent: Any) -> None:
    assert for_openai(given_schema) == sent
    assert openai_problem(sent) is None


@pytest.mark.parametrize("word", ["anyOf", "oneOf", "allOf"])
def test_a_rule_at_the_root_moves_into_the_description_and_its_properties_stay(word: str) -> None:
    variants = [
        {"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "string"}}, "required": ["kind", "x"]},
        {"$ref": "#/$defs/B"},
    ]
    definitions = {"B": {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]}}
    tool = fitted({word: variants, "$defs": definitions})
    assert tool.schema == {
        "$defs": definitions,
        "type": "object",
        "properties": {"kind": {"anyOf": [{"const": "a"}, {"const": "b"}]}, "x": {"type": "string"}},
        "required": ["kind", "x"] if word == "allOf" else ["kind"],
    }
    assert tool.description is not None and tool.description.startswith("Looks.\n\n")
    assert f'{{"{word}":[' in tool.description


def test_a_rule_about_which_arguments_are_needed_keeps_type_and_properties() -> None:
    properties = {"a": {"type": "string"}, "b": {"type": "string"}}
    rule = [{"required": ["a"]}, {"required": ["b"]}]
    tool = fitted({"type": "object", "properties": properties, "anyOf": rule})
    assert tool.schema == {"type": "object", "properties": properties}
    assert tool.description == (
        'Looks.\n\nThe arguments must also match this JSON schema: {"anyOf":[{"required":["a"]},{"required":["b"]}]}'
    )


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "string"}, "tools[0].p.type"),
        ({"properties": {"a": "string"}}, "tools[0].p.properties.a"),
        ({"properties": {"a": {"$ref": "https://example.com/a"}}}, "tools[0].p.properties.a.$ref"),
        ({"properties": {"a": {"items": {"$ref": "#/$defs/missing"}}}}, "tools[0].p.properties.a.items.$ref"),
        ({"anyOf": [{}], "properties": {"b": {"$ref": "#/anyOf/0"}}}, "tools[0].p.properties.b.$ref"),
        ({"properties": {"filter[a]": {}}}, "tools[0].p.properties.(unnamed)"),
    ],
)  # fmt: skip
def test_what_no_vendor_takes_is_rejected_by_its_path(schema: Any, path: str) -> None:
    with pytest.raises((InvalidRequest, UnsupportedParameter)) as caught:
        fitted(schema, names=NAMES)
    assert caught.value.param == path


def test_a_schema_as_deep_as_a_body_may_be_is_written() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(195):
        schema = {"items": schema}
    assert for_openai({"properties": {"a": schema}})["properties"]["a"]["items"]


WORDS = st.sampled_from(["object", "array", "string", "integer", "null", "STRING", "dict", "any", "float"])
KEYS = st.sampled_from(["a", "b", "c_d"])
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "type": WORDS | st.lists(WORDS, min_size=1, max_size=3),
        "description": st.none() | st.just("D"),
        "pattern": st.sampled_from(["^a$", r"\p{L}", "(?<n>a)", "["]),
        "required": st.none() | st.booleans() | st.lists(KEYS),
        "exclusiveMinimum": st.booleans() | st.integers(0, 3),
        "minimum": st.integers(0, 3),
        "enum": st.just(["x", None]),
        "const": st.none() | st.just("x"),
        "default": st.none(),
        "$ref": st.sampled_from(["#", "#/$defs/a", "#/definitions/b", "#/properties/a", "https://x", "#/anyOf/0"]),
        "additionalProperties": st.none() | st.booleans() | st.just([]),
    },
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    named: st.SearchStrategy[Any] = st.none() | st.just([]) | st.dictionaries(KEYS, inner, max_size=2)
    listed = st.lists(inner, min_size=1, max_size=2)
    members = st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("properties", "$defs", "definitions"), named),
            **dict.fromkeys(("anyOf", "oneOf", "allOf"), listed),
            "items": inner | listed,
            "additionalItems": inner | st.booleans(),
            "not": inner,
        },
    )
    return st.builds(lambda own, more: {**own, **more}, MEMBERS, members)


@settings(deadline=None)  # the machine may be busy
@given(st.recursive(MEMBERS, nested, max_leaves=8))
def test_each_schema_is_rejected_by_its_path_or_reaches_no_vendor_that_rejects_it(schema: Any) -> None:
    problems = []
    try:
        problems += [openai_problem(fitted(schema, complete=True).schema)]
        problems += [anthropic_problem(fitted(schema, names=NAMES).schema)]
    except (InvalidRequest, UnsupportedParameter) as error:
        problems += [None if str(error.param).startswith("tools[0].p") else f"the path is {error.param}"]
    assert set(problems) == {None}
