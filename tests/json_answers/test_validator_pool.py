"""The validator processes: their verdicts, and that neither a text nor a schema can block them for long."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.json_answers.validator_pool import Undecided, ValidatorPool
from llm_service.json_answers.validator_process import SECONDS
from tests.support.wait import wait_until

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "places": {"type": "array", "items": {"type": "integer"}}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def pool() -> Iterator[ValidatorPool]:
    pool = ValidatorPool()
    yield pool
    pool.close()


def validate(pool: ValidatorPool, text: str, schema: Any = SCHEMA, *, repair: bool = True) -> dict[str, Any]:
    return pool.validate(text, None if schema is None else json.dumps(schema), repair=repair)


def test_a_valid_text_is_not_changed(pool: ValidatorPool) -> None:
    assert validate(pool, ' {"city": "Zürich"}\n') == {"verdict": "valid"}


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"city": "Zürich"}\n```',
        "{'city': 'Zürich'}",
        '{city: "Zürich"}',
        '{"city": "Zürich",}',
        '{"city": "Zürich"',
        'Here you are: {"city": "Zürich"} Anything else?',
        '{"city": "Zürich"} // done',
    ],
)
def test_a_text_that_is_nearly_json_is_repaired(pool: ValidatorPool, text: str) -> None:
    verdict = validate(pool, text)
    assert (verdict["verdict"], json.loads(verdict["text"])) == ("repaired", {"city": "Zürich"})
    assert validate(pool, text, repair=False)["verdict"] == "wrong"


@pytest.mark.parametrize("text", ["", " ", "I am sorry.", "null and void", "{", "[[", '"', "nan", "\u0000"])
def test_prose_is_not_repaired(pool: ValidatorPool, text: str) -> None:
    verdict = validate(pool, text, {})
    assert (verdict["verdict"], verdict["path"], verdict["rule"]) == ("wrong", "$", "syntax")


@pytest.mark.parametrize(
    ("text", "path", "rule"),
    [
        ('{"city": 7}', "$.city", "type"),
        ('{"city": "x", "places": [1, "zebra"]}', "$.places[1]", "type"),
        ("{}", "$", "required"),
        ('{"city": "x", "zebra": 1}', "$", "additionalProperties"),
        ("[1]", "$", "type"),
        ("{'city': 7", "$.city", "type"),
    ],
)
def test_a_violated_rule_is_named_with_its_path(pool: ValidatorPool, text: str, path: str, rule: str) -> None:
    verdict = validate(pool, text)
    assert (verdict["verdict"], verdict["path"], verdict["rule"]) == ("wrong", path, rule)
    assert "zebra" not in verdict["path"] + verdict["rule"]
    assert len(verdict["error"]) > len(path)


def test_a_name_that_only_the_model_uses_is_not_in_the_path(pool: ValidatorPool) -> None:
    verdict = validate(pool, '{"zebra": {"unicorn": 1}}', {"additionalProperties": {"additionalProperties": False}})
    assert (verdict["path"], verdict["rule"]) == ("$.*", "additionalProperties")


def test_any_object_is_valid_without_a_schema(pool: ValidatorPool) -> None:
    assert validate(pool, '{"any": 1}', None) == {"verdict": "valid"}
    assert validate(pool, "[1]", None)["rule"] == "type"
    assert validate(pool, "{any: 1}", None)["verdict"] == "repaired"


def test_no_value_is_invented_to_match_a_schema(pool: ValidatorPool) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "default": 3}}, "required": ["n"]}
    assert validate(pool, "{n: '3'}", schema)["path"] == "$.n"
    assert validate(pool, "{m: 1}", schema)["rule"] == "required"


def test_the_draft_is_the_one_that_the_schema_names(pool: ValidatorPool) -> None:
    older_tuple = {"items": [{"type": "integer"}], "additionalItems": False}
    old = {"$schema": "http://json-schema.org/draft-07/schema#", **older_tuple}
    assert validate(pool, "[1, 2]", old)["rule"] == "additionalItems"
    assert validate(pool, "[1, 2]", {"prefixItems": [True], "items": False})["verdict"] == "wrong"


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "objekt"}, "is not a valid JSON schema"),
        ({"properties": 7}, "is not a valid JSON schema"),
        ({"$schema": ["x"]}, "$schema"),
        ({"$ref": "https://example.com/schema.json"}, "nothing is fetched"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "nothing is fetched"),
        ({"$ref": "#/$defs/none"}, "not in it"),
        ({"$ref": "http://[broken"}, "not in it"),
    ],
)
def test_an_unusable_schema_is_reported(pool: ValidatorPool, schema: Any, why: str) -> None:
    assert why in (pool.examine(json.dumps(schema)) or "")


def test_references_within_a_schema_are_followed(pool: ValidatorPool) -> None:
    tree = {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    assert pool.examine(json.dumps(tree)) is None
    assert validate(pool, "[[[]], []]", tree) == {"verdict": "valid"}
    assert validate(pool, "[[[1]], []]", tree)["path"] == "$[0][0][0]"
    assert pool.examine(json.dumps({"const": {"$ref": "data"}, "properties": {"$ref": {"type": "string"}}})) is None


# ---- time and space


TOWER = {"$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}}}


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("{" * 16_000, {}),
        ("{a:b," * 4_000, {}),
        (json.dumps("a" * 40 + "b"), {"pattern": "^(a+)+$"}),
        ("1", {**TOWER, "$ref": "#/$defs/d0"}),
        (json.dumps([[n] for n in range(30_000)] + [{}]), {"uniqueItems": True}),
    ],
    ids=["braces", "pairs", "expression", "tower", "unique"],
)
def test_a_job_that_takes_too_long_is_undecided_and_the_next_job_works(text: str, schema: Any) -> None:
    pool = ValidatorPool()
    start = time.monotonic()
    with pytest.raises(Undecided):
        validate(pool, text, schema)
    assert time.monotonic() - start < SECONDS + 8
    assert validate(pool, '{"city": "x"}') == {"verdict": "valid"}
    pool.close()


@pytest.mark.parametrize(("text", "schema"), [("1", {"$ref": "#"}), ("[" * 50_000, {}), ('{"a":' * 2_000, {})])
def test_deep_nesting_does_no_harm(pool: ValidatorPool, text: str, schema: Any) -> None:
    try:
        assert validate(pool, text, schema)["verdict"] in ("wrong", "repaired")
    except Undecided:
        pass
    assert validate(pool, '{"city": "x"}') == {"verdict": "valid"}


def test_processes_work_in_parallel_and_one_stays() -> None:
    pool = ValidatorPool(maximum=3)
    with ThreadPoolExecutor(8) as threads:
        verdicts = list(threads.map(lambda n: validate(pool, f'{{"city": "{n}"'), range(24)))
    assert [json.loads(verdict["text"])["city"] for verdict in verdicts] == [str(n) for n in range(24)]
    assert len(pool._idle) == 1
    pool.close()


def test_a_process_that_ended_is_replaced() -> None:
    pool = ValidatorPool()
    validate(pool, "{}")
    process = pool._idle[0]._process
    process.kill()
    wait_until(lambda: process.poll() is not None, 5, "the end of the process", 0.01)
    assert validate(pool, '{"city": "x"}') == {"verdict": "valid"}
    pool.close()


def test_a_process_ends_when_the_server_closes_its_socket() -> None:
    pool = ValidatorPool()
    validate(pool, "{}")
    process = pool._idle[0]
    process._sock.close()
    assert process._process.wait(10) == 0


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)


PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=9)


@settings(max_examples=60, deadline=None)
@given(value=st.recursive(PLAIN, nested, max_leaves=8), cut=st.integers(0, 30))
def test_any_json_is_valid_and_any_piece_of_it_gets_a_verdict(pool: ValidatorPool, value: Any, cut: int) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert validate(pool, text, {}) == {"verdict": "valid"}
    verdict = validate(pool, text[:cut], {})
    if verdict["verdict"] == "repaired":
        assert json.loads(verdict["text"])
