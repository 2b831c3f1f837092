"""Anthropic's errors, as its SDKs expect them."""

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
    """The HTTP status Anthropic's SDKs expect for it."""
    return 529 if isinstance(failure, errors.UpstreamOverloaded) else failure.status


def error(failure: errors.ServiceError, request_id: str) -> dict[str, Any]:
    """The error's JSON object; ``details`` names our code and the field. Anthropic's own type and
    code are kept where Anthropic was asked."""
    kind = _TYPES.get(failure.status, "invalid_request_error" if failure.status < 500 else "api_error")
    details: dict[str, Any] = {"error_code": failure.code}
    # Not for the service's own credentials: the caller would take them for its key.
    if failure.vendor.get("format") == NAME and failure.code != "upstream_authentication":
        if not isinstance(failure, errors.UpstreamOverloaded):  # told by 529, whatever the vendor's status was
            kind = failure.vendor.get("type") or kind
        details["error_code"] = failure.vendor.get("code") or failure.code
    if failure.param is not None:
        details["param"] = failure.param
    told = {"type": kind, "message": failure.message, "details": details}
    return {"type": "error", "error": told, "request_id": request_id}


def error_headers(failure: errors.ServiceError, now: datetime) -> dict[str, str]:
    """Anthropic's rate-limit headers, and a word to its SDKs not to retry what was retried here.

    ``now`` is aware: the reset is a moment in UTC (RFC 3339).
    """
    headers = {}
    if failure.limit is not None and failure.limit.name in ("requests", "tokens"):
        name = f"anthropic-ratelimit-{failure.limit.name}"
        reset = now + timedelta(seconds=failure.limit.reset)
        headers[f"{name}-limit"] = str(failure.limit.quota)
        headers[f"{name}-remaining"] = str(failure.limit.remaining)
        headers[f"{name}-reset"] = f"{reset:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(failure, errors.UpstreamError):
        headers["x-should-retry"] = "false"
    return headers
