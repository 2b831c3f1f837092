"""The errors that the official OpenAI client raises when the vendor fails."""

from __future__ import annotations

import openai
import pytest

from tests.contract.cases import (
    CLAUDE,
    GPT,
    HELLO,
    VENDORS,
    failing,
)
from tests.support.server import Server
from tests.upstream import Step, Upstream


@pytest.fixture(scope="module")
def retrying(service: Server) -> openai.OpenAI:
    """A client that retries, as applications use it."""
    return service.openai(max_retries=2)


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize(
    ("status", "kind", "reported_status"),
    [
        (400, openai.BadRequestError, 400),
        (401, openai.InternalServerError, 502),
        (403, openai.InternalServerError, 502),
        (404, openai.NotFoundError, 404),
        (408, openai.InternalServerError, 504),
        (409, openai.ConflictError, 409),
        (413, openai.APIStatusError, 413),
        (422, openai.UnprocessableEntityError, 422),
        (429, openai.RateLimitError, 429),
        (500, openai.InternalServerError, 500),
        (503, openai.InternalServerError, 503),
        (529, openai.InternalServerError, 503),
    ],
)
def test_a_vendor_s_error_raises_the_client_s_own_class_without_a_retry(
    retrying: openai.OpenAI, upstream: Upstream, model: str, status: int, kind: type[Exception], reported_status: int
) -> None:
    upstream.script(failing(status, times=0))
    with pytest.raises(openai.APIStatusError) as caught:
        retrying.chat.completions.create(model=model, messages=HELLO, stream=status in (400, 429, 503))
    error = caught.value
    assert type(error) is kind
    assert error.status_code == reported_status
    assert error.type and error.message and error.request_id
    assert status != 404 or model != CLAUDE or error.code == "model_not_found"
    assert error.response.headers["x-should-retry"] == "false"
    # Neither side tried again: the vendor asked for a wait that is too long for the service, and x-should-retry tells
    # the client not to retry.
    assert len(upstream.requests) == 1
    assert error.response.headers["retry-after"] == "30"


def test_an_exhausted_quota_is_reported_with_openai_s_code(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(status=429, error_type="insufficient_quota", error_code="insufficient_quota"))
    with pytest.raises(openai.RateLimitError) as caught:
        openai_client.chat.completions.create(model=GPT, messages=HELLO)
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")


def test_openai_s_own_message_reaches_the_client(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    with pytest.raises(openai.BadRequestError) as caught:  # the scripted vendor rejects it as the real one does
        openai_client.chat.completions.create(model="gpt-5", messages=HELLO, max_tokens=5)
    error = caught.value
    assert (error.code, error.param, error.type) == ("unsupported_parameter", "max_tokens", "invalid_request_error")
    assert "Use 'max_completion_tokens' instead." in error.message


@pytest.mark.parametrize(("model", "status"), [(GPT, 503), (CLAUDE, 529)])
def test_an_error_inside_a_stream_is_raised(
    openai_client: openai.OpenAI, upstream: Upstream, model: str, status: int
) -> None:
    upstream.script(Step(text="one two three", fault="error", after=4, status=status))
    got = []
    with pytest.raises(openai.APIError) as caught:
        for chunk in openai_client.chat.completions.create(model=model, messages=HELLO, stream=True):
            got += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    assert got and got[0] == "one"
    assert caught.value.type == "service_unavailable_error"
    assert caught.value.message
