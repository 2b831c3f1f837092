"""What of a request makes OpenAI keep content, and who may ask for it.

OpenAI keeps every response for 30 days unless it is told not to. This service
tells it so, or its promise to keep no content would end at the vendor. Whoever
runs the service may allow callers to ask for storage, by key (``Caller.storage``)
or for all of them (``Provider.storage``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_service.core.call import Call
from llm_service.core.errors import UnsupportedParameter
from llm_service.core.target import Provider

SETTING = "LLM_SERVICE_UPSTREAM_STORAGE"

# Fields that need an answer kept at the vendor, or have it kept. ``store`` counts only when it is true.
NEEDING = ("store", "background", "conversation", "previous_response_id")


# The field that has Anthropic keep a conversation.
NEEDING_ANTHROPIC = ("thread",)


def wanted(body: Mapping[str, Any], needing: Iterable[str] = NEEDING) -> str | None:
    """The first field of ``body`` that needs storage."""
    return next((name for name in needing if body.get(name) is not None and body[name] is not False), None)


def check(call: Call, provider: Provider, needing: Iterable[str] = NEEDING) -> None:
    """Raises UnsupportedParameter naming the field unless ``provider`` may keep content: the key's word, else its."""
    allowed = provider.storage if call.caller.storage is None else call.caller.storage
    field = None if allowed else wanted(call.body, needing)
    if field is not None:
        raise UnsupportedParameter(
            f"{field} is not allowed: it has the provider keep content, which the operator of this service "
            f"would have to allow, for this key (keys update --storage allow) or for every key ({SETTING}).",
            param=field,
            code="storage_not_allowed",
        )
