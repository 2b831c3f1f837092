"""OpenAI Responses, our errors in its words."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from llm_service.core import errors
from llm_service.formats.openai_chat import errors as chat_errors
from llm_service.formats.openai_responses.schema import NAME

# Both of OpenAI's APIs tell errors in the same words.
status = chat_errors.status


def error(failure: errors.ServiceError, request_id: str) -> dict[str, Any]:
    """The error's JSON object. OpenAI's own type and code are kept where OpenAI was asked."""
    told = chat_errors.error(failure, request_id)
    vendor = failure.vendor
    # Not for the service's own credentials: the caller would take them for its key.
    if vendor.get("format") == NAME and vendor.get("type") and failure.code != "upstream_authentication":
        told["error"] |= {"type": vendor["type"], "code": vendor.get("code")}
    return told


def error_headers(failure: errors.ServiceError, now: datetime) -> dict[str, str]:
    """OpenAI's rate-limit headers, and a word to its SDKs not to retry what was retried here."""
    return chat_errors.error_headers(failure, now)
