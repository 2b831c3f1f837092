"""The checks of every request: JSON that can be written again unchanged, and fields of the right type."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core.errors import InvalidRequest
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats import schema_fields as fields
from llm_service.formats.json_body import MAX_DEPTH
from llm_service.formats.small import simple

MARKER = "MARKER7f3a"

REFUSED_BODIES = {
    "nothing": (b"", "empty"),
    "white space": (b" \r\n\t", "empty"),
    "no JSON": (b'{"a": %s}' % MARKER.encode(), "line 1, column 7"),
    "an error on a later line": (b'{"a": 1,\n\n "b": %s}' % MARKER.encode(), "line 3, column 7"),
    "a trailing comma": (b'{"a": 1,}', "line 1, column 8"),
    "two documents": (b'{"a": 1} {}', "line 1, column 10"),
    "a form": (b"prompt=%s&model=x" % MARKER.encode(), "line 1, column 1"),
    "invalid UTF-8": (b'{"a": "%s\xff"}' % MARKER.encode(), "byte 17"),
    "a raw surrogate": (b'{"a": "\xed\xa0\x80"}', "byte 7"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "byte 0"),
    "a byte order mark": (b'\xef\xbb\xbf{"a": 1}', "line 1, column 1"),
    "an error after half a character": (b'{"a": "\\ud800", b}', "line 1, column"),
    "a name given twice with half a character": (b'{"\\ud800":1,"\\ud801":2}', "twice"),
    "a raw NUL": (b'{"a": "\x00"}', "line 1, column 8"),
    "100,000 lists": (b'{"a":' + b"[" * 100_000, "line 1, column"),
    "100,000 objects": (b'{"a":' * 100_000, "line 1, column"),
    "nested one level too deep": (b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "200 levels deep at byte 204"),
    "too deep for our own writer": (b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", "200 levels deep at byte 204"),
    "5,000 digits": (b'{"a":' + b"9" * 5000 + b"}", "line 1, column 6"),
    "300 digits": (b'{"a":' + b"9" * 300 + b"}", "64 bits at byte 5"),
    "65 bits": (b'{"a": 18446744073709551616}', "64 bits at byte 6"),
    "negative 64 bits": (b'{"a": -9223372036854775809}', "64 bits at byte 6"),
    "an infinite number": (b'{"a":1e400}', "line 1, column 6"),
    "NaN": (b'{"a":NaN}', "line 1, column 6"),
    "Infinity": (b'{"a":-Infinity}', "line 1, column"),
    "a name given twice": (b'{"a":1,"b":2,"a":3}', "twice, before byte 16"),
    "a name given twice in disguise": (b'{"a":1,"\\u0061":2}', "twice, before byte 15"),
    "a name given twice further in": (b'{"x":"\\\\\\"","y":[{"a\\"":1}, {"a\\"":1,"a\\"":2}]}', "twice"),
    "a list": (b"[1]", "must be a JSON object"),
    "a string": (b'"%s"' % MARKER.encode(), "must be a JSON object"),
    "null": (b"null", "must be a JSON object"),
}


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        (rb"\ud83d", "\ufffd"),
        (rb"a\uDE00b", "a\ufffdb"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\ude00\ud83d", "\ufffd\ufffd"),
        (rb"\ud83d\n\ude00", "\ufffd\n\ufffd"),
        (rb"\\ud83d\ud83d", "\\ud83d\ufffd"),
        (rb"\"\ud83d", '"\ufffd'),
    ],
)
def test_half_a_character_that_an_answer_ended_with_is_read_as_a_replacement(raw: bytes, read: str) -> None:
    assert fields.load_json(b'{"a": "' + raw + b'"}') == {"a": read}
    assert fields.load_json(b'{"' + raw + b'":["' + raw + b'"]}') == {read: [read]}


@pytest.mark.parametrize("what", REFUSED_BODIES)
def test_a_body_that_is_not_one_valid_object_is_rejected_with_the_position(what: str) -> None:
    raw, place = REFUSED_BODIES[what]
    with pytest.raises(InvalidRequest) as refusal:
        fields.load_json(raw)
    assert place in refusal.value.message
    assert MARKER not in refusal.value.message
    # A parser's error holds the whole document: no traceback may reach it.
    assert refusal.value.__cause__ is None
    assert refusal.value.__context__ is None or refusal.value.__suppress_context__
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":18446744073709551615,"b":-9223372036854775808}',
        b'{ "a" : 1.5 , "b" : -0.0 , "c" : 1e2 }',
        b'{"a":"\\u0000 \\ud83d\\ude00 \\"\\\\"}',
        b'{"a":{"x":1},"b":{"x":1},"x":[{"x":1},{"x":1}]}',
        b'{"a":"id 99999999999999999999999, really"}',
        b'{"a":3.14159265358979323846264338327950288}',
        b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}",
        b'{"a":[' + b"[]," * 1000 + b"{}]}",
    ],
)
def test_a_valid_body_is_read_as_by_the_standard_parser(raw: bytes) -> None:
    body = fields.load_json(raw)
    assert body == json.loads(raw)
    assert orjson.loads(orjson.dumps(body)) == body


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.text(), JSON, max_size=4), st.booleans(), st.sampled_from([None, 2]))
def test_a_body_that_is_written_again_is_unchanged(body: dict[str, Any], ascii_only: bool, indent: int | None) -> None:
    raw = json.dumps(body, ensure_ascii=ascii_only, indent=indent, allow_nan=False).encode()
    read = fields.load_json(raw)
    assert read == body
    assert orjson.loads(orjson.dumps(read)) == json.loads(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":[' + b"[]," * 500_001 + b"1]}",  # too many to read
        b'{"a":[' + b"1, " * 1_000_001 + b"1234567890123456789]}",  # too many to search for what would be lost
    ],
)
def test_a_body_that_would_block_the_worker_is_rejected(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="too many values"):
        fields.load_json(raw)


CHECKS = {"simple": simple, "chat": chat, "messages": messages}
TURN = {"role": "user", "content": "Hello"}


def body_for(format: str, **fields: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"model": "m", "messages": [TURN]}
    if format == "messages":
        base["max_tokens"] = 10
    return {**base, **fields}


def problem(format: str, body: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refusal:
        CHECKS[format].check(body)
    return refusal.value


WRONG: list[tuple[str, Any, str | None]] = [
    ("model", "", None),
    ("model", "  ", None),
    ("model", "m" * 257, None),
    ("model", 3, None),
    ("model", ["m"], None),
    ("messages", [], None),
    ("messages", "Hello", None),
    ("messages", {"0": TURN}, None),
    ("messages", [3], "messages[0]"),
    ("messages", [TURN, None], "messages[1]"),
    ("messages", [{"content": "x"}], "messages[0].role"),
    ("messages", [{"role": MARKER, "content": "x"}], "messages[0].role"),
    ("messages", [{"role": ["user"], "content": "x"}], "messages[0].role"),
    ("messages", [{"role": {}, "content": "x"}], "messages[0].role"),
    ("messages", [{"role": "user"}], "messages[0].content"),
    ("messages", [{"role": "user", "content": None}], "messages[0].content"),
    ("messages", [TURN, TURN, {"role": "user", "content": 3}], "messages[2].content"),
    ("messages", [{"role": "user", "content": {"text": MARKER}}], "messages[0].content"),
    ("temperature", "1", None),
    ("temperature", True, None),
    ("temperature", -0.1, None),
    ("temperature", 2.1, None),
    ("temperature", float("nan"), None),
    ("temperature", float("inf"), None),
    ("temperature", 10**30, None),
    ("top_p", 1.01, None),
    ("top_p", [], None),
    ("max_tokens", -1, None),
    ("max_tokens", 1.0, None),
    ("max_tokens", "10", None),
    ("max_tokens", True, None),
    ("max_tokens", 1_000_000_001, None),
    ("max_tokens", 2**63, None),
    ("stream", 1, None),
    ("stream", "true", None),
]


@pytest.mark.parametrize("format", CHECKS)
@pytest.mark.parametrize(("field", "value", "param"), WRONG)
def test_a_wrong_field_is_named_with_its_rule_and_without_its_value(
    format: str, field: str, value: Any, param: str | None
) -> None:
    error = problem(format, body_for(format, **{field: value}))
    assert error.param == (param or field)
    assert error.message.startswith(f"{error.param} ")
    assert error.message.endswith(".")
    assert MARKER not in error.message


@pytest.mark.parametrize("format", CHECKS)
@pytest.mark.parametrize("body", [None, [], "text", 3, [{"model": "m"}]])
def test_a_body_that_is_not_an_object_is_rejected(format: str, body: Any) -> None:
    error = problem(format, body)
    assert (error.param, error.message) == (None, "The request body must be a JSON object.")


@pytest.mark.parametrize("format", ["chat", "messages"])
@pytest.mark.parametrize(
    ("content", "param"),
    [
        ([3], "messages[0].content[0]"),
        ([{"type": "text", "text": "x"}, {}], "messages[0].content[1].type"),
        ([{"type": 7}], "messages[0].content[0].type"),
    ],
)
def test_a_wrong_content_part_is_named_by_its_path(format: str, content: Any, param: str) -> None:
    error = problem(format, body_for(format, messages=[{"role": "user", "content": content}]))
    assert error.param == param


@pytest.mark.parametrize("format", ["chat", "messages"])
def test_a_missing_model_is_named(format: str) -> None:
    error = problem(format, {"messages": [TURN], "max_tokens": 1})
    assert (error.param, error.message) == ("model", "model is required.")


@pytest.mark.parametrize("format", CHECKS)
def test_null_counts_as_absent_and_the_body_is_not_changed(format: str) -> None:
    body = body_for(format, temperature=None, top_p=None, stream=None)
    assert CHECKS[format].check(body) is body


@pytest.mark.parametrize("format", CHECKS)
def test_nul_characters_in_content_are_accepted(format: str) -> None:
    body = body_for(format, messages=[{"role": "user", "content": "a\x00b"}])
    assert CHECKS[format].check(body) is body
    assert CHECKS[format].read_request(body).messages[0].text == "a\x00b"


@pytest.mark.parametrize("format", ["chat", "messages"])
def test_unknown_fields_of_a_vendor_are_accepted(format: str) -> None:
    body = body_for(format, brand_new={"a": [1]}, tools=[{"type": "x"}])
    assert CHECKS[format].check(body) is body


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.text(), JSON, max_size=3), st.sampled_from(sorted(CHECKS)), JSON)
def test_no_body_makes_a_check_fail_with_another_error(extra: dict[str, Any], format: str, content: Any) -> None:
    body = {**body_for(format, messages=[{"role": "user", "content": content}]), **extra}
    refused: InvalidRequest | None = None
    try:
        conversation = CHECKS[format].read_request(CHECKS[format].check(body))
    except InvalidRequest as refusal:
        refused = refusal
    if refused is None:
        assert conversation.messages
    else:
        assert refused.param is None or refused.param in refused.message


def test_an_unnameable_field_is_not_quoted() -> None:
    error = problem("simple", {"prompt": "x", f"{MARKER} with spaces": 1})
    assert (error.param, error.message) == ("(unnamed)", "(unnamed) is not a field of this route.")


@pytest.mark.parametrize("format", CHECKS)
def test_the_schema_has_a_description_for_openapi(format: str) -> None:
    spec = APISpec("t", "1", "3.1.0", plugins=[MarshmallowPlugin()])
    spec.components.schema("Body", schema=CHECKS[format].RequestSchema)
    described = spec.to_dict()["components"]["schemas"]["Body"]
    listed = described["properties"]
    assert listed["messages"]["items"]["properties"]["role"]["enum"]
    assert listed["temperature"]["maximum"] == (1 if format == "messages" else 2)
    assert all(field.get("description") for field in listed.values())
    assert described.get("required", []) == {"simple": [], "messages": ["max_tokens", "messages", "model"]}.get(
        format, ["messages", "model"]
    )
