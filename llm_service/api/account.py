"""The account of the caller's key: what was spent, and what is left of its limits and budgets."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, Response, jsonify, request

from llm_service.api import limits
from llm_service.api.authentication import caller, require_key
from llm_service.core import periods
from llm_service.core.call import Caller
from llm_service.core.limits import Budget, Limits
from llm_service.core.money import as_dollars
from llm_service.service import current
from llm_service.store import budgets, keys, requests

blueprint = Blueprint("account", __name__)
blueprint.before_request(require_key)


@blueprint.get("/v1/key")
def key() -> Response:
    """This key: its labels, all limits and budgets that its calls count against, and what is left of them."""
    holder, catalog = caller(), current().catalog
    stored = keys.find(holder.key_id)
    return jsonify(
        {
            "id": holder.key_id,
            "name": holder.name,
            "org": holder.org,
            "user": holder.user,
            "tier": holder.tier,
            "models": list(holder.models) or None,
            "networks": list(stored.networks) or None if stored else None,
            "expires_at": stored.expires_at.isoformat() if stored and stored.expires_at else None,
            "requests_per_minute": _requests(holder),
            "tokens_per_minute": catalog.tokens_per_minute(holder),
            "parallel": catalog.parallel_calls(holder),
            "shared_limits": [_shared(item) for item in holder.limits if _applies_here(item)],
            "budgets": _budgets(holder),
        }
    )


@blueprint.get("/v1/usage")
def usage() -> Response:
    """What this key spent today and in the last 7 and 30 days (UTC), and the budgets that its calls count against."""
    holder = caller()
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    spans = {"today": midnight, "7d": now - timedelta(days=7), "30d": now - timedelta(days=30)}
    spent = {name: _spent(holder.key_id, since) for name, since in spans.items()}
    return jsonify({"key_id": holder.key_id, **spent, "budgets": _budgets(holder)})


def _requests(holder: Caller) -> dict[str, Any] | None:
    allowed = current().catalog.requests_per_minute(holder)
    if allowed is None:
        return None
    remaining = reset = None
    with suppress(*limits.REDIS_FAILURES):  # the values stay null while Redis is away
        remaining, reset = limits.remaining(limits.Window("key", holder.key_id, allowed))
    return {"limit": allowed, "window_seconds": limits.WINDOW, "remaining": remaining, "reset_seconds": reset}


def _applies_here(item: Limits) -> bool:
    """Whether the limit is shown to this caller. Limits of networks that it does not call from are not."""
    return item.kind == "model" or item.applies(request.remote_addr or "", ())


def _shared(item: Limits) -> dict[str, Any]:
    return {
        "scope": item.kind,
        "name": item.name or None,
        "requests_per_minute": item.rpm,
        "tokens_per_minute": item.tpm,
        "parallel": item.parallel,
    }


def _budgets(holder: Caller) -> list[dict[str, Any]]:
    zone, now = current().settings.time_zone, datetime.now(UTC)
    spent = budgets.spent(holder.budgets, zone, now)
    return [
        _budget(item, spent[item.scope, periods.period_id(item.period, zone, now)], zone, now)
        for item in holder.budgets
    ]


def _budget(item: Budget, spent: int, zone: str, now: datetime) -> dict[str, Any]:
    ends = periods.ends_at(item.period, zone, now)
    return {
        "scope": item.kind,
        "model": item.model or None,
        "amount_usd": as_dollars(item.amount_nanousd),
        "per": item.period,
        "spent_usd": as_dollars(spent),
        "left_usd": as_dollars(max(0, item.amount_nanousd - spent)),
        "resets_at": None if ends is None else ends.isoformat(),
    }


def _spent(key_id: str, since: datetime) -> dict[str, Any]:
    """The key's calls and cost since then. ``cost_usd`` is null, not 0, if there were calls but no cost is known."""
    rows = requests.usage(by="key", since=since, key=key_id)
    names = ("calls", "input_tokens", "output_tokens", "cached_tokens", "unpriced_calls")
    if not rows:
        return {**dict.fromkeys(names, 0), "cost_usd": 0.0}
    return {**{name: getattr(rows[0], name) for name in names}, "cost_usd": as_dollars(rows[0].cost_nanousd)}
