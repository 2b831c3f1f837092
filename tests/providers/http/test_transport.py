"""The transport's invariants, against a server that sends exactly the bytes of the test's script."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from llm_service.core.cancellation import Cancel
from llm_service.core.errors import ClientClosed, UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from llm_service.core.target import Timeouts
from llm_service.providers.http.transport import Reply, Scope, Transport
from tests.support.rawserver import RawServer, close, raw_server, reset

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FAST = Timeouts(connect=1, first_byte=0.3, idle=0.3, total=2)
PATIENT = Timeouts(connect=5, first_byte=10, idle=10, total=20)


@pytest.fixture
def transport() -> Iterator[Transport]:
    transport = Transport()
    yield transport
    transport.close()


def ask(
    transport: Transport,
    server: RawServer,
    timeouts: Timeouts = PATIENT,
    cancel: Cancel | None = None,
    tick: float = 10,
) -> Reply:
    request = httpx2.Request("POST", f"http://127.0.0.1:{server.port}/v1/x?y=1", headers={"x-a": "b"}, content=b"old")
    return transport.prepare(request)(b'{"a":1}', Scope(timeouts, cancel or Cancel(), tick), None)


def answer(transport: Transport, server: RawServer, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
    """The status and the whole body."""
    reply = ask(transport, server, *args, **kwargs)
    try:
        return reply.status, reply.read()
    finally:
        reply.close()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_a_request_is_sent_whole_and_its_answer_read(transport: Transport) -> None:
    with raw_server([OK]) as server:
        assert answer(transport, server) == (200, b"ok")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x?y=1 HTTP/1.1\r\n")
    assert f"host: 127.0.0.1:{server.port}".encode() in head.lower()
    assert b"x-a: b" in head and body == b'{"a":1}'
    assert head.lower().count(b"content-length") == 1


def test_a_connection_is_reused_after_its_answer_was_read_to_the_end(transport: Transport) -> None:
    with raw_server([OK], [STREAM + chunk(b"x") + b"0\r\n\r\n"], [OK]) as server:
        for _ in range(3):
            answer(transport, server)
        assert (server.connections, len(server.requests)) == (1, 3)


def test_a_connection_whose_answer_was_left_unread_is_closed(transport: Transport) -> None:
    with raw_server([STREAM + chunk(b"first"), 5]) as server:
        reply = ask(transport, server)
        assert next(iter(reply)) == b"first"
        reply.close()
        with raw_server([OK]):
            assert not transport._idle


def test_an_idle_connection_that_the_server_closed_is_replaced(transport: Transport) -> None:
    with raw_server([OK, close], [OK]) as server:
        answer(transport, server)
        time.sleep(0.05)
        assert answer(transport, server) == (200, b"ok")
        assert server.connections == 2


def test_a_reused_connection_that_is_closed_during_the_request_is_replaced_once(transport: Transport) -> None:
    with raw_server([OK], [close], [OK]) as server:
        answer(transport, server)
        assert answer(transport, server) == (200, b"ok")
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    "script",
    [
        [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort", close],
        [STREAM + chunk(b"part"), close],
        [STREAM + chunk(b"part"), reset],
        [STREAM + b"5\r\nab", close],
        [b"HTTP/1.1 200 OK\r\ncontent-le", close],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 9\r\n\r\nok"],
        [STREAM + b"zz\r\nab\r\n"],
        [b"220 smtp.example.com ESMTP\r\n"],
        [b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 200_000],
    ],
    ids=["length", "chunked", "reset", "inside a chunk", "head", "two lengths", "bad chunk", "no http", "huge head"],
)
def test_an_incomplete_or_malformed_answer_never_looks_complete(transport: Transport, script: list[Any]) -> None:
    with raw_server(script) as server, pytest.raises(UpstreamBroken):
        answer(transport, server)


def test_a_connection_closed_without_an_answer_is_unreachable(transport: Transport) -> None:
    with raw_server([close]) as server, pytest.raises(UpstreamUnreachable):
        answer(transport, server)


def test_a_port_without_a_server_is_unreachable(transport: Transport) -> None:
    with raw_server() as server:
        pass
    with pytest.raises(UpstreamUnreachable):
        answer(transport, server)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ([2.5], "upstream_first_byte_timeout"),
        ([b"HTTP/1.1 200 OK\r\n", 2.5], "upstream_first_byte_timeout"),
        ([STREAM + chunk(b"x"), 2.5], "upstream_idle_timeout"),
        ([STREAM + chunk(b"x"), *[part for _ in range(20) for part in (0.2, chunk(b"x"))]], "upstream_total_timeout"),
    ],
    ids=["no answer", "half a head", "silence", "for ever"],
)
def test_every_wait_has_a_deadline(transport: Transport, script: list[Any], code: str) -> None:
    started = time.monotonic()
    with raw_server(script) as server, pytest.raises(UpstreamTimeout) as caught:
        answer(transport, server, FAST)
    assert caught.value.code == code
    assert time.monotonic() - started < 5


def test_idle_time_in_a_body_is_reported_as_an_empty_piece(transport: Transport) -> None:
    with raw_server([STREAM + chunk(b"a"), 0.25, chunk(b"b") + b"0\r\n\r\n"]) as server:
        reply = ask(transport, server, Timeouts(1, 1, 1, 5), tick=0.1)
        pieces = list(reply.pieces())
        reply.close()
    assert pieces[0] == b"a" and pieces[-1] == b"b"
    assert b"" in pieces[1:-1]


@pytest.mark.parametrize("script", [[5], [STREAM + chunk(b"x"), 5]], ids=["before the head", "inside the body"])
def test_a_cancelled_call_closes_its_connection_at_once(transport: Transport, script: list[Any]) -> None:
    cancel = Cancel()
    with raw_server(script) as server:
        threading.Timer(0.1, cancel.set, [ClientClosed("gone")]).start()
        started = time.monotonic()
        with pytest.raises(ClientClosed):
            answer(transport, server, Timeouts(1, 9, 9, 9), cancel)
        assert time.monotonic() - started < 1


def test_interim_answers_are_skipped(transport: Transport) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    with raw_server([early, 0.05, OK], [OK]) as server:
        reply = ask(transport, server)
        assert (reply.status, reply.read(), reply.header("link")) == (200, b"ok", "")
        reply.close()
        answer(transport, server)
        assert server.connections == 1


def test_a_body_without_a_length_ends_with_its_connection(transport: Transport) -> None:
    with raw_server([b"HTTP/1.1 200 OK\r\n\r\nall of it", close], [OK]) as server:
        assert answer(transport, server) == (200, b"all of it")
        answer(transport, server)
        assert server.connections == 2


def test_a_redirect_is_not_followed(transport: Transport) -> None:
    moved = b"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n"
    with raw_server([moved]) as server:
        assert answer(transport, server)[0] == 307


def test_an_answer_above_the_size_limit_is_rejected(transport: Transport) -> None:
    piece = chunk(b"x" * 1_000_000)
    endless = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", *[piece] * 200]
    with raw_server(endless) as server, pytest.raises(UpstreamBroken, match="too large"):
        answer(transport, server, Timeouts(1, 5, 5, 30))


def test_an_answer_that_is_compressed_against_the_request_is_decoded(transport: Transport) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\ncontent-length: %d\r\n\r\n"
    body = gzip.compress(b"plain text")
    with raw_server([head % len(body) + body], [head % 4 + b"text"]) as server:
        assert answer(transport, server) == (200, b"plain text")
        with pytest.raises(UpstreamBroken, match="encoding"):
            answer(transport, server)
