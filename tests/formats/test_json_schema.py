"""Schemas in each vendor's subset, compared with the transformation of the anthropic SDK."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import anthropic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core.errors import InvalidRequest, UnsupportedParameter
from llm_service.formats import json_schema as schemas

NAMES = st.sampled_from(["a", "b", "city"])
EXTRAS = st.fixed_dictionaries(
    {},
    optional={
        "description": st.sampled_from(["What it is", ""]),
        "title": st.just("T"),
        "minLength": st.integers(0, 3),
        "minimum": st.integers(0, 3),
        "minItems": st.integers(0, 3),
        "format": st.sampled_from(["date", "uri", "phone"]),
        "enum": st.sampled_from([["x", "y"], [1, None], [[1]], []]),
        "const": st.sampled_from(["x", {"a": 1}]),
        "pattern": st.just("^a"),
        "additionalProperties": st.just(False),
        "required": st.just(["a"]),
        "default": st.just(3),
    },
)
LEAVES = st.builds(
    lambda kind, extra: {"type": kind, **extra},
    st.sampled_from(["string", "integer", "number", "boolean", "null", "array"]),
    EXTRAS,
)


def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    properties = st.dictionaries(NAMES, inner, max_size=2)
    return (
        st.builds(lambda p, extra: {"type": "object", "properties": p, **extra}, properties, EXTRAS)
        | st.builds(lambda i, extra: {"type": "array", "items": i, **extra}, inner, EXTRAS)
        | st.builds(lambda word, v, extra: {word: v, **extra}, st.sampled_from(["anyOf", "oneOf", "allOf"]),
                    st.lists(inner, min_size=1, max_size=2), EXTRAS)
    )  # fmt: skip


@settings(deadline=None)  # the machine may be busy
@given(
    st.recursive(LEAVES | st.just({"$ref": "#/$defs/x"}), nested, max_leaves=8)
    .map(lambda schema: {"$defs": {"x": {"type": "string"}}, **schema})
)  # fmt: skip
def test_a_schema_is_transformed_as_by_anthropics_sdk(schema: dict[str, Any]) -> None:
    given_schema = copy.deepcopy(schema)
    assert schemas.for_anthropic(schema, "schema") == anthropic.transform_schema(copy.deepcopy(schema))
    assert schema == given_schema  # the client's body is not touched


def test_a_list_of_types_becomes_its_variants() -> None:
    schema = {"type": ["string", "null"], "description": "D", "format": "date"}
    assert schemas.for_anthropic(schema, "s") == {
        "description": "D",
        "anyOf": [{"type": "string", "format": "date"}, {"type": "null"}],
    }


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "object", "properties": {"a": {}}}, "s.properties.a"),
        ({"type": "array", "items": {"type": "strange"}}, "s.items"),
        ({"anyOf": [{"type": "null"}, {"enum": []}]}, "s.anyOf[1]"),
        ({"type": "object", "properties": []}, "s.properties"),
        ({"type": "object", "properties": {"a": 3}}, "s.properties.a"),
        ({"$defs": {"x y": {}}, "$ref": "#/$defs/x y"}, "s.$defs.(unnamed)"),
        ({"$ref": "#/$defs/x"}, "s.$ref"),
        ({"type": "array", "items": {"$ref": "https://example.com/x"}}, "s.items.$ref"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, "s.$defs.part_1"),
        ({"$defs": {"a": {"$ref": "#/definitions/b"}}, "definitions": {"b": {"$ref": "#/$defs/a"}}}, "s.$defs.b"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "s.additionalProperties"),
        (
            {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": True}}},
            "s.properties.a.additionalProperties",
        ),
        ({"type": "object", "properties": {}, "additionalProperties": {}}, "s.additionalProperties"),
        ({"type": "object", "properties": {}, "patternProperties": {"^a": {"type": "null"}}}, "s.patternProperties"),
        ({"type": "array", "items": {"type": "object"}}, "s.items.properties"),
        ([], "s"),
    ],
)
def test_a_schema_that_cannot_be_translated_is_rejected_by_the_path_in_it(schema: Any, place: str) -> None:
    with pytest.raises((InvalidRequest, UnsupportedParameter)) as refusal:
        schemas.for_anthropic(schema, "s")
    assert refusal.value.param == place


def test_references_are_written_into_definitions() -> None:
    part = {"type": "string"}
    schema = {
        "type": "object",
        "properties": {
            "a": part,
            "b": {"$ref": "#/properties/a"},
            "c": {"$ref": "#/definitions/c"},
            "d": {"const": {"$ref": "#/nowhere"}, "type": "object", "properties": {}},
        },
        "definitions": {"c": {"type": "array", "items": {"$ref": "#/properties/a"}}},
    }
    written = schemas.for_anthropic(schema, "s")
    assert written["$defs"] == {"part_1": part, "c": {"type": "array", "items": {"$ref": "#/$defs/part_1"}}}
    assert written["properties"]["b"] == {"$ref": "#/$defs/part_1"}
    assert written["properties"]["c"] == {"$ref": "#/$defs/c"}
    assert "definitions" not in written


def test_a_long_chain_of_references_is_written() -> None:
    names = [f"p{number}" for number in range(2000)]
    properties: dict[str, Any] = {
        name: {"type": "array", "items": {"$ref": f"#/properties/{after}"}} for name, after in itertools.pairwise(names)
    }
    properties[names[-1]] = {"type": "null"}
    assert len(schemas.for_anthropic({"type": "object", "properties": properties}, "s")["$defs"]) == 1999


CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (CLOSED, True),
        ({**CLOSED, "required": []}, False),
        ({**CLOSED, "additionalProperties": True}, False),
        ({"type": "object"}, False),
        ({"type": "string"}, True),
        ({"type": "array", "items": CLOSED}, True),
        ({"type": "array", "items": {"type": "object", "properties": {}}}, False),
        ({**CLOSED, "properties": {"a": {"anyOf": [{"type": "null"}, {**CLOSED, "required": []}]}}}, False),
        ({"$defs": {"x": {**CLOSED, "required": []}}, "$ref": "#/$defs/x"}, False),
        ({**CLOSED, "properties": {"a": {"enum": [{"type": "object"}]}}}, True),
        ({**CLOSED, "properties": {"a": {"type": "string", "default": "x"}}}, False),
        ({**CLOSED, "properties": {"a": {"type": "string", "format": "uri"}}}, False),
        ({**CLOSED, "properties": {"a": {"type": "string", "format": "date", "pattern": "^a"}}}, True),
        ({**CLOSED, "properties": {"a": {"type": "string", "pattern": "^(?!a)"}}}, False),
        ({**CLOSED, "properties": {"a": {"oneOf": [{"type": "null"}]}}}, False),
        (
            {
                "type": "object",
                "properties": {"default": {"type": "null"}},
                "required": ["default"],
                "additionalProperties": False,
            },
            True,
        ),
    ],
)
def test_only_closed_and_complete_schemas_are_strict(schema: Any, strict: bool) -> None:
    assert schemas.is_strict(schema) is strict
