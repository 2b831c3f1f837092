"""Wrong bodies and fields: the answer is a 4xx in the route's own error shape, names the field and has a row."""

from __future__ import annotations

from typing import Any

import pytest

from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats.small import simple
from tests.api.error_shapes import ROUTES, read_error, shape_of, valid_body
from tests.api.sender import Sender
from tests.support.server import Server
from tests.upstream import Upstream

SCHEMAS: dict[str, Any] = {
    "simple": simple.RequestSchema,
    "chat": chat.RequestSchema,
    "messages": messages.RequestSchema,
}

# ---- bodies that are not a valid JSON object


MALFORMED: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"model=echo&prompt=Hi", "line 1, column 1"),
    "cut JSON": (b'{"model": "echo", "prompt": "H', "line 1"),
    "empty": (b"", "empty"),
    "blank": (b" \n ", "empty"),
    "not UTF-8": (b'{"model": "echo", "prompt": "\xff"}', "UTF-8 at byte 29"),
    "UTF-16": ('{"model": "echo"}'.encode("utf-16"), "UTF-8 at byte 0"),
    "UTF-8 with a byte order mark": (b'\xef\xbb\xbf{"model": "echo"}', "line 1, column 1"),
    "NUL": (b'{"model": "echo", "prompt": "\x00"}', "line 1"),
    "NUL bytes": (b"\x00" * 100, "line 1, column 1"),
    "nested 100,000 deep": (b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "line 1"),
    "nested 300 deep": (b'{"model": ' + b"[" * 300 + b"]" * 300 + b"}", "nested more than 200 levels"),
    "5,000 digits": (b'{"max_tokens": ' + b"9" * 5000 + b"}", "line 1, column 16"),
    "NaN": (b'{"temperature": NaN}', "line 1"),
    "Infinity": (b'{"temperature": -Infinity}', "line 1"),
    "20 digits": (b'{"max_tokens": 99999999999999999999}', "more than 64 bits at byte 15"),
    "1e999": (b'{"temperature": 1e999}', "line 1"),
    "a name twice": (b'{"model": "echo", "model": "echo"}', "a field twice, before byte 25"),
    "a list": (b'[{"model": "echo"}]', "must be a JSON object"),
    "a string": (b'"echo"', "must be a JSON object"),
    "null": (b"null", "must be a JSON object"),
    "two objects": (b'{"model": "echo"} {"model": "echo"}', "line 1"),
}


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_that_is_not_a_valid_object_is_rejected_with_the_reason(sender: Sender, path: str) -> None:
    for name, (body, reason) in MALFORMED.items():
        reply = sender.send("POST", path, body)
        assert reply.status == 400, name
        code, message, _ = read_error(shape_of(path), reply)
        assert code == ("invalid_request" if path != "/v1/chat/completions" else None), name
        assert reason in message, (name, message)


def test_an_escaped_nul_is_ordinary_content(any_service: Server) -> None:
    reply = any_service.http().post("/v1/complete", json={"model": "echo", "prompt": "a\x00b", "system": "\x00"})
    assert reply.json()["text"] == "a\x00b"
    assert any_service.row(reply.headers["x-request-id"])["outcome"] == "ok"
    unknown = any_service.http().post("/v1/complete", json={"model": "no\x00pe", "prompt": "a"})
    assert unknown.status_code == 404
    assert any_service.row(unknown.headers["x-request-id"])["model_asked"] is None


# ---- fields


WRONG_TYPES: dict[str, Any] = {
    "Word": 7,
    "Integer": "5",
    "Number": "0.5",
    "Flag": "true",
    "JsonObject": [],
    "JsonList": {},
    "StopSequences": 7,
    "StreamOptions": [],
    "SystemPrompt": 7,
    "Messages": {"role": "user"},
}


@pytest.mark.parametrize("path", ROUTES)
def test_a_field_of_a_wrong_type_is_rejected_by_its_name(sender: Sender, path: str) -> None:
    for name, field in SCHEMAS[shape_of(path)]().fields.items():
        reply = sender.send("POST", path, valid_body(**{name: WRONG_TYPES[type(field).__name__]}))
        assert reply.status == 400, name
        _, message, param = read_error(shape_of(path), reply)
        assert param == name and name in message


