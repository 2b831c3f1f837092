"""What most formats answer in the same way, such as the headers of replies, and that they have no JSON answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_service.core.content import JsonFormat

# The content type of errors.
ERROR_TYPE: Final = "application/json"


def response_headers(request_id: str) -> dict[str, str]:
    """The vendor's own headers of every reply: none."""
    return {}


def native_system(body: Mapping[str, Any]) -> list[Any]:
    """The values of a prompt's hash for Anthropic's ``system``, which any client may send to a Claude model.

    Without that field there are none: the hash of a prompt is the same as ever.
    """
    return [] if body.get("system") is None else [body["system"]]


def json_format(body: Mapping[str, Any]) -> JsonFormat | None:
    """The JSON that the client asks for: this format has no field for it."""
    return None


def with_turn(body: Mapping[str, Any], text: str, note: str) -> dict[str, Any]:
    """``body`` with the model's answer ``text`` and a user message ``note`` after its messages."""
    return {**body, "messages": [*(body.get("messages") or ()), *turn(text, note)]}


def turn(text: str, note: str) -> list[dict[str, Any]]:
    """The model's answer and a message about it. A vendor rejects an answer that is empty."""
    answered = [{"role": "assistant", "content": text}] if text.strip() else []
    return [*answered, {"role": "user", "content": note}]
