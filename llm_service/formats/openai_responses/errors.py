"""OpenAI Responses: our errors in OpenAI's words."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from llm_service.core import errors
from llm_service.formats.openai_chat import errors as chat_errors

# Both of OpenAI's APIs use the same words for errors.
status = chat_errors.status


def error(failure: errors.ServiceError, request_id: str) -> dict[str, Any]:
    """The error's JSON object. It keeps OpenAI's own type and code if OpenAI sent the error."""
    written = chat_errors.error(failure, request_id)
    described = written["error"]
    # The word of this API for a request that a policy rejects. Codex repeats a request whose code it does not know.
    if described["code"] == "content_policy_violation":
        described["code"] = "invalid_prompt"
    return written


def error_headers(failure: errors.ServiceError, now: datetime) -> dict[str, str]:
    """OpenAI's rate-limit headers. If this service has retried already, a header asks OpenAI's SDKs not to retry."""
    return chat_errors.error_headers(failure, now)
