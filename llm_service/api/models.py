"""``GET /v1/models``: the models that the caller's key may use, in the formats of both vendors.

The list is in Anthropic's format if the request has the header ``anthropic-version``
(Anthropic's SDKs always send it), or else in OpenAI's.

Both have fields of ours beside the vendor's: what the catalogue knows about the model
that would be asked first, and what it costs. Anthropic's own ``capabilities`` is null,
because the catalogue does not know all of them.
"""

from __future__ import annotations

from dataclasses import fields
from fnmatch import fnmatchcase
from typing import Any

from flask import Blueprint, Response, jsonify, request

from llm_service.api.authentication import caller, require_key
from llm_service.catalog.prices import Rates
from llm_service.core.errors import InvalidRequest
from llm_service.core.target import Target
from llm_service.service import current

blueprint = Blueprint("models", __name__)
blueprint.before_request(require_key)

# The catalogue has no release dates, but the types of both vendors require one. 1970 is at least no invented day.
_CREATED = 0
_CREATED_AT = "1970-01-01T00:00:00Z"
_MAX_PAGE = 1000
_PRICED = tuple(item.name for item in fields(Rates) if item.type in ("Decimal", "Decimal | None"))


@blueprint.get("/v1/models")
def models() -> Response:
    """List the models that this key may use."""
    catalog, holder = current().catalog, caller()
    names = [name for name, _ in catalog.names(holder)]
    if "anthropic-version" in request.headers:
        return jsonify(_page([_anthropic(name, catalog.resolve(name, holder)) for name in names]))
    return jsonify({"object": "list", "data": [_openai(name, catalog.resolve(name, holder)) for name in names]})


@blueprint.get("/v1/models/<path:name>")
def model(name: str) -> Response:
    """Show one model. The name may be any that a call may use."""
    targets = current().catalog.resolve(name, caller())
    return jsonify(_anthropic(name, targets) if "anthropic-version" in request.headers else _openai(name, targets))


def _openai(name: str, targets: tuple[Target, ...]) -> dict[str, Any]:
    target = targets[0]
    return {
        "id": name,
        "object": "model",
        "created": _CREATED,
        "owned_by": target.provider.name,
        "shutdown_date": None if target.retires is None else target.retires.isoformat(),
        "context_window": target.context,
        "max_output_tokens": target.max_output,
        "capabilities": _capabilities(target),
        **_facts(targets),
    }


def _capabilities(target: Target) -> dict[str, Any]:
    provider = target.provider
    return {
        "sampling": target.sampling,
        "thinking": target.thinking,
        "efforts": list(target.efforts),
        "completions": any(fnmatchcase(target.model, pattern) for pattern in provider.completions),
        "counts_tokens": provider.counts_tokens,
    }


def _facts(targets: tuple[Target, ...]) -> dict[str, Any]:
    """The targets in the order in which they are asked, and the replacement and the price of the first."""
    return {
        "targets": [target.name for target in targets],
        "replacement": targets[0].replacement,
        "pricing": _pricing(targets[0]),
    }


def _pricing(target: Target) -> dict[str, Any] | None:
    """Dollars per million tokens (``web_searches`` and ``requests``: per thousand). None: the price is unknown."""
    rates = target.price.in_force() if target.price is not None else None
    if rates is None:
        return None
    by_kind = {kind: getattr(rates, kind) for kind in _PRICED}
    known = {kind: float(rate) for kind, rate in by_kind.items() if rate is not None}
    return {"currency": "USD", **known, "source": rates.source}


def _anthropic(name: str, targets: tuple[Target, ...]) -> dict[str, Any]:
    target = targets[0]
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": _CREATED_AT,
        "lifecycle": _lifecycle(target),
        "retires_at": None if target.retires is None else f"{target.retires}T00:00:00Z",
        "max_input_tokens": target.context,
        "max_tokens": target.max_output,
        "capabilities": None,
        "gateway_capabilities": _capabilities(target),
        **_facts(targets),
    }


def _lifecycle(target: Target) -> str:
    """Anthropic's word for where the model stands. The catalogue's date may have been moved, so none is "retired"."""
    return "active" if target.retires is None else "deprecated"


def _page(items: list[dict[str, Any]]) -> dict[str, Any]:
    """One page, chosen by Anthropic's query parameters ``limit``, ``after_id`` and ``before_id``."""
    limit = _limit(request.args.get("limit", "20"))
    ids = [item["id"] for item in items]
    start, end = 0, len(items)
    if (after := request.args.get("after_id")) is not None:
        start = _index(ids, after, "after_id") + 1
    if (before := request.args.get("before_id")) is not None:
        end = _index(ids, before, "before_id")
        start = max(start, end - limit)
    page = items[start : min(end, start + limit)]
    return {
        "data": page,
        "has_more": (start > 0) if before is not None else start + limit < end,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= _MAX_PAGE):
        raise InvalidRequest(f"limit must be a whole number from 1 to {_MAX_PAGE}.", param="limit")
    return int(text)


def _index(ids: list[str], cursor: str, param: str) -> int:
    if cursor not in ids:
        raise InvalidRequest(f"{param} must be the id of a model in this list.", param=param)
    return ids.index(cursor)
