"""OpenAI's errors, as its SDKs expect them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from llm_service.core import errors
from llm_service.formats.openai_chat.schema import NAME

# OpenAI's error type and code by our code. Codes that are not listed get theirs by the status.
_TYPE_AND_CODE: Mapping[str, tuple[str, str | None]] = {
    "invalid_request": ("invalid_request_error", None),
    "upstream_rejected": ("invalid_request_error", None),
    "upstream_rate_limited": ("rate_limit_error", "rate_limit_exceeded"),
    "upstream_quota_exhausted": ("insufficient_quota", "insufficient_quota"),
    "upstream_overloaded": ("service_unavailable_error", "server_is_overloaded"),
}


def status(failure: errors.ServiceError) -> int:
    """The HTTP status that OpenAI's SDKs expect for ``failure``. OpenAI reports missing money with 429."""
    return 429 if failure.status == 402 else failure.status


def error(failure: errors.ServiceError, request_id: str) -> dict[str, Any]:
    """The error's JSON object. An error of OpenAI keeps OpenAI's own type and code."""
    code: str | None
    # Except for the service's own credentials: the caller would think that its own key is wrong.
    from_openai = failure.vendor.get("format") == NAME and failure.code != "upstream_authentication"
    if from_openai and failure.vendor.get("type"):
        kind, code = failure.vendor["type"], failure.vendor.get("code")
    elif failure.code in _TYPE_AND_CODE:
        kind, code = _TYPE_AND_CODE[failure.code]
    elif failure.status == 402:
        kind, code = "insufficient_quota", "insufficient_quota"
    elif failure.status == 429:
        kind, code = (failure.limit.name if failure.limit else "requests"), failure.code
    else:
        kind, code = ("invalid_request_error" if failure.status < 500 else "server_error"), failure.code
    return {"error": {"message": failure.message, "type": kind, "param": failure.param, "code": code}}


def error_headers(failure: errors.ServiceError, now: datetime) -> dict[str, str]:
    """OpenAI's rate-limit headers. Its SDKs are asked not to retry what was retried here, or what lacks money."""
    headers = {}
    if failure.limit is not None and failure.limit.name in ("requests", "tokens"):
        name = failure.limit.name
        headers[f"x-ratelimit-limit-{name}"] = str(failure.limit.quota)
        headers[f"x-ratelimit-remaining-{name}"] = str(failure.limit.remaining)
        headers[f"x-ratelimit-reset-{name}"] = duration(failure.limit.reset)
    if isinstance(failure, (errors.UpstreamError, errors.BudgetExceeded)):
        headers["x-should-retry"] = "false"
    return headers


def duration(seconds: int) -> str:
    """Seconds in the form in which Go prints a duration: ``59s``, ``6m0s``, ``1h0m1s``."""
    minutes, rest = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
