"""Which headers are passed on: the document, the code and the headers that are really sent agree."""

from __future__ import annotations

import re
from pathlib import Path

import anthropic
import openai
import pytest

from llm_service.core import headers
from tests.contract.cases import CALLERS_HEADERS, CLAUDE, GPT, failing
from tests.support.server import Server
from tests.upstream import Step, Upstream

DOCUMENT = (Path(__file__).parents[2] / "docs/headers.md").read_text(encoding="utf-8")
NEW, OLD = "2026-10-21", "2023-06-01"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS_TO_STOP = {
    **CALLERS_HEADERS,
    "anthropic-workspace-id": "callers-own",
    "anthropic-user-profile-id": "callers-own",
    "traceparent": TRACE,
    "tracestate": "callers-own=1",
    "baggage": "callers-own=1",
    "Referer": "https://callers-own.example",
    "x-stainless-lang": "callers-own",
    "x-stainless-retry-count": "77",
    "x-header-of-tomorrow": "callers-own",
}
NAMED = {"openai-organization", "openai-project", "anthropic-workspace-id", "anthropic-user-profile-id"}
ROUTES = ("/v1/chat/completions", "/v1/messages")
VENDORS = [GPT, CLAUDE]


def rows(heading: str) -> dict[str, str]:
    """A table of the document: the names in the first column, in lower case, and the text in the second column."""
    section = DOCUMENT.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    return {name.lower(): cell[2].strip() for cell in cells for name in re.findall(r"`([^`]+)`", cell[1])}


def body(model: str, stream: bool = False) -> dict[str, object]:
    return {"model": model, "max_tokens": 50, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}


def matches(name: str, patterns: set[str]) -> bool:
    return name in patterns or any(name.startswith(item[:-1]) for item in patterns if item.endswith("*"))


def test_the_document_lists_the_headers_that_the_code_passes_on() -> None:
    listed = rows("From the client")
    assert {name for name, rule in listed.items() if rule == "passes"} == set(headers.TRAVELLING)
    assert {name for name, rule in listed.items() if rule == "stops, named"} == set(headers.STOPPED)
    assert {name for name, source in rows("Back to the client").items() if source == "the vendor"} == {
        *headers.RETURNED,
        "x-upstream-request-id",
    }


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize("route", ROUTES)
def test_a_vendor_gets_only_the_documented_headers(service: Server, upstream: Upstream, route: str, model: str) -> None:
    reply = service.http().post(
        route,
        json=body(model),
        headers={**HEADERS_TO_STOP, "anthropic-version": NEW, "anthropic-beta": "one-2026-01-01"},
    )
    assert reply.status_code == 200, reply.text
    seen = upstream.last.headers
    assert "callers-own" not in repr(seen) and TRACE not in repr(seen) and "77" not in seen["x-stainless-retry-count"]
    own = (route, model) == ("/v1/messages", CLAUDE)
    documented = set(rows("To the vendor")) | ({"anthropic-beta"} if own else set())
    assert [name for name in seen if not matches(name, documented)] == []
    assert ("anthropic-beta" in seen) is own
    dropped = set(reply.headers["x-dropped-parameters"].split(", "))
    verbatim = own or (route, model) == ("/v1/chat/completions", GPT)
    assert dropped == NAMED | (set() if verbatim else {"anthropic-beta"})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize("route", ROUTES)
def test_a_vendor_s_own_headers_come_back_under_their_names(
    service: Server, upstream: Upstream, route: str, model: str, stream: bool
) -> None:
    reply = service.http().post(route, json=body(model, stream))
    received = dict(reply.headers)
    assert received["x-upstream-request-id"] == upstream.last.request_id != received["x-request-id"]
    if model == GPT:
        expected = {
            "openai-processing-ms": "42",
            "x-ratelimit-limit-requests": "15000",
            "x-ratelimit-reset-tokens": "6m0s",
        }
    else:
        expected = {"anthropic-ratelimit-requests-limit": "4000", "anthropic-ratelimit-output-tokens-limit": "80000"}
    assert expected.items() <= received.items()
    vendor_s = {name for name in received if name.startswith(("openai-", "anthropic-", "x-ratelimit-", "cf-"))}
    assert vendor_s <= headers.RETURNED  # the headers that name the operator's account are not among them
    assert "scripted" not in repr(received) and "00000000-0000" not in repr(received)


def test_a_malformed_header_of_a_vendor_is_not_passed_on(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(headers={"openai-processing-ms": "x" * 500, "x-ratelimit-limit-tokens": "1\t2"}))
    received = service.http().post(ROUTES[0], json=body(GPT)).headers
    assert "openai-processing-ms" not in received and "x-ratelimit-limit-tokens" not in received


@pytest.mark.parametrize("model", VENDORS)
def test_a_rejection_by_the_vendor_has_its_request_id_and_limits(
    service: Server, upstream: Upstream, model: str
) -> None:
    upstream.script(failing(429))
    reply = service.http().post(ROUTES[0], json=body(model))
    assert reply.status_code == 429
    assert reply.headers["x-upstream-request-id"] == upstream.last.request_id
    limit = "x-ratelimit-limit-requests" if model == GPT else "anthropic-ratelimit-requests-limit"
    assert int(reply.headers[limit]) > 1000
    assert reply.headers["retry-after"] == "30"


# ---- retries


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize("status", [429, 500, 503])
def test_the_openai_sdk_does_not_retry_after_the_service(
    service: Server, upstream: Upstream, model: str, status: int
) -> None:
    upstream.always(failing(status))
    with pytest.raises(openai.APIStatusError) as caught:
        service.openai(max_retries=5).post("/chat/completions", body=body(model), cast_to=object)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"
    assert len(upstream.requests) == 1  # the vendor asked for a longer wait than the service accepts


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize("status", [429, 500, 529])
def test_the_anthropic_sdk_does_not_retry_after_the_service(
    service: Server, upstream: Upstream, model: str, status: int
) -> None:
    upstream.always(failing(status))
    with pytest.raises(anthropic.APIStatusError) as caught:
        service.anthropic(max_retries=5).post("/v1/messages", body=body(model), cast_to=object)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"
    assert len(upstream.requests) == 1


# ---- both of Anthropic's API versions


@pytest.mark.parametrize("version", [OLD, NEW])
def test_the_client_s_version_is_sent_to_the_vendor(service: Server, upstream: Upstream, version: str) -> None:
    client = service.anthropic(default_headers={"anthropic-version": version})
    client.messages.create(model=CLAUDE, max_tokens=5, messages=[{"role": "user", "content": "Hi"}])
    assert upstream.last.headers["anthropic-version"] == version


def test_a_request_without_a_version_uses_the_old_one(service: Server, upstream: Upstream) -> None:
    assert service.http().post(ROUTES[1], json={**body(CLAUDE), "temperature": 0.5}).status_code == 200
    assert upstream.last.headers["anthropic-version"] == OLD


@pytest.mark.parametrize("model", VENDORS)
def test_old_clients_may_set_a_temperature_and_new_clients_may_not(
    service: Server, upstream: Upstream, model: str
) -> None:
    request = {**body(model), "temperature": 0.5}
    for version in (OLD, NEW):
        client = service.anthropic(default_headers={"anthropic-version": version})
        if version == OLD:
            client.post("/v1/messages", body=request, cast_to=object)
            assert upstream.last.body["temperature"] == 0.5
        else:
            with pytest.raises(anthropic.BadRequestError) as caught:
                client.post("/v1/messages", body=request, cast_to=object)
            assert "temperature: Extra inputs are not permitted" in caught.value.message
