"""The judges: what they say of a text, and that neither a text nor a schema holds anybody up for long."""

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
def judges() -> Iterator[ValidatorPool]:
    judges = ValidatorPool()
    yield judges
    judges.close()


def judge(judges: ValidatorPool, text: str, schema: Any = SCHEMA, *, mend: bool = True) -> dict[str, Any]:
    return judges.judge(text, None if schema is None else json.dumps(schema), mend=mend)


def test_what_is_right_is_left_alone(judges: ValidatorPool) -> None:
    assert judge(judges, ' {"city": "Zürich"}\n') == {"verdict": "valid"}


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
def test_what_is_nearly_json_is_mended(judges: ValidatorPool, text: str) -> None:
    verdict = judge(judges, text)
    assert (verdict["verdict"], json.loads(verdict["text"])) == ("mended", {"city": "Zürich"})
    assert judge(judges, text, mend=False)["verdict"] == "wrong"


@pytest.mark.parametrize("text", ["", " ", "I am sorry.", "null and void", "{", "[[", '"', "nan", "\u0000"])
def test_prose_is_not_mended(judges: ValidatorPool, text: str) -> None:
    verdict = judge(judges, text, {})
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
def test_a_broken_rule_is_named_with_its_place(judges: ValidatorPool, text: str, path: str, rule: str) -> None:
    verdict = judge(judges, text)
    assert (verdict["verdict"], verdict["path"], verdict["rule"]) == ("wrong", path, rule)
    assert "zebra" not in verdict["path"] + verdict["rule"]
    assert len(verdict["told"]) > len(path)


def test_a_name_of_the_model_s_own_is_not_in_the_path(judges: ValidatorPool) -> None:
    verdict = judge(judges, '{"zebra": {"unicorn": 1}}', {"additionalProperties": {"additionalProperties": False}})
    assert (verdict["path"], verdict["rule"]) == ("$.*", "additionalProperties")


def test_any_object_will_do_without_a_schema(judges: ValidatorPool) -> None:
    assert judge(judges, '{"any": 1}', None) == {"verdict": "valid"}
    assert judge(judges, "[1]", None)["rule"] == "type"
    assert judge(judges, "{any: 1}", None)["verdict"] == "mended"


def test_no_value_is_invented_to_please_a_schema(judges: ValidatorPool) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "default": 3}}, "required": ["n"]}
    assert judge(judges, "{n: '3'}", schema)["path"] == "$.n"
    assert judge(judges, "{m: 1}", schema)["rule"] == "required"


def test_the_draft_is_the_one_that_is_named(judges: ValidatorPool) -> None:
    tuple_of_old = {"items": [{"type": "integer"}], "additionalItems": False}
    old = {"$schema": "http://json-schema.org/draft-07/schema#", **tuple_of_old}
    assert judge(judges, "[1, 2]", old)["rule"] == "additionalItems"
    assert judge(judges, "[1, 2]", {"prefixItems": [True], "items": False})["verdict"] == "wrong"


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
def test_a_schema_that_cannot_be_used_is_told_so(judges: ValidatorPool, schema: Any, why: str) -> None:
    assert why in (judges.examine(json.dumps(schema)) or "")


def test_references_within_a_schema_are_followed(judges: ValidatorPool) -> None:
    tree = {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    assert judges.examine(json.dumps(tree)) is None
    assert judge(judges, "[[[]], []]", tree) == {"verdict": "valid"}
    assert judge(judges, "[[[1]], []]", tree)["path"] == "$[0][0][0]"
    assert judges.examine(json.dumps({"const": {"$ref": "data"}, "properties": {"$ref": {"type": "string"}}})) is None


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
def test_what_takes_too_long_is_undecided_in_time_and_the_next_is_judged(text: str, schema: Any) -> None:
    judges = ValidatorPool()
    began = time.monotonic()
    with pytest.raises(Undecided):
        judge(judges, text, schema)
    assert time.monotonic() - began < SECONDS + 8
    assert judge(judges, '{"city": "x"}') == {"verdict": "valid"}
    judges.close()


@pytest.mark.parametrize(("text", "schema"), [("1", {"$ref": "#"}), ("[" * 50_000, {}), ('{"a":' * 2_000, {})])
def test_what_goes_too_deep_does_no_harm(judges: ValidatorPool, text: str, schema: Any) -> None:
    try:
        assert judge(judges, text, schema)["verdict"] in ("wrong", "mended")
    except Undecided:
        pass
    assert judge(judges, '{"city": "x"}') == {"verdict": "valid"}


def test_judges_work_side_by_side_and_one_stays() -> None:
    judges = ValidatorPool(most=3)
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda n: judge(judges, f'{{"city": "{n}"'), range(24)))
    assert [json.loads(verdict["text"])["city"] for verdict in verdicts] == [str(n) for n in range(24)]
    assert len(judges._idle) == 1
    judges.close()


def test_a_judge_that_was_ended_is_replaced() -> None:
    judges = ValidatorPool()
    judge(judges, "{}")
    process = judges._idle[0]._process
    process.kill()
    wait_until(lambda: process.poll() is not None, 5, "the judge's end", 0.01)
    assert judge(judges, '{"city": "x"}') == {"verdict": "valid"}
    judges.close()


def test_a_judge_ends_with_its_server_s_end_of_the_socket() -> None:
    judges = ValidatorPool()
    judge(judges, "{}")
    held = judges._idle[0]
    held._sock.close()
    assert held._process.wait(10) == 0


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)


PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=9)


@settings(max_examples=60, deadline=None)
@given(value=st.recursive(PLAIN, nested, max_leaves=8), cut=st.integers(0, 30))
def test_any_json_is_right_and_any_piece_of_it_is_judged(judges: ValidatorPool, value: Any, cut: int) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert judge(judges, text, {}) == {"verdict": "valid"}
    verdict = judge(judges, text[:cut], {})
    if verdict["verdict"] == "mended":
        assert json.loads(verdict["text"])
