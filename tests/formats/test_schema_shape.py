"""Schemas of clients whose keywords have a wrong shape are rejected by their path, and never break the service."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_service.core.content import Tool
from llm_service.core.errors import InvalidRequest, ServiceError
from llm_service.formats import json_schema, schema_shape, tool_schemas

KEYWORDS = sorted(schema_shape._CHECKED | {"const", "default", "minimum", "exclusiveMinimum", "required"})
ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.sampled_from(["", "x", "object", "array", "#/$defs/a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*KEYWORDS, "a"]), inner, max_size=3),
    max_leaves=8,
)
SCHEMAS = st.dictionaries(st.sampled_from(KEYWORDS), ODD, max_size=4)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"properties": 5}, "p.properties"),
        ({"properties": [None]}, "p.properties"),
        ({"properties": {"a": 5}}, "p.properties.a"),
        ({"properties": {"a": {"type": [["x"]]}}}, "p.properties.a.type"),
        ({"type": 5}, "p.type"),
        ({"required": True}, "p.required"),
        ({"required": [[]]}, "p.required"),
        ({"required": "a"}, "p.required"),
        ({"anyOf": {}}, "p.anyOf"),
        ({"anyOf": [{"items": 5}]}, "p.anyOf[0].items"),
        ({"items": [{}, {"enum": 5}]}, "p.items[1].enum"),
        ({"$defs": {"a": {"$ref": 5}}}, "p.$defs.a.$ref"),
        ({"additionalProperties": {"pattern": 5}}, "p.additionalProperties.pattern"),
        ({"description": 5}, "p.description"),
        ([], "p"),
    ],
)
def test_a_keyword_of_a_wrong_shape_is_named(schema: Any, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        schema_shape.check(schema, "p")
    assert caught.value.param == path


@pytest.mark.parametrize("schema", [{"properties": []}, {"properties": {"a": {"required": True}}}, {"type": None}])
def test_a_tool_may_have_what_older_clients_write(schema: Any) -> None:
    schema_shape.check(schema, "p", older=True)


@pytest.mark.parametrize("branches", [2, 50])
def test_variants_that_refer_to_each_other_are_read_a_limited_number_of_times(branches: int) -> None:
    definitions: dict[str, Any] = {
        f"d{number}": {"anyOf": [{"$ref": f"#/$defs/d{number + 1}"}] * branches} for number in range(18)
    }
    definitions["d18"] = {"properties": {"a": {}}}
    schema = {"anyOf": [{"$ref": "#"}, {"$ref": "#/$defs/d0"}], "$defs": definitions}
    started = time.process_time()
    assert tool_schemas.fit(Tool("look", None, schema, path="p")).schema
    assert time.process_time() - started < 2  # reading each of them would take minutes


@given(SCHEMAS)
def test_a_schema_of_any_shape_is_rewritten_or_rejected(schema: dict[str, Any]) -> None:
    for complete in (True, False):
        with suppress(ServiceError):
            tool_schemas.fit(Tool("look", None, schema, path="p"), complete=complete)
    with suppress(ServiceError):
        schema_shape.check(schema, "p")
        json_schema.is_strict(schema)
        json_schema.for_anthropic(schema, "p")
