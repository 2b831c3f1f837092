"""The JSON that a client asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_service.core.content import JsonFormat


def json_format(body: Mapping[str, Any]) -> JsonFormat | None:
    """The JSON that the client asks for, or None. Mistakes in it are reported where the body is read."""
    match body:
        case {"output_config": {"format": {"type": "json_schema", "schema": dict(schema)}}}:
            return JsonFormat(schema, path="output_config.format.schema")
        case {"output_format": {"type": "json_schema", "schema": dict(schema)}}:  # its name in Anthropic's beta API
            return JsonFormat(schema, path="output_format.schema")
    return None
