"""The errors that the official Anthropic client raises when the vendor fails."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.contract.cases import (
    CLAUDE,
    GPT,
    VENDORS,
    failing,
    messages_request,
)
from tests.support.server import Server
from tests.upstream import Step, Upstream


@pytest.fixture(scope="module")
def retrying(service: Server) -> anthropic.Anthropic:
    """A client that retries, as applications use it."""
    return service.anthropic(max_retries=2)


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize(
    ("status", "kind", "error_type"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.InternalServerError, "api_error"),
        (403, anthropic.InternalServerError, "api_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (408, anthropic.GatewayTimeoutError, "timeout_error"),
        (409, anthropic.ConflictError, "conflict_error"),
        (413, anthropic.ContentTooLargeError, "request_too_large"),
        (422, anthropic.UnprocessableEntityError, "invalid_request_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (503, anthropic.OverloadedError, "overloaded_error"),
        (504, anthropic.GatewayTimeoutError, "timeout_error"),
        (529, anthropic.OverloadedError, "overloaded_error"),
    ],
)
def test_a_vendor_s_error_raises_the_client_s_own_class_without_a_retry(
    retrying: anthropic.Anthropic, upstream: Upstream, model: str, status: int, kind: type[Exception], error_type: str
) -> None:
    upstream.script(failing(status, times=0))
    with pytest.raises(anthropic.APIStatusError) as caught:
        retrying.messages.create(**messages_request(model=model, stream=status in (400, 429, 529)))
    error = caught.value
    assert type(error) is kind
    assert error.type == error_type
    assert error.api_message
    body: Any = error.body
    assert body["type"] == "error" and body["request_id"] == error.request_id
    assert error.response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1
    assert error.response.headers["retry-after"] == "30"


def test_the_row_has_the_status_that_the_caller_got(service: Server, upstream: Upstream) -> None:
    upstream.script(failing(529))
    reply = service.http().post("/v1/messages", json=messages_request())
    row = service.row(reply.headers["x-request-id"])
    assert (reply.status_code, row["status"], row["outcome"]) == (529, 529, "upstream_error")
    assert row["error_type"] == "upstream_overloaded"


def test_a_spend_limit_keeps_its_error_code(anthropic_client: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.script(Step(status=429, error_code="enforced_spend_limit_reached"))
    question: Any = [{"role": "user", "content": "Was the limit that is enforced reached?"}]
    with pytest.raises(anthropic.RateLimitError) as caught:
        anthropic_client.messages.create(**messages_request(messages=question))
    assert caught.value.error_code == "enforced_spend_limit_reached"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(("model", "status"), [(CLAUDE, 529), (GPT, 503)])
def test_an_error_inside_a_stream_is_raised(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, model: str, status: int
) -> None:
    upstream.script(Step(text="one two three", fault="error", after=5, status=status))
    got = []
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        anthropic_client.messages.stream(**messages_request(model=model)) as stream,
    ):
        for text in stream.text_stream:
            got.append(text)
    assert got and got[0] == "one"
    assert caught.value.type == "overloaded_error"
    assert caught.value.api_message
