"""``GET /v1/models``: one list in both vendors' shapes.

In Anthropic's when the request carries ``anthropic-version`` (its SDKs always
send it), else in OpenAI's. The list is what the caller's key may use.

Both have fields of ours beside the vendor's: what the catalogue knows of the model
that an answer would come from, and what it costs. Anthropic's own ``capabilities``
are null, as the catalogue does not know them all.
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

# The catalogue knows no release dates; both vendors' types want one, so: the epoch, not an invented day.
_CREATED = 0
_CREATED_AT = "1970-01-01T00:00:00Z"
_MAX_PAGE = 1000
_PRICED = tuple(item.name for item in fields(Rates) if item.type in ("Decimal", "Decimal | None"))


@blueprint.get("/v1/models")
def models() -> Response:
    """The models this key may use."""
    catalog, holder = current().catalog, caller()
    names = [name for name, _ in catalog.names(holder)]
    if "anthropic-version" in request.headers:
        return jsonify(_page([_anthropic(name, catalog.resolve(name, holder)) for name in names]))
    return jsonify({"object": "list", "data": [_openai(name, catalog.resolve(name, holder)) for name in names]})


@blueprint.get("/v1/models/<path:name>")
def model(name: str) -> Response:
    """One model by the name a call may use."""
    targets = current().catalog.resolve(name, caller())
    return jsonify(_anthropic(name, targets) if "anthropic-version" in request.headers else _openai(name, targets))


def _openai(name: str, targets: tuple[Target, ...]) -> dict[str, Any]:
    target = targets[0]
    return {
        "id": name,
        "object": "model",
        "created": _CREATED,
        "owned_by": target.provider.name,
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
    """Who would be asked, in this order, and what the first of them costs."""
    return {"targets": [target.name for target in targets], "pricing": _pricing(targets[0])}


def _pricing(target: Target) -> dict[str, Any] | None:
    """Dollars per million tokens; per thousand for ``web_searches`` and ``requests``. None: unknown."""
    rates = target.price.in_force() if target.price is not None else None
    if rates is None:
        return None
    known = {kind: getattr(rates, kind) for kind in _PRICED}
    told = {kind: float(rate) for kind, rate in known.items() if rate is not None}
    return {"currency": "USD", **told, "source": rates.source}


def _anthropic(name: str, targets: tuple[Target, ...]) -> dict[str, Any]:
    target = targets[0]
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": _CREATED_AT,
        "lifecycle": "active",
        "max_input_tokens": target.context,
        "max_tokens": target.max_output,
        "capabilities": None,
        "gateway_capabilities": _capabilities(target),
        **_facts(targets),
    }


def _page(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Anthropic's cursors: ``limit``, ``after_id``, ``before_id``."""
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
        raise InvalidRequest(f"limit: must be a whole number from 1 to {_MAX_PAGE}.", param="limit")
    return int(text)


def _index(ids: list[str], cursor: str, param: str) -> int:
    if cursor not in ids:
        raise InvalidRequest(f"{param}: is no model of this list.", param=param)
    return ids.index(cursor)