def turn(*, role: Any = "user", content: Any = "Hi") -> dict[str, Any]:
    return {"role": role, "content": content}


# For every format: the wrong fields, and the path that the error must name.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": ["Hi"]}, "messages[0]"),
    ({"messages": [turn(), None]}, "messages[1]"),
    ({"messages": [turn(role="robot")]}, "messages[0].role"),
    ({"messages": [turn(role=None)]}, "messages[0].role"),
    ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
    ({"messages": [turn(role=["user"])]}, "messages[0].role"),
    ({"messages": [turn(role={"a": 1})]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [turn(), turn(content=None)]}, "messages[1].content"),
    ({"messages": [turn(content=7)]}, "messages[0].content"),
    ({"messages": [turn(content={"type": "text"})]}, "messages[0].content"),
    ({"model": ""}, "model"),
    ({"model": "x" * 257}, "model"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 10**12}, "max_tokens"),
    ({"max_tokens": 2**64 - 1}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": False}, "temperature"),
    ({"top_p": 1.01}, "top_p"),
    ({"stream": 1}, "stream"),
]
WRONG_IN_FORMAT: dict[str, list[tuple[dict[str, Any], str]]] = {
    "simple": [
        ({"messages": ...}, "prompt"),
        ({"prompt": "Hi"}, "prompt"),  # together with messages
        ({"messages": ..., "prompt": ""}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": [turn(), turn(role="assistant")]}, "messages[1].role"),
        ({"messages": [turn(content=[{"type": "text", "text": "Hi"}])]}, "messages[0].content"),
        ({"stop": [""]}, "stop"),
        ({"stop": [7]}, "stop"),
        ({"shiny": 1}, "shiny"),
        ({"a b\u2028": 1}, "(unnamed)"),
    ],
    "chat": [
        ({"model": ...}, "model"),
        ({"messages": ...}, "messages"),
        ({"messages": None}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options"),
        ({"messages": [turn(content=["Hi"])]}, "messages[0].content[0]"),
        ({"messages": [turn(content=[{"text": "Hi"}])]}, "messages[0].content[0].type"),
        ({"messages": [turn(content=[{"type": "text", "text": 7}])]}, "messages[0].content[0].text"),
        ({"messages": [turn(content=[])]}, "messages[0].content"),
    ],
    "messages": [
        ({"model": ...}, "model"),
        ({"messages": ...}, "messages"),
        ({"messages": None}, "messages"),
        ({"max_tokens": ...}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"temperature": 1.1}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"messages": [turn(role="assistant")]}, "messages[0].role"),
        ({"messages": [turn(role="tool")]}, "messages[0].role"),
        ({"messages": [turn(content=["Hi"])]}, "messages[0].content[0]"),
        ({"messages": [turn(content=[{"type": 7}])]}, "messages[0].content[0].type"),
        ({"system": [{"type": "text"}]}, "system[0].text"),
        ({"system": ["Hi"]}, "system[0]"),
        ({"stop_sequences": "END"}, "stop_sequences"),
    ],
}


@pytest.mark.parametrize("path", ROUTES)
def test_a_wrong_value_is_rejected_by_its_path(sender: Sender, path: str) -> None:
    for extra, param in [*WRONG, *WRONG_IN_FORMAT[shape_of(path)]]:
        reply = sender.send("POST", path, valid_body(**extra))
        assert reply.status == 400, extra
        _, message, named = read_error(shape_of(path), reply)
        assert named == param and param in message, (extra, message)


@pytest.mark.parametrize("path", ROUTES)
def test_an_unknown_model_is_not_found(sender: Sender, upstream: Upstream, path: str) -> None:
    for name in ("nobody", "nobody/knows", "openai/", "/", "../../etc/passwd", "echo/", "日本語", "a\x00"):
        reply = sender.send("POST", path, valid_body(model=name))
        assert reply.status == 404, name
        code, _, param = read_error(shape_of(path), reply)
        assert (code, param) == ("model_not_found", "model")
    assert upstream.requests == []
