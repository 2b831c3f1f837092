"""Whatever is sent, the answer is a 4xx in the route's own error shape, names the place, and has its row."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats.small import simple
from tests.api.shapes import ROUTES, read_error, shape_of, sound
from tests.support.raw import Raw, Reply
from tests.support.server import HIGH_RPM, Server
from tests.upstream import Upstream

SCHEMAS: dict[str, Any] = {
    "simple": simple.RequestSchema,
    "chat": chat.RequestSchema,
    "messages": messages.RequestSchema,
}
MEBIBYTE = 1024 * 1024

# ---- one connection, many requests, one row each


class Sender:
    """Sends with a key of its own and keeps what came back, so that the rows can be counted."""

    def __init__(self, service: Server) -> None:
        self.service = service
        issued = service.create_key(rpm=HIGH_RPM)
        self.key, self.key_id = issued.text, issued.stored.id
        self.sent: dict[str, int] = {}
        self._raw: Raw | None = None

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        if self._raw is None:
            self._raw = self.service.raw(timeout=20)
        self._raw.request(method, path, body, self.key, headers)
        return self._keep(self._raw.read_answer())

    def send_chunked(self, path: str, body: bytes) -> Reply:
        """In pieces of a megabyte."""
        pieces = (body[start : start + MEBIBYTE] for start in range(0, len(body), MEBIBYTE))
        content = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        raw = self._raw = self._raw or self.service.raw(timeout=20)
        raw.request("POST", path, None, self.key, {"Transfer-Encoding": "chunked"})
        raw.send(content)
        return self._keep(raw.read_answer())

    def _keep(self, reply: Reply) -> Reply:
        self.sent[reply.headers["x-request-id"]] = reply.status
        if reply.headers.get("connection") == "close":
            self.close()
        return reply

    def close(self) -> None:
        if self._raw is not None:
            self._raw.close()
            self._raw = None


@pytest.fixture
def sender(service: Server) -> Iterator[Sender]:
    """After the test every request it sent has exactly one row, with the status that was sent."""
    made = Sender(service)
    yield made
    made.close()
    rows = service.wait_rows(len(made.sent), key_id=made.key_id)
    assert {row["request_id"]: row["status"] for row in rows} == made.sent
    assert len(rows) == len(made.sent)
    assert {row["outcome"] for row in rows if row["status"] >= 400} <= {"refused"}
    assert all((row["error_type"] is not None) == (row["status"] >= 400) for row in rows)


# ---- bytes that are no sound JSON object


BROKEN: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"model=echo&prompt=Hi", "line 1, column 1"),
    "cut JSON": (b'{"model": "echo", "prompt": "H', "line 1"),
    "empty": (b"", "empty"),
    "blank": (b" \n ", "empty"),
    "UTF-8": (b'{"model": "echo", "prompt": "\xff"}', "UTF-8 at byte 29"),
    "UTF-16": ('{"model": "echo"}'.encode("utf-16"), "UTF-8 at byte 0"),
    "UTF-8 with a mark": (b'\xef\xbb\xbf{"model": "echo"}', "line 1, column 1"),
    "NUL": (b'{"model": "echo", "prompt": "\x00"}', "line 1"),
    "NUL bytes": (b"\x00" * 100, "line 1, column 1"),
    "lone surrogate": (b'{"model": "echo", "prompt": "\\ud800"}', "line 1"),
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
def test_a_body_that_is_no_sound_object_is_refused_by_its_place(sender: Sender, path: str) -> None:
    for name, (body, place) in BROKEN.items():
        reply = sender.send("POST", path, body)
        assert reply.status == 400, name
        code, message, _ = read_error(shape_of(path), reply)
        assert code == ("invalid_request" if path != "/v1/chat/completions" else None), name
        assert place in message, (name, message)


def test_an_escaped_nul_is_content_like_any_other(any_service: Server) -> None:
    reply = any_service.http().post("/v1/complete", json={"model": "echo", "prompt": "a\x00b", "system": "\x00"})
    assert reply.json()["text"] == "a\x00b"
    assert any_service.row(reply.headers["x-request-id"])["outcome"] == "ok"
    lost = any_service.http().post("/v1/complete", json={"model": "no\x00pe", "prompt": "a"})
    assert lost.status_code == 404
    assert any_service.row(lost.headers["x-request-id"])["model_asked"] is None


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
def test_a_field_of_a_wrong_type_is_refused_by_its_name(sender: Sender, path: str) -> None:
    for name, field in SCHEMAS[shape_of(path)]().fields.items():
        reply = sender.send("POST", path, sound(**{name: WRONG_TYPES[type(field).__name__]}))
        assert reply.status == 400, name
        _, message, param = read_error(shape_of(path), reply)
        assert param == name and name in message


def message(*, role: Any = "user", content: Any = "Hi") -> dict[str, Any]:
    return {"role": role, "content": content}


# For every dialect: what is given, and the path that must be named.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": ["Hi"]}, "messages[0]"),
    ({"messages": [message(), None]}, "messages[1]"),
    ({"messages": [message(role="robot")]}, "messages[0].role"),
    ({"messages": [message(role=None)]}, "messages[0].role"),
    ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
    ({"messages": [message(role=["user"])]}, "messages[0].role"),
    ({"messages": [message(role={"a": 1})]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [message(), message(content=None)]}, "messages[1].content"),
    ({"messages": [message(content=7)]}, "messages[0].content"),
    ({"messages": [message(content={"type": "text"})]}, "messages[0].content"),
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
OWN: dict[str, list[tuple[dict[str, Any], str]]] = {
    "simple": [
        ({"messages": ...}, "prompt"),
        ({"prompt": "Hi"}, "prompt"),  # beside messages
        ({"messages": ..., "prompt": ""}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": [message(), message(role="assistant")]}, "messages[1].role"),
        ({"messages": [message(content=[{"type": "text", "text": "Hi"}])]}, "messages[0].content"),
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
        ({"messages": [message(content=["Hi"])]}, "messages[0].content[0]"),
        ({"messages": [message(content=[{"text": "Hi"}])]}, "messages[0].content[0].type"),
        ({"messages": [message(content=[{"type": "text", "text": 7}])]}, "messages[0].content[0].text"),
        ({"messages": [message(content=[])]}, "messages[0].content"),
    ],
    "messages": [
        ({"model": ...}, "model"),
        ({"messages": ...}, "messages"),
        ({"messages": None}, "messages"),
        ({"max_tokens": ...}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"temperature": 1.1}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"messages": [message(role="assistant")]}, "messages[0].role"),
        ({"messages": [message(role="tool")]}, "messages[0].role"),
        ({"messages": [message(content=["Hi"])]}, "messages[0].content[0]"),
        ({"messages": [message(content=[{"type": 7}])]}, "messages[0].content[0].type"),
        ({"system": [{"type": "text"}]}, "system[0].text"),
        ({"system": ["Hi"]}, "system[0]"),
        ({"stop_sequences": "END"}, "stop_sequences"),
    ],
}


@pytest.mark.parametrize("path", ROUTES)
def test_a_wrong_value_is_refused_by_its_path(sender: Sender, path: str) -> None:
    for extra, param in [*WRONG, *OWN[shape_of(path)]]:
        reply = sender.send("POST", path, sound(**extra))
        assert reply.status == 400, extra
        _, told, named = read_error(shape_of(path), reply)
        assert named == param and param in told, (extra, told)


@pytest.mark.parametrize("path", ROUTES)
def test_an_unknown_model_is_not_found(sender: Sender, upstream: Upstream, path: str) -> None:
    for name in ("nobody", "nobody/knows", "openai/", "/", "../../etc/passwd", "echo/", "日本語", "a\x00"):
        reply = sender.send("POST", path, sound(model=name))
        assert reply.status == 404, name
        code, _, param = read_error(shape_of(path), reply)
        assert (code, param) == ("model_not_found", "model")
    assert upstream.requests == []


# ---- content types and sizes


@pytest.mark.parametrize("path", ROUTES)
def test_only_json_is_taken(sender: Sender, path: str) -> None:
    body = json.dumps(sound()).encode()
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/octet-stream", "nonsense", "\xff"):
        reply = sender.send("POST", path, body, **{"Content-Type": kind})
        assert reply.status == 415, kind
        assert read_error(shape_of(path), reply)[0] == "unsupported_media_type"
    # A form is what curl -d says of its JSON; a form that is one is no JSON.
    form = sender.send("POST", path, b"model=echo", **{"Content-Type": "application/x-www-form-urlencoded"})
    assert form.status == 400
    for kind in ("application/json; charset=utf-8", "application/x-www-form-urlencoded", ""):
        assert sender.send("POST", path, body, **{"Content-Type": kind}).status == 200


def test_a_compressed_body_is_refused_as_what_it_is(sender: Sender) -> None:
    body = json.dumps(sound()).encode()
    reply = sender.send("POST", "/v1/complete", gzip.compress(body), **{"Content-Encoding": "gzip"})
    assert (reply.status, read_error("simple", reply)[0]) == (415, "unsupported_media_type")
    assert sender.send("POST", "/v1/complete", body, **{"Content-Encoding": "identity"}).status == 200


def test_who_asks_before_sending_a_body_gets_an_answer(service: Server) -> None:
    """As curl does with a large one."""
    body = json.dumps(sound()).encode()
    for length, status in ((len(body), 200), (33 * MEBIBYTE, 413)):
        headers = {"Expect": "100-continue", "Content-Length": str(length)}
        with service.raw() as raw:
            raw.request("POST", "/v1/complete", b"", service.key, headers)
            assert raw.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            raw.send(body)
            assert raw.read_answer().status == status


@pytest.mark.parametrize("path", ROUTES)
def test_no_content_type_and_no_body_is_refused(sender: Sender, path: str) -> None:
    reply = sender.send("POST", path)
    assert reply.status == 400
    assert "empty" in read_error(shape_of(path), reply)[1]


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_that_is_announced_too_large_is_refused_at_once(sender: Sender, path: str) -> None:
    began = time.monotonic()
    reply = sender.send("POST", path, b'{"model": ', **{"Content-Length": str(33 * MEBIBYTE)})
    assert time.monotonic() - began < 0.5  # nothing else was sent, so nothing else was waited for
    assert reply.status == 413
    code, told, _ = read_error(shape_of(path), reply)
    assert code == "request_too_large" and str(32 * MEBIBYTE) in told
    sender.close()


@pytest.mark.parametrize("size", [33 * MEBIBYTE, 32 * MEBIBYTE + 1])
def test_a_chunked_body_over_the_limit_is_refused(sender: Sender, size: int) -> None:
    body = json.dumps(sound()).encode().ljust(size)
    reply = sender.send_chunked("/v1/complete", body)
    assert (reply.status, read_error("simple", reply)[0]) == (413, "request_too_large")
    assert sender.send("POST", "/v1/complete", sound()).status == 200  # on the same connection


def test_a_chunked_body_at_the_limit_is_read(sender: Sender) -> None:
    body = json.dumps(sound()).encode().ljust(32 * MEBIBYTE)
    assert sender.send_chunked("/v1/complete", body).status == 200


# ---- routes and methods


UNKNOWN = [
    ("/", "simple"),
    ("/nope", "simple"),
    ("/v1", "simple"),
    ("/complete/nope", "simple"),
    ("/v1/complete/", "simple"),
    ("/v1/complete/nope", "simple"),
    ("/v1/key/nope", "simple"),
    ("/v1/chat/nope", "simple"),
    ("/v1/chat/completions/nope", "chat"),
    ("/v1/completion", "chat"),
    ("/v1/nope", "chat"),
    ("/v1/%ff%00", "chat"),
    ("/v1/messages/batches", "messages"),
]


def test_an_unknown_route_is_told_in_its_neighbours_shape(sender: Sender) -> None:
    for path, shape in UNKNOWN:
        for method in ("GET", "POST"):
            reply = sender.send(method, path, None if method == "GET" else {})
            assert reply.status == 404, path
            assert read_error(shape, reply)[0] == "not_found", path


METHODS = [
    ("GET", "/v1/complete", "simple", "OPTIONS, POST"),
    ("GET", "/complete/stream", "simple", "OPTIONS, POST"),
    ("DELETE", "/v1/chat", "simple", "OPTIONS, POST"),
    ("GET", "/v1/chat/completions", "chat", "OPTIONS, POST"),
    ("PUT", "/v1/messages", "messages", "OPTIONS, POST"),
    ("POST", "/v1/models", "chat", "GET, HEAD, OPTIONS"),
    ("DELETE", "/v1/models/openai/gpt-4o", "chat", "GET, HEAD, OPTIONS"),
    ("POST", "/v1/key", "simple", "GET, HEAD, OPTIONS"),
    ("POST", "/health", "simple", "GET, HEAD, OPTIONS"),
    ("TRACE", "/v1/usage", "simple", "GET, HEAD, OPTIONS"),
    ("NONSENSE", "/v1/messages", "messages", "OPTIONS, POST"),
]


def test_a_wrong_method_is_told_which_are_right(sender: Sender) -> None:
    for method, path, shape, allowed in METHODS:
        reply = sender.send(method, path)
        assert reply.status == 405, path
        assert reply.headers["allow"] == allowed
        assert read_error(shape, reply)[0] == "method_not_allowed"


def test_the_models_routes_speak_as_the_caller_does(sender: Sender) -> None:
    asked: list[tuple[str, str, int]] = [
        ("GET", "/v1/models/nobody", 404),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/nope", 404),
        ("GET", "/v1/models?limit=0", 400),
    ]
    for method, path, status in asked:
        reply = sender.send(method, path, **{"anthropic-version": "2023-06-01"})
        assert reply.status == status, path
        read_error("messages", reply)
        if status != 400:  # OpenAI's list has no pages
            read_error("chat", sender.send(method, path))


# ---- without a key


@pytest.mark.parametrize("path", ROUTES)
def test_without_a_key_nothing_is_read_and_no_row_is_written(service: Server, path: str) -> None:
    before = len(service.rows(key_id=None))
    told: list[Callable[[Raw], None]] = [
        lambda raw: raw.request("POST", path, b"{"),
        lambda raw: raw.request("POST", path, b"{", headers={"Content-Length": str(33 * MEBIBYTE)}),
        lambda raw: raw.request("POST", path, b"\xff", headers={"Content-Type": "text/plain"}),
    ]
    for ask in told:
        with service.raw() as raw:
            ask(raw)
            reply = raw.read_answer()
        assert reply.status == 401
        read_error(shape_of(path), reply)
        assert service.log_lines(request_id=reply.headers["x-request-id"])  # a line all the same
    assert len(service.rows(key_id=None)) == before
