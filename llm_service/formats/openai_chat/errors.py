"""OpenAI's errors, as its SDKs expect them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from llm_service.core import errors
from llm_service.formats.openai_chat.schema import NAME

# Error type and code by our code, where the vendor has its own words; else by status.
_SPOKEN: Mapping[str, tuple[str, str | None]] = {
    "invalid_request": ("invalid_request_error", None),
    "upstream_rejected": ("invalid_request_error", None),
    "upstream_rate_limited": ("rate_limit_error", "rate_limit_exceeded"),
    "upstream_quota_exhausted": ("insufficient_quota", "insufficient_quota"),
    "upstream_overloaded": ("service_unavailable_error", "server_is_overloaded"),
}


def status(failure: errors.ServiceError) -> int:
    """The HTTP status OpenAI's SDKs expect for it. OpenAI tells missing money by 429."""
    return 429 if failure.status == 402 else failure.status


def error(failure: errors.ServiceError, request_id: str) -> dict[str, Any]:
    """The error's JSON object. OpenAI's own type and code are kept where OpenAI was asked."""
    code: str | None
    # Not for the service's own credentials: the caller would take them for its key.
    ours = failure.vendor.get("format") == NAME and failure.code != "upstream_authentication"
    if ours and failure.vendor.get("type"):
        kind, code = failure.vendor["type"], failure.vendor.get("code")
    elif failure.code in _SPOKEN:
        kind, code = _SPOKEN[failure.code]
    elif failure.status == 402:
        kind, code = "insufficient_quota", "insufficient_quota"
    elif failure.status == 429:
        kind, code = (failure.limit.name if failure.limit else "requests"), failure.code
    else:
        kind, code = ("invalid_request_error" if failure.status < 500 else "server_error"), failure.code
    return {"error": {"message": failure.message, "type": kind, "param": failure.param, "code": code}}


def error_headers(failure: errors.ServiceError, now: datetime) -> dict[str, str]:
    """OpenAI's rate-limit headers, and a word to its SDKs not to retry what was retried here or lacks money."""
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
    """Seconds as Go prints a duration: ``59s``, ``6m0s``, ``1h0m1s``."""
    minutes, rest = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
