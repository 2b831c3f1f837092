"""OpenAI Chat Completions, the upstream's side: errors of OpenAI and of servers that speak its API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_service.core.errors import UpstreamError, UpstreamOverloaded, UpstreamTimeout
from llm_service.formats import decoding
from llm_service.formats.decoding import VendorError
from llm_service.formats.openai_chat.schema import NAME

# Words that the common table (``vendor_errors``) does not have; DeepSeek's is a finish_reason.
_IN_BAND: decoding.Kinds = (
    (UpstreamOverloaded, frozenset({"insufficient_system_resource"})),
    (UpstreamTimeout, frozenset({"timeout"})),
)


def in_band(chunk: Mapping[str, Any]) -> UpstreamError:
    """The error that an answer with status 200 reports."""
    return decoding.in_band(NAME, read_error(chunk), _IN_BAND)


def failed_finish(reason: str) -> UpstreamError:
    """The error for a finish_reason that is not the end of an answer."""
    return decoding.in_band(NAME, VendorError.of({"code": reason}), _IN_BAND)


def read_error(body: object, status: int = 0) -> VendorError:
    """OpenAI's ``{"error": {...}}``. Other servers send a string as ``error`` (the rest beside it), the error object
    itself, or a list of one (Gemini)."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return VendorError()
    error = body.get("error", body)
    if isinstance(error, dict):
        return VendorError.of(error, _code(error))
    return VendorError.of({"type": body.get("type") or body.get("error_type"), "message": error}, _code(body))


def _code(error: Mapping[str, Any]) -> Any:
    return next((code for name in ("code", "status_code", "status") if (code := error.get(name))), None)
