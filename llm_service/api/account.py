"""The caller's own account: what it spent and what it may still do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, Response, jsonify
from redis import RedisError

from llm_service.api import limits
from llm_service.api.auth import caller, require_key
from llm_service.prices import as_dollars
from llm_service.service import current
from llm_service.store import keys, requests

blueprint = Blueprint("account", __name__)
blueprint.before_request(require_key)


@blueprint.get("/v1/key")
def key() -> Response:
    """The key's labels and limits, and what is left of them now."""
    holder = caller()
    stored = keys.find(holder.key_id)
    allowed = current().catalog.requests_per_minute(holder)
    limit: dict[str, Any] | None = None
    if allowed is not None:
        limit = {"limit": allowed, "window_seconds": limits.WINDOW, "remaining": None, "reset_seconds": None}
        try:
            limit["remaining"], limit["reset_seconds"] = limits.look(holder.key_id, allowed)
        except (RedisError, OSError):
            pass  # null: not known while Redis is away
    return jsonify(
        {
            "id": holder.key_id,
            "name": holder.name,
            "org": holder.org,
            "user": holder.user,
            "tier": holder.tier,
            "models": list(holder.models) or None,
            "expires_at": stored.expires_at.isoformat() if stored and stored.expires_at else None,
            "requests_per_minute": limit,
        }
    )


@blueprint.get("/v1/usage")
def usage() -> Response:
    """The key's spend today, over seven and over thirty days (UTC)."""
    holder = caller()
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    periods = {"today": midnight, "7d": now - timedelta(days=7), "30d": now - timedelta(days=30)}
    return jsonify({"key_id": holder.key_id, **{name: _spent(holder.key_id, since) for name, since in periods.items()}})


def _spent(key_id: str, since: datetime) -> dict[str, Any]:
    rows = requests.usage(by="key", since=since, key=key_id)
    row = rows[0] if rows else None
    names = ("calls", "input_tokens", "output_tokens", "cached_tokens", "unpriced_calls")
    spent: dict[str, Any] = {name: (getattr(row, name) or 0) if row else 0 for name in names}
    spent["cost_usd"] = as_dollars(row.cost_nanousd or 0) if row else 0.0
    return spent
