"""Requests per minute, by Flask-Limiter in Redis: per key, and per address without a valid key.

A moving window: at most N requests in any 60 s, counted in Redis by one script,
so exact across workers. While Redis is away each worker grants its share of the
limit from memory and tries Redis again by itself.

Flask-Limiter's own headers stay off: it computes them after the view, with more
Redis reads, where a failure would turn a paid answer into a 500.
"""

from __future__ import annotations

import math
import re
import time

from flask import Flask, current_app, g, request
from flask_limiter import Limiter, RateLimitExceeded
from limits.errors import StorageError
from limits.storage import MemoryStorage
from redis import RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from llm_service.api.auth import Identity
from llm_service.errors import Limit, RateLimited
from llm_service.service import current

WINDOW = 60
# Flask-Limiter has no "unlimited": this many a minute is none.
UNLIMITED = 10**9

# A black-holed Redis must cost a fraction of a second once, not a minute per call (redis-py's default).
REDIS_OPTIONS = {
    "socket_timeout": 0.25,
    "socket_connect_timeout": 0.25,
    "retry": Retry(NoBackoff(), 0),
    "max_connections": 2_000,
}


def _identity() -> Identity | None:
    identity: Identity | None = g.get("identity")
    return identity


def _known() -> bool:
    identity = _identity()
    return identity is not None and identity.error is None


def key() -> str:
    """Whose limit. Never empty: Flask-Limiter skips a limit with an empty key."""
    identity = _identity()
    if identity is not None and identity.error is None and identity.caller is not None:
        return f"key:{identity.caller.key_id}"
    return f"ip:{request.remote_addr or 'unknown'}"


def quota() -> int:
    service = current()
    identity = _identity()
    if identity is not None and identity.error is None and identity.caller is not None:
        rpm = service.catalog.requests_per_minute(identity.caller)
        return UNLIMITED if rpm is None else rpm
    return service.settings.anonymous_rpm


def build(app: Flask, redis_url: str, workers: int) -> Limiter:
    """The limiter of one application, checked before every guarded route."""
    # The library's name for what redis-py calls unix://.
    storage_uri = re.sub(r"\Aunix://", "redis+unix://", redis_url)

    def provider() -> str:
        limit = quota()
        if isinstance(limiter.limiter.storage, MemoryStorage) and not storage_uri.startswith("memory:"):
            limit = max(1, limit // workers)
        return f"{limit} per {WINDOW} second"

    limiter = Limiter(
        key,
        application_limits=[provider],
        strategy="moving-window",
        storage_uri=storage_uri,
        storage_options=REDIS_OPTIONS if not storage_uri.startswith("memory:") else {},  # type: ignore[arg-type]
        headers_enabled=False,
        in_memory_fallback_enabled=True,
        key_prefix="llm",
    )
    limiter.request_filter(_not_counted)
    limiter.init_app(app)
    app.extensions["llm_service_limiter"] = limiter
    return limiter


def _not_counted() -> bool:
    """Routes open to all, preflights, and a caller's own look at its account."""
    if request.method == "OPTIONS" or request.blueprint in current_app.extensions["llm_service_open"]:
        return True
    return _known() and (request.method in ("GET", "HEAD") or quota() >= UNLIMITED)


def breach(error: RateLimitExceeded) -> RateLimited:
    """Flask-Limiter's refusal as ours, with what is left and when more is."""
    limiter: Limiter = current_app.extensions["llm_service_limiter"]
    allowed = quota()
    reset, remaining = WINDOW, 0
    breached = limiter.current_limit
    if breached is not None:
        try:
            window = breached.window
            reset = min(WINDOW, max(1, math.ceil(window.reset_time - time.time())))
            remaining = max(0, window.remaining)
        except (RedisError, StorageError, OSError):
            pass  # the refusal stands; only the time of the reset is the longest possible
    scope = "key" if _known() else "ip"
    what = "API key" if scope == "key" else "address without a valid API key"
    return RateLimited(
        f"Rate limit reached: {allowed} requests per minute for this {what}. Retry in {reset} s.",
        retry_after=reset,
        limit=Limit("requests", scope, allowed, WINDOW, remaining, reset),
    )


def look(key_id: str, allowed: int) -> tuple[int, int]:
    """(remaining, seconds to the reset) of a key's limit, without counting.

    Raises RedisError, OSError.
    """
    from limits import parse

    limiter: Limiter = current_app.extensions["llm_service_limiter"]
    stats = limiter.limiter.get_window_stats(parse(f"{allowed} per {WINDOW} second"), "llm", f"key:{key_id}", "global")
    return max(0, stats.remaining), max(0, math.ceil(stats.reset_time - time.time()))
