"""The JSON that a client asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_service.core.content import JsonFormat


def json_format(body: Mapping[str, Any]) -> JsonFormat | None:
    """The JSON that the client asks for, None for anything else; its mistakes are reported where the body is read."""
    match body.get("response_format"):
        case {"type": "json_object"}:
            return JsonFormat()
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return JsonFormat(schema, path="response_format.json_schema.schema")
    return None
