"""Errors in Anthropic's format, as its SDKs expect them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from llm_service.core import errors
from llm_service.formats.anthropic_messages.schema import NAME

_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def status(failure: errors.ServiceError) -> int:
    """The HTTP status that Anthropic's SDKs expect for ``failure``."""
    return 529 if isinstance(failure, errors.UpstreamOverloaded) else failure.status


def error(failure: errors.ServiceError, request_id: str) -> dict[str, Any]:
    """The JSON object of the error. ``details`` has this service's error code and the name of the field.

    If the error comes from Anthropic, its own type and code are kept.
    """
    kind = _TYPES.get(failure.status, "invalid_request_error" if failure.status < 500 else "api_error")
    details: dict[str, Any] = {"error_code": failure.code}
    # An error about the service's own credentials is an exception: the caller would think that its own key is wrong.
    if failure.vendor.get("format") == NAME and failure.code != "upstream_authentication":
        # An overloaded vendor is always reported as 529 overloaded_error, whatever status and type it sent.
        if not isinstance(failure, errors.UpstreamOverloaded):
            kind = failure.vendor.get("type") or kind
        details["error_code"] = failure.vendor.get("code") or failure.code
    if failure.param is not None:
        details["param"] = failure.param
    if failure.param == "thread" and failure.status == 400:
        # The tool runners of Anthropic's SDKs ask for a thread by themselves. After this code they go on without one.
        details |= {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    error_object = {"type": kind, "message": _message(failure), "details": details}
    return {"type": "error", "error": error_object, "request_id": request_id}


def _message(failure: errors.ServiceError) -> str:
    """Our sentence, or Anthropic's where its clients know the failure only by it."""
    if isinstance(failure, errors.UpstreamContentRejected):
        return "Output blocked by content filtering policy"
    if not isinstance(failure, errors.UpstreamContextExceeded):
        return failure.message
    # Claude Code compacts the conversation after the first and third sentence, and lowers max_tokens after the second.
    if failure.excess == "input":
        return f"prompt is too long: {failure.input_tokens} tokens > {failure.maximum} maximum"
    if failure.excess == "sum":
        numbers = f"{failure.input_tokens} + {failure.output_tokens} > {failure.maximum}"
        advice = "decrease input length or `max_tokens` and try again"
        return f"input length and `max_tokens` exceed context limit: {numbers}, {advice}"
    return "prompt is too long: the request is longer than the model's context window"


def error_headers(failure: errors.ServiceError, now: datetime) -> dict[str, str]:
    """Anthropic's rate-limit headers. Its SDKs are told not to retry what cannot help, or what was retried here.

    ``now`` has a time zone: the reset is a time in UTC (RFC 3339).
    """
    headers = {}
    if failure.limit is not None and failure.limit.name in ("requests", "tokens"):
        name = f"anthropic-ratelimit-{failure.limit.name}"
        reset = now + timedelta(seconds=failure.limit.reset)
        headers[f"{name}-limit"] = str(failure.limit.quota)
        headers[f"{name}-remaining"] = str(failure.limit.remaining)
        headers[f"{name}-reset"] = f"{reset:%Y-%m-%dT%H:%M:%SZ}"
    if failure.is_final:
        headers["x-should-retry"] = "false"
    return headers


def response_headers(request_id: str) -> dict[str, str]:
    """The header of every reply in which Anthropic's SDKs look for the request's id."""
    return {"request-id": request_id}
