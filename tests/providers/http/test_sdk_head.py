"""The SDKs write the heads of the requests; what is sent below them is their head with the call's body."""

from __future__ import annotations

import os
from collections.abc import Iterator

import anthropic
import openai
import pytest

from llm_service.core.call import Call, Caller
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import ClientClosed, UpstreamBroken, UpstreamTimeout
from llm_service.core.target import Provider, Target, Timeouts
from llm_service.providers import anthropic as anthropic_provider
from llm_service.providers import openai as openai_provider
from llm_service.providers.http import sdk_head as clients
from llm_service.providers.http.sdk_head import Wire
from llm_service.providers.http.transport import Scope
from tests.support.rawserver import RawServer, close, raw_server

OK = b"HTTP/1.1 200 OK\r\nrequest-id: r1\r\ncontent-length: 2\r\n\r\n{}"
JSON = {"Content-Type": "application/json"}
CALL = Call("id", "r", "/v1/chat/completions", "chat", "m", False, {}, Caller("key"))
TARGET = Target(Provider("x", "openai"), "m", Timeouts())


@pytest.fixture(autouse=True)
def own_connections() -> Iterator[None]:
    clients._direct.cache_clear()
    clients._proxied.cache_clear()
    yield
    for made in (clients._direct, clients._proxied):
        if made.cache_info().currsize:
            made(os.getpid()).close()
        made.cache_clear()


def wire(kind: str, port: int) -> Wire:
    row = Provider("x", kind, key="sk-1", base_url=f"http://127.0.0.1:{port}/base")
    if kind == "openai":
        return openai_provider.connect(row, tick=15, echo_delay=0).chat.wire
    return anthropic_provider.connect(row, tick=15, echo_delay=0).messages.wire


def ask(
    asked: Wire, body: bytes = b"{}", headers: dict[str, str] = JSON, cancel: Cancel | None = None
) -> tuple[int, str, bytes]:
    reply = asked.ask(CALL, TARGET, body, headers, Scope(Timeouts(1, 0.3, 0.3, 2), cancel or Cancel(), 10))
    try:
        return reply.status, reply.header("request-id"), reply.read()
    finally:
        reply.close()


def head_and_body(server: RawServer, number: int) -> tuple[dict[bytes, bytes], bytes]:
    head, _, body = server.requests[number].partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    fields = [line.split(b": ", 1) for line in lines]
    return {b"": first, **{name.lower(): value for name, value in fields}}, body


@pytest.mark.parametrize(
    ("kind", "path", "agent"),
    [
        ("openai", b"/base/chat/completions", f"OpenAI/Python {openai.__version__}"),
        ("anthropic", b"/base/v1/messages", f"Anthropic/Python {anthropic.__version__}"),
    ],
)
def test_the_sdk_writes_url_authentication_and_headers(kind: str, path: bytes, agent: str) -> None:
    with raw_server([OK], [OK]) as server:
        asked = wire(kind, server.port)
        assert ask(asked, b'{"first":1}') == (200, "r1", b"{}")
        ask(asked, b'{"a longer one":2}')
        for number, body in enumerate((b'{"first":1}', b'{"a longer one":2}')):
            head, sent = head_and_body(server, number)
            assert head[b""] == b"POST " + path + b" HTTP/1.1"
            assert head[b"authorization"] == b"Bearer sk-1"
            assert head[b"user-agent"] == agent.encode()
            assert (sent, head[b"content-length"]) == (body, str(len(body)).encode())


def test_each_set_of_headers_has_its_own_head_and_few_are_kept() -> None:
    with raw_server(*[[OK]] * 300) as server:
        asked = wire("anthropic", server.port)
        for number in range(300):
            ask(asked, headers={**JSON, "anthropic-beta": f"feature-{number}"})
        sent = [head_and_body(server, number)[0][b"anthropic-beta"] for number in range(300)]
        assert sent == [f"feature-{number}".encode() for number in range(300)]
        assert len(asked._heads) <= clients._MAX_HEADS


def test_behind_a_proxy_the_same_head_is_sent_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server([OK], [close], [2.0]) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        row = Provider("x", "openai", key="sk-1", base_url="http://vendor.example/v1")
        asked = openai_provider.connect(row, tick=15, echo_delay=0).chat.wire
        assert ask(asked, b'{"a":1}') == (200, "r1", b"{}")
        head, body = head_and_body(proxy, 0)
        assert head[b""] == b"POST http://vendor.example/v1/chat/completions HTTP/1.1"
        assert (head[b"authorization"], head[b"content-length"], body) == (b"Bearer sk-1", b"7", b'{"a":1}')
        with pytest.raises(UpstreamBroken):
            ask(asked)
        with pytest.raises(UpstreamTimeout):
            ask(asked)
        gone = Cancel()
        gone.set(ClientClosed("gone"))
        with pytest.raises(ClientClosed):
            ask(asked, cancel=gone)
