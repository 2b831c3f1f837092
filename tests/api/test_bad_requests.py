"""Rejected content types, sizes, routes and methods: each has its status and the error shape of its route."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable

import pytest

from tests.api.error_shapes import ROUTES, read_error, shape_of, valid_body
from tests.api.sender import MEBIBYTE, Sender
from tests.support.raw import Raw
from tests.support.server import Server

# ---- content types and sizes


@pytest.mark.parametrize("path", ROUTES)
def test_only_json_content_types_are_accepted(sender: Sender, path: str) -> None:
    body = json.dumps(valid_body()).encode()
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/octet-stream", "nonsense", "\xff"):
        reply = sender.send("POST", path, body, **{"Content-Type": kind})
        assert reply.status == 415, kind
        assert read_error(shape_of(path), reply)[0] == "unsupported_media_type"
    # curl -d sends JSON with the content type of a form, so that type is accepted; a real form is not valid JSON.
    form = sender.send("POST", path, b"model=echo", **{"Content-Type": "application/x-www-form-urlencoded"})
    assert form.status == 400
    for kind in ("application/json; charset=utf-8", "application/x-www-form-urlencoded", ""):
        assert sender.send("POST", path, body, **{"Content-Type": kind}).status == 200


def test_a_compressed_body_is_rejected_as_unsupported(sender: Sender) -> None:
    body = json.dumps(valid_body()).encode()
    reply = sender.send("POST", "/v1/complete", gzip.compress(body), **{"Content-Encoding": "gzip"})
    assert (reply.status, read_error("simple", reply)[0]) == (415, "unsupported_media_type")
    assert sender.send("POST", "/v1/complete", body, **{"Content-Encoding": "identity"}).status == 200


def test_a_client_that_expects_100_continue_gets_it(service: Server) -> None:
    """A client may wait for "100 Continue" before it sends the body, as curl does with a large body."""
    body = json.dumps(valid_body()).encode()
    for length, status in ((len(body), 200), (33 * MEBIBYTE, 413)):
        headers = {"Expect": "100-continue", "Content-Length": str(length)}
        with service.raw() as raw:
            raw.request("POST", "/v1/complete", b"", service.key, headers)
            assert raw.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            raw.send(body)
            assert raw.read_reply().status == status


@pytest.mark.parametrize("path", ROUTES)
def test_a_request_without_content_type_and_body_is_rejected(sender: Sender, path: str) -> None:
    reply = sender.send("POST", path)
    assert reply.status == 400
    assert "empty" in read_error(shape_of(path), reply)[1]


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_announced_as_too_large_is_rejected_at_once(sender: Sender, path: str) -> None:
    began = time.monotonic()
    reply = sender.send("POST", path, b'{"model": ', **{"Content-Length": str(33 * MEBIBYTE)})
    assert time.monotonic() - began < 0.5  # the service does not wait for the rest of the body
    assert reply.status == 413
    code, message, _ = read_error(shape_of(path), reply)
    assert code == "request_too_large" and str(32 * MEBIBYTE) in message
    sender.close()


@pytest.mark.parametrize("size", [33 * MEBIBYTE, 32 * MEBIBYTE + 1])
def test_a_chunked_body_over_the_limit_is_rejected(sender: Sender, size: int) -> None:
    body = json.dumps(valid_body()).encode().ljust(size)
    reply = sender.send_chunked("/v1/complete", body)
    assert (reply.status, read_error("simple", reply)[0]) == (413, "request_too_large")
    assert sender.send("POST", "/v1/complete", valid_body()).status == 200  # on the same connection


def test_a_chunked_body_at_the_limit_is_accepted(sender: Sender) -> None:
    body = json.dumps(valid_body()).encode().ljust(32 * MEBIBYTE)
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


def test_an_unknown_route_has_the_error_shape_of_its_neighbours(sender: Sender) -> None:
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


def test_a_wrong_method_is_rejected_with_the_allowed_methods(sender: Sender) -> None:
    for method, path, shape, allowed in METHODS:
        reply = sender.send(method, path)
        assert reply.status == 405, path
        assert reply.headers["allow"] == allowed
        assert read_error(shape, reply)[0] == "method_not_allowed"


def test_the_models_routes_use_the_caller_s_error_shape(sender: Sender) -> None:
    requests: list[tuple[str, str, int]] = [
        ("GET", "/v1/models/nobody", 404),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/nope", 404),
        ("GET", "/v1/models?limit=0", 400),
    ]
    for method, path, status in requests:
        reply = sender.send(method, path, **{"anthropic-version": "2023-06-01"})
        assert reply.status == status, path
        read_error("messages", reply)
        if status != 400:  # OpenAI's list has no pages, so it ignores the limit
            read_error("chat", sender.send(method, path))


# ---- without a key


@pytest.mark.parametrize("path", ROUTES)
def test_without_a_key_the_body_is_not_read_and_no_row_is_written(service: Server, path: str) -> None:
    before = len(service.rows(key_id=None))
    requests: list[Callable[[Raw], None]] = [
        lambda raw: raw.request("POST", path, b"{"),
        lambda raw: raw.request("POST", path, b"{", headers={"Content-Length": str(33 * MEBIBYTE)}),
        lambda raw: raw.request("POST", path, b"\xff", headers={"Content-Type": "text/plain"}),
    ]
    for send in requests:
        with service.raw() as raw:
            send(raw)
            reply = raw.read_reply()
        assert reply.status == 401
        read_error(shape_of(path), reply)
        assert service.log_lines(request_id=reply.headers["x-request-id"])  # there is a log line nevertheless
    assert len(service.rows(key_id=None)) == before
