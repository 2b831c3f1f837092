"""OpenAI Responses: our errors in OpenAI's words."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from llm_service.core import errors
from llm_service.formats.openai_chat import errors as chat_errors
from llm_service.formats.openai_responses.schema import NAME

# Both of OpenAI's APIs use the same words for errors.
status = chat_errors.status


def error(failure: errors.ServiceError, request_id: str) -> dict[str, Any]:
    """The error's JSON object. It keeps OpenAI's own type and code if OpenAI sent the error."""
    written = chat_errors.error(failure, request_id)
    vendor = failure.vendor
    # The vendor's words about the service's own credentials are replaced: the caller would think of its own key.
    if vendor.get("format") == NAME and vendor.get("type") and failure.code != "upstream_authentication":
        written["error"] |= {"type": vendor["type"], "code": vendor.get("code")}
    return written


def error_headers(failure: errors.ServiceError, now: datetime) -> dict[str, str]:
    """OpenAI's rate-limit headers. If this service has retried already, a header asks OpenAI's SDKs not to retry."""
    return chat_errors.error_headers(failure, now)
