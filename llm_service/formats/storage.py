"""The fields that make OpenAI keep content, and who may use them.

OpenAI keeps every response for 30 days unless the request says ``"store": false``. This service always says so, because
otherwise its promise to keep no content would end at the vendor. The operator may allow storage for one key
(``Caller.storage``) or for all (``Provider.storage``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from llm_service.core.call import Call
from llm_service.core.errors import UnsupportedParameter
from llm_service.core.target import Provider

SETTING = "LLM_SERVICE_UPSTREAM_STORAGE"

# Fields that need an answer which the vendor keeps, or that make it keep one. ``false`` needs no storage.
NEEDING = ("store", "background", "conversation", "previous_response_id")


# The field that has Anthropic keep a conversation.
NEEDING_ANTHROPIC = ("thread",)


def wanted(body: Mapping[str, Any], needing: Iterable[str] = NEEDING) -> str | None:
    """The first field of ``body`` that needs storage."""
    return next((name for name in needing if body.get(name) is not None and body[name] is not False), None)


def _allowed(call: Call, provider: Provider) -> bool:
    return provider.storage if call.caller.storage is None else call.caller.storage


def may_refer(call: Call, provider: Provider) -> bool:
    """Whether the request may refer to items by their ids alone: the vendor may have kept them for this caller.

    Without storage it keeps nothing. With storage it keeps only what a request asks it to keep: a client that does not
    speak about storage has got ``"store": false`` from this service in its earlier requests too.
    """
    return _allowed(call, provider) and (call.body.get("store") is not None or wanted(call.body) is not None)


def check(call: Call, provider: Provider, needing: Iterable[str] = NEEDING) -> None:
    """Raises UnsupportedParameter naming the field if the vendor may not keep content.

    The setting of the key counts, and without one the setting of the provider.
    """
    field = None if _allowed(call, provider) else wanted(call.body, needing)
    if field is not None:
        raise UnsupportedParameter(
            f"{field} is not allowed, because it makes the provider keep content. The operator of this service can "
            f"allow it for this key (keys update --storage allow) or for every key ({SETTING}).",
            param=field,
            code="storage_not_allowed",
        )


def write(body: MutableMapping[str, Any], provider: Provider, *, by_default: bool = True) -> None:
    """Tell the vendor to keep nothing, unless ``body`` asks for storage, which ``check`` must have allowed.

    ``by_default`` is for a provider whose row does not say whether it gets the field. A server whose row says that it
    does not know the field gets it only from a caller who asks for storage.
    """
    if body.get("store") is True:
        return
    if by_default if provider.store is None else provider.store:
        body["store"] = False
    elif provider.store is False:
        body.pop("store", None)
