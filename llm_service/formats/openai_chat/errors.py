"""OpenAI's errors, as its SDKs expect them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from llm_service.core import errors
from llm_service.formats.openai_chat.schema import NAME

# OpenAI's formats: they share their errors.
_OPENAI = frozenset({NAME, "responses", "completions", "embeddings", "input_tokens"})
# OpenAI's error type and code by our code. Codes that are not listed get theirs by the status.
_TYPE_AND_CODE: Mapping[str, tuple[str, str | None]] = {
    "invalid_request": ("invalid_request_error", None),
    "upstream_rejected": ("invalid_request_error", None),
    "upstream_rate_limited": ("rate_limit_error", "rate_limit_exceeded"),
    "upstream_quota_exhausted": ("insufficient_quota", "insufficient_quota"),
    "upstream_overloaded": ("service_unavailable_error", "server_is_overloaded"),
    "upstream_too_large": ("invalid_request_error", "request_too_large"),
}
# A server that is only compatible has words of its own for failures that clients of OpenAI know by these codes. So its
# words are kept only if they are OpenAI's.
_CODES: Mapping[str, frozenset[str]] = {
    "upstream_rate_limited": frozenset({"rate_limit_exceeded"}),
    "upstream_quota_exhausted": frozenset({"insufficient_quota", "credit_balance_exhausted"}),
    "upstream_overloaded": frozenset({"server_is_overloaded", "slow_down"}),
    "upstream_too_large": frozenset({"request_too_large"}),
    "context_length_exceeded": frozenset({"context_length_exceeded"}),
    "content_policy_violation": frozenset(
        {"content_policy_violation", "content_filter", "invalid_prompt", "bio_policy", "cyber_policy"}
    ),
}


def status(failure: errors.ServiceError) -> int:
    """The HTTP status that OpenAI's SDKs expect for ``failure``. OpenAI reports missing money with 429."""
    return 429 if failure.status == 402 else failure.status


def error(failure: errors.ServiceError, request_id: str) -> dict[str, Any]:
    """The error's JSON object. An error of OpenAI keeps OpenAI's own type and code."""
    code: str | None
    if _keeps_words(failure):
        kind, code = failure.vendor["type"], failure.vendor.get("code")
    elif failure.code == "upstream_rejected" and failure.status == 404:
        kind, code = "invalid_request_error", "model_not_found"  # agents know by it that another model is needed
    elif failure.code in _TYPE_AND_CODE:
        kind, code = _TYPE_AND_CODE[failure.code]
    elif failure.status == 402:
        kind, code = "insufficient_quota", "insufficient_quota"
    elif failure.status == 429:
        kind, code = (failure.limit.name if failure.limit else "requests"), failure.code
    else:
        kind, code = ("invalid_request_error" if failure.status < 500 else "server_error"), failure.code
    message = context_sentence(failure) if isinstance(failure, errors.UpstreamContextExceeded) else failure.message
    return {"error": {"message": message, "type": kind, "param": failure.param, "code": code}}


def _keeps_words(failure: errors.ServiceError) -> bool:
    """Whether the error keeps the vendor's type and code.

    Those about the service's own credentials are replaced: the caller would think that its own key is wrong.
    """
    vendor = failure.vendor
    if vendor.get("format") not in _OPENAI or not vendor.get("type") or failure.code == "upstream_authentication":
        return False
    return failure.code not in _CODES or vendor.get("code") in _CODES[failure.code]


def context_sentence(failure: errors.UpstreamContextExceeded) -> str:
    """OpenAI's sentence, because some agents know the failure only by it."""
    if failure.excess is None:
        return "Your input exceeds the context window of this model. Please adjust your input and try again."
    maximum = f"This model's maximum context length is {failure.maximum} tokens. However,"
    if failure.excess == "input":
        asked = f"your messages resulted in {failure.input_tokens} tokens."
        return f"{maximum} {asked} Please reduce the length of the messages."
    both = (failure.input_tokens or 0) + (failure.output_tokens or 0)
    parts = f"({failure.input_tokens} in the messages, {failure.output_tokens} in the completion)"
    return f"{maximum} you requested {both} tokens {parts}. Please reduce the length of the messages or completion."


def error_headers(failure: errors.ServiceError, now: datetime) -> dict[str, str]:
    """OpenAI's rate-limit headers. Its SDKs are told not to retry what cannot help, or what was retried here."""
    headers = {}
    if failure.limit is not None and failure.limit.name in ("requests", "tokens"):
        name = failure.limit.name
        headers[f"x-ratelimit-limit-{name}"] = str(failure.limit.quota)
        headers[f"x-ratelimit-remaining-{name}"] = str(failure.limit.remaining)
        headers[f"x-ratelimit-reset-{name}"] = duration(failure.limit.reset)
    if failure.is_final:
        headers["x-should-retry"] = "false"
    return headers


def duration(seconds: int) -> str:
    """Seconds in the form in which Go prints a duration: ``59s``, ``6m0s``, ``1h0m1s``."""
    minutes, rest = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
