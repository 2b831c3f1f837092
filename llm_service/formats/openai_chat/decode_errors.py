"""OpenAI Chat Completions, the upstream's side: errors of OpenAI and of servers that speak its API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_service.core.errors import UpstreamError
from llm_service.formats import decoding
from llm_service.formats.decoding import VendorError
from llm_service.formats.openai_chat.schema import NAME


def in_band(chunk: Mapping[str, Any]) -> UpstreamError:
    """The error that an answer with status 200 reports."""
    return decoding.in_band(NAME, read_error(chunk))


def failed_finish(reason: str) -> UpstreamError:
    """The error for a finish_reason that is not the end of an answer."""
    return decoding.in_band(NAME, VendorError.of({"code": reason}))


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
