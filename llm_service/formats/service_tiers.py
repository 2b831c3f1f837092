"""OpenAI's ``service_tier``, as the clients of all its routes send it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_service.formats import validation

# "standard_only" is Anthropic's word: a client may send it to a Claude model, and an alias may have other targets.
_STANDARD: Final = ("default", "standard", "standard_only")


def read(body: Mapping[str, Any]) -> str | None:
    """``Conversation.tier``. Raises InvalidRequest if it is not a string."""
    given = body.get("service_tier")
    if given is None:
        return None
    if not isinstance(given, str):
        validation.invalid("service_tier", "must be a string")
    return "standard" if given in _STANDARD else given
