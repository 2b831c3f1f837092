"""The SDKs write the heads of the requests; each request is such a head with the call's body."""

from __future__ import annotations

import anthropic
import openai
import pytest

from llm_service.core.call import Call, Caller
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import ClientClosed, UpstreamBroken, UpstreamTimeout
from llm_service.core.target import Provider, Target, Timeouts
from llm_service.providers import anthropic as anthropic_provider
from llm_service.providers import openai as openai_provider
from llm_service.providers.http import sdk_head
from llm_service.providers.http.sdk_head import Wire
from llm_service.providers.http.transport import Scope
from tests.support.rawserver import RawServer, close, raw_server

OK = b"HTTP/1.1 200 OK\r\nrequest-id: r1\r\ncontent-length: 2\r\n\r\n{}"
pytestmark = pytest.mark.usefixtures("own_connections")

JSON = {"Content-Type": "application/json"}
CALL = Call("id", "r", "/v1/chat/completions", "chat", "m", False, {}, Caller("key"))
TARGET = Target(Provider("x", "openai"), "m", Timeouts())


def make_wire(kind: str, port: int) -> Wire:
    row = Provider("x", kind, key="sk-1", base_url=f"http://127.0.0.1:{port}/base")
    if kind == "openai":
        return openai_provider.connect(row, tick=15, echo_delay=0).chat.wire
    return anthropic_provider.connect(row, tick=15, echo_delay=0).messages.wire


def ask(
    wire: Wire, body: bytes = b"{}", headers: dict[str, str] = JSON, cancel: Cancel | None = None
) -> tuple[int, str, bytes]:
    reply = wire.ask(CALL, TARGET, body, headers, Scope(Timeouts(1, 0.3, 0.3, 2), cancel or Cancel(), 10))
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
        wire = make_wire(kind, server.port)
        assert ask(wire, b'{"first":1}') == (200, "r1", b"{}")
        ask(wire, b'{"a longer one":2}')
        for number, body in enumerate((b'{"first":1}', b'{"a longer one":2}')):
            head, sent = head_and_body(server, number)
            assert head[b""] == b"POST " + path + b" HTTP/1.1"
            assert head[b"authorization"] == b"Bearer sk-1"
            assert head[b"user-agent"] == agent.encode()
            assert (sent, head[b"content-length"]) == (body, str(len(body)).encode())


def test_each_set_of_headers_has_its_own_head_and_the_number_of_heads_is_limited() -> None:
    with raw_server(*[[OK]] * 300) as server:
        wire = make_wire("anthropic", server.port)
        for number in range(300):
            ask(wire, headers={**JSON, "anthropic-beta": f"feature-{number}"})
        sent = [head_and_body(server, number)[0][b"anthropic-beta"] for number in range(300)]
        assert sent == [f"feature-{number}".encode() for number in range(300)]
        assert len(wire._heads) <= sdk_head._MAX_HEADS


def test_behind_a_proxy_the_same_head_is_sent_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server([OK], [close], [2.0]) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        row = Provider("x", "openai", key="sk-1", base_url="http://vendor.example/v1")
        wire = openai_provider.connect(row, tick=15, echo_delay=0).chat.wire
        assert ask(wire, b'{"a":1}') == (200, "r1", b"{}")
        head, body = head_and_body(proxy, 0)
        assert head[b""] == b"POST http://vendor.example/v1/chat/completions HTTP/1.1"
        assert (head[b"authorization"], head[b"content-length"], body) == (b"Bearer sk-1", b"7", b'{"a":1}')
        with pytest.raises(UpstreamBroken):
            ask(wire)
        with pytest.raises(UpstreamTimeout):
            ask(wire)
        gone = Cancel()
        gone.set(ClientClosed("gone"))
        with pytest.raises(ClientClosed):
            ask(wire, cancel=gone)
