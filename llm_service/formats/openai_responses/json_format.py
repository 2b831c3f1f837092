"""The JSON that a client asks for, and asking again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_service.core.content import JsonFormat
from llm_service.formats import defaults


def json_format(body: Mapping[str, Any]) -> JsonFormat | None:
    """The JSON that the client asks for, None for anything else; its mistakes are reported where the body is read."""
    match body.get("text"):
        case {"format": {"type": "json_object"}}:
            return JsonFormat()
        case {"format": {"type": "json_schema", "schema": dict(schema)}}:
            return JsonFormat(schema, path="text.format.schema")
    return None


def with_turn(body: Mapping[str, Any], text: str, note: str) -> dict[str, Any]:
    """``body`` with the model's answer ``text`` and a user message ``note`` at the end of its input."""
    before = body.get("input")
    if isinstance(before, str):
        before = [{"role": "user", "content": before}]
    return {**body, "input": [*(before or ()), *defaults.turn(text, note)]}
