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
from functools import lru_cache
from typing import Any

from flask import Flask, current_app, g, request
from flask_limiter import Limiter, RateLimitExceeded
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from redis import RedisError
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from llm_service.api.auth import Identity
from llm_service.conversation import Caller
from llm_service.errors import Limit, RateLimited, Unavailable
from llm_service.redis_pipe import Pipe
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


class SharedStorage(RedisStorage):
    """Counts over the one connection of the process (``redis_pipe``)."""

    STORAGE_SCHEME = ["shared+redis", "shared+rediss", "shared+unix"]  # noqa: RUF012 - as the library declares it

    def __init__(self, uri: str, **options: Any) -> None:
        super().__init__(uri.removeprefix("shared+"), **options)
        self._pipe = Pipe(self.storage.connection_pool)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        script = self.lua_acquire_moving_window
        arguments = (1, self.prefixed_key(key), time.time(), limit, expiry, amount)
        try:
            return bool(self._pipe.ask("EVALSHA", script.sha, *arguments))
        except NoScriptError:  # a server that was started since
            return bool(self._pipe.ask("EVAL", script.script, *arguments))


class QuickLimiter(Limiter):
    """Flask-Limiter with a short way for the usual case: one limit, which is not reached.

    Its own way through all the limits there could be costs as much as a bare endpoint. It is taken for what is over
    the limit (which Flask-Limiter then counts and finds once more, adding nothing) and while Redis is away.
    """

    def _check_request_limit(self, callable_name: str | None = None, in_middleware: bool = True) -> None:
        if not (in_middleware and request.endpoint and self._grants()):
            super()._check_request_limit(callable_name, in_middleware)

    def _grants(self) -> bool:
        counting = self.limiter
        if not isinstance(counting.storage, RedisStorage):
            return False
        try:
            return _not_counted() or counting.hit(_window(quota()), "llm", key(), "global")
        except (RedisError, OSError):
            return False


def _caller() -> Caller | None:
    """The holder of a valid key."""
    identity: Identity | None = g.get("identity")
    return identity.caller if identity is not None and identity.error is None else None


def key() -> str:
    """Whose limit. Never empty: Flask-Limiter skips a limit with an empty key."""
    caller = _caller()
    return f"key:{caller.key_id}" if caller is not None else f"ip:{request.remote_addr or 'unknown'}"


def quota() -> int:
    service, caller = current(), _caller()
    if caller is None:
        return service.settings.anonymous_rpm
    rpm = service.catalog.requests_per_minute(caller)
    return UNLIMITED if rpm is None else rpm


def build(app: Flask, redis_url: str, workers: int) -> Limiter:
    """The limiter of one application, checked before every guarded route."""
    storage_uri = re.sub(r"\A(redis|rediss|unix)://", r"shared+\1://", redis_url)

    def provider() -> str:
        limit = quota()
        if isinstance(limiter.limiter.storage, MemoryStorage) and not storage_uri.startswith("memory:"):
            limit = max(1, limit // workers)
        return f"{limit} per {WINDOW} second"

    limiter = QuickLimiter(
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
    _end_timers(limiter)
    app.extensions["llm_service_limiter"] = limiter
    return limiter


def _end_timers(limiter: Limiter) -> None:
    """A memory storage begins with a timer, a thread that a fork would break; its first use makes another."""
    for storage in (limiter.storage, limiter._fallback_storage):
        if isinstance(storage, MemoryStorage):
            storage.timer.cancel()
            storage.timer.join()


def _not_counted() -> bool:
    """Routes open to all, preflights, and a caller's own look at its account."""
    if request.method == "OPTIONS" or request.blueprint in current_app.extensions["llm_service_open"]:
        return True
    identity: Identity | None = g.get("identity")
    if identity is not None and isinstance(identity.error, Unavailable):
        return True  # the key could not be looked up: not its address' fault, and what follows is a 503
    return _caller() is not None and (request.method in ("GET", "HEAD") or quota() >= UNLIMITED)


@lru_cache(maxsize=1024)
def _window(allowed: int) -> RateLimitItem:
    return RateLimitItemPerSecond(allowed, WINDOW)


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
    scope = "ip" if _caller() is None else "key"
    what = "API key" if scope == "key" else "address without a valid API key"
    return RateLimited(
        f"Rate limit reached: {allowed} requests per minute for this {what}. Retry in {reset} s.",
        retry_after=reset,
        limit=Limit("requests", scope, allowed, WINDOW, remaining, reset),
    )


def look(key_id: str, allowed: int) -> tuple[int, int]:
    """(remaining, seconds until more is left; 0 when nothing is used) of a key's limit, without counting.

    Raises RedisError, OSError.
    """
    from limits.strategies import MovingWindowRateLimiter

    limiter: Limiter = current_app.extensions["llm_service_limiter"]
    # Redis itself, also while the limits are counted in this worker's memory, which is only a share of the truth.
    window = MovingWindowRateLimiter(limiter.storage)
    stats = window.get_window_stats(_window(allowed), "llm", f"key:{key_id}", "global")
    if stats.remaining >= allowed:
        return allowed, 0
    return max(0, stats.remaining), max(0, math.ceil(stats.reset_time - time.time()))
