"""Errors in Anthropic's format, read by Anthropic's own SDK."""

from __future__ import annotations

from datetime import UTC, datetime

import anthropic
import orjson
import pytest

from llm_service.core import errors
from llm_service.formats import anthropic_messages as messages
from tests.formats.examples import anthropic_client

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("failure", "status", "kind", "raised"),
    [
        (errors.InvalidRequest("x", param="n"), 400, "invalid_request_error", anthropic.BadRequestError),
        (errors.UnsupportedParameter("x"), 400, "invalid_request_error", anthropic.BadRequestError),
        (errors.Unauthenticated("x"), 401, "authentication_error", anthropic.AuthenticationError),
        (errors.Rejected("x", status=402), 402, "billing_error", anthropic.APIStatusError),
        (errors.Forbidden("x"), 403, "permission_error", anthropic.PermissionDeniedError),
        (errors.ModelNotFound("x"), 404, "not_found_error", anthropic.NotFoundError),
        (errors.MethodNotAllowed("x"), 405, "invalid_request_error", anthropic.APIStatusError),
        (errors.PayloadTooLarge("x"), 413, "request_too_large", anthropic.RequestTooLargeError),
        (errors.RateLimited("x"), 429, "rate_limit_error", anthropic.RateLimitError),
        (errors.Unavailable("x"), 503, "overloaded_error", anthropic.ServiceUnavailableError),
        (errors.UpstreamRejected("x", status=422), 422, "invalid_request_error", anthropic.UnprocessableEntityError),
        (errors.UpstreamOverloaded("x"), 529, "overloaded_error", anthropic.OverloadedError),
        (errors.UpstreamTimeout("x"), 504, "timeout_error", anthropic.DeadlineExceededError),
        (errors.UpstreamBroken("x"), 502, "api_error", anthropic.InternalServerError),
        (errors.InternalError("x"), 500, "api_error", anthropic.InternalServerError),
    ],
)
def test_the_sdk_raises_its_own_class_for_each_error(
    failure: errors.ServiceError, status: int, kind: str, raised: type[anthropic.APIStatusError]
) -> None:
    written = messages.error(failure, "req-1")
    assert (written["type"], written["error"]["type"], written["error"]["message"]) == ("error", kind, "x")
    assert written["request_id"] == "req-1"
    assert messages.status(failure) == status
    headers = {**messages.error_headers(failure, NOW), "request-id": "req-1"}
    client = anthropic_client(orjson.dumps(written), status, headers)
    with pytest.raises(raised) as caught:
        client.messages.create(model="m", max_tokens=5, messages=[])
    assert caught.value.error_code == failure.code
    assert caught.value.type == kind
    assert caught.value.request_id == "req-1"


def test_type_and_code_of_an_error_are_kept_only_if_they_are_from_anthropic() -> None:
    vendor = {"format": "messages", "status": 400, "type": "novel_error", "code": "novel_code"}
    written = messages.error(errors.UpstreamRejected("x", vendor=vendor), "r")["error"]
    assert (written["type"], written["details"]["error_code"]) == ("novel_error", "novel_code")
    overloaded = errors.UpstreamOverloaded("x", vendor={**vendor, "status": 503, "type": "api_error"})
    assert messages.error(overloaded, "r")["error"]["type"] == "overloaded_error"
    foreign = errors.UpstreamRejected("x", vendor={**vendor, "format": "chat"})
    assert messages.error(foreign, "r")["error"]["type"] == "invalid_request_error"
    ours = errors.UpstreamRejected("x", vendor=vendor, code="upstream_authentication", status=502)
    assert messages.error(ours, "r")["error"]["type"] == "api_error"


def test_the_details_of_an_error_name_the_field() -> None:
    written = messages.error(errors.InvalidRequest("x", param="messages[1].role"), "r")["error"]
    assert written["details"] == {"error_code": "invalid_request", "param": "messages[1].role"}


def test_a_rejected_thread_has_the_code_after_which_tool_runners_go_on_without_one() -> None:
    failure = errors.UnsupportedParameter("x", param="thread", code="storage_not_allowed")
    details = messages.error(failure, "r")["error"]["details"]
    assert details == {"error_code": "thread_unsupported_request", "param": "thread", "unsupported": ["thread"]}
    other = errors.UnsupportedParameter("x", param="threads")
    assert messages.error(other, "r")["error"]["details"]["error_code"] == "unsupported_parameter"


def test_rate_limit_headers_are_those_of_anthropic() -> None:
    limit = errors.Limit("requests", "key", 60, 60, 0, 56)
    assert messages.error_headers(errors.RateLimited("x", limit=limit), NOW) == {
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-01-02T03:05:01Z",
    }
    assert messages.error_headers(errors.UpstreamFailed("x"), NOW) == {"x-should-retry": "false"}
