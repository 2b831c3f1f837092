"""Requests per minute, by Flask-Limiter in Redis: per key, user, organisation, network, model and for the whole
service, and per address without a valid key.

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
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha1
from typing import Any, Final

from flask import Flask, current_app, g, request
from flask_limiter import ApplicationLimit, Limiter, RateLimitExceeded
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from redis import RedisError
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from llm_service.api.authentication import Identity
from llm_service.billing.admission import SCOPE_LABELS
from llm_service.core.call import Call, Caller
from llm_service.core.errors import Limit, RateLimited, Unavailable
from llm_service.service import current
from llm_service.store.redis_pipe import Pipe

WINDOW = 60
# What a look at the counters raises while Redis is away.
REDIS_FAILURES: Final = (RedisError, StorageError, OSError)
# Kinds of scopes that Flask-Limiter itself counts.
KINDS: Final = ("key", "ip", "user", "org", "network", "service")

# A black-holed Redis must cost a fraction of a second once, not a minute per call (redis-py's default).
REDIS_OPTIONS = {
    "socket_timeout": 0.25,
    "socket_connect_timeout": 0.25,
    "retry": Retry(NoBackoff(), 0),
    "max_connections": 2_000,
}

# As the library's acquire_moving_window.lua, and over its list, which is in order, the newest first; but it tells how
# many are in the window and the time of the oldest, and keeps a time as it was given, so that it can be found again.
_ACQUIRE: Final = """
local limit, since = tonumber(ARGV[2]), tonumber(ARGV[1]) - tonumber(ARGV[3])
local function is_in(entry) return entry and tonumber(entry) >= since end
if is_in(redis.call('LINDEX', KEYS[1], limit - 1)) then return {} end
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], 0, limit - 1)
redis.call('EXPIRE', KEYS[1], ARGV[3])
local last, beyond = 0, redis.call('LLEN', KEYS[1])
while beyond - last > 1 do
  local middle = math.floor((last + beyond) / 2)
  if is_in(redis.call('LINDEX', KEYS[1], middle)) then last = middle else beyond = middle end
end
return {last + 1, redis.call('LINDEX', KEYS[1], last)}"""
_ACQUIRE_SHA: Final = sha1(_ACQUIRE.encode(), usedforsecurity=False).hexdigest()


class SharedStorage(RedisStorage):
    """Counts over the one connection of the process (``redis_pipe``), and takes back what it counted."""

    STORAGE_SCHEME = ["shared+redis", "shared+rediss", "shared+unix"]  # noqa: RUF012 - as the library declares it

    def __init__(self, uri: str, **options: Any) -> None:
        super().__init__(uri.removeprefix("shared+"), **options)
        self._pipe = Pipe(self.storage.connection_pool)

    def acquire_at(self, key: str, now: float, limit: int, expiry: int) -> tuple[int, float] | None:
        """Count one; how many are in the window then, and the time of the oldest. None: there is no room."""
        arguments = (1, self.prefixed_key(key), now, limit, expiry)
        try:
            told = self._pipe.ask("EVALSHA", _ACQUIRE_SHA, *arguments)
        except NoScriptError:  # a server that was started since
            told = self._pipe.ask("EVAL", _ACQUIRE, *arguments)
        return (told[0], float(told[1])) if told else None

    def release_at(self, key: str, at: float) -> None:
        """Forget one entry of that time."""
        self._pipe.ask("LREM", self.prefixed_key(key), 1, at)


@dataclass(frozen=True, slots=True)
class Window:
    """A limit of requests per minute that applies to a request: whose, by what kind of scope, and how many."""

    kind: str
    name: str
    allowed: int

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def stored_key(self) -> str:
        """As Flask-Limiter's application limits name it."""
        return _item(self.allowed).key_for("llm", self.key, "global")


class QuickLimiter(Limiter):
    """Flask-Limiter, which evaluates its limits one by one and keeps what it counted when a later one refuses, with
    a way of our own while Redis answers: all the windows of a request or none, and each can be given back.

    Its own way through all the limits there could be costs as much as a bare endpoint. It is taken while Redis is away.
    """

    def _check_request_limit(self, callable_name: str | None = None, in_middleware: bool = True) -> None:
        storage = self.limiter.storage
        if not (in_middleware and request.endpoint and isinstance(storage, SharedStorage)):
            super()._check_request_limit(callable_name, in_middleware)
            return
        if _not_counted():
            return
        try:
            breached = _take(storage, windows())
        except (RedisError, OSError):
            super()._check_request_limit(callable_name, in_middleware)
            return
        if breached is not None:
            raise _refusal(breached, *_left(breached))


def _take(storage: SharedStorage, wanted: Iterable[Window]) -> Window | None:
    """Count the request in each; the first that has no room, after which it is counted in none."""
    granted: list[tuple[str, float]] = g.setdefault("granted", [])
    for window in wanted:
        now = time.time()
        counted = storage.acquire_at(window.stored_key, now, window.allowed, WINDOW)
        if counted is None:
            give_back()
            return window
        granted.append((window.stored_key, now))
        used, oldest = counted
        left = _limit(window, window.allowed - used, max(1, math.ceil(oldest + WINDOW - now)))
        g.tightest = tightest(g.get("tightest"), left)
    return None


def tightest(*found: Limit | None) -> Limit | None:
    """The one of which the smallest part is left; None are no limits."""
    return min((item for item in found if item is not None), key=lambda item: item.remaining / item.quota, default=None)


def give_back() -> None:
    """The request was none: the ledger, or a later limit, did not admit it."""
    granted: list[tuple[str, float]] = g.pop("granted", [])
    storage = current_app.extensions["llm_service_limiter"].storage
    try:
        for key, at in granted:
            storage.release_at(key, at)
    except (RedisError, OSError):
        pass  # it stays counted for a minute


def _caller() -> Caller | None:
    """The holder of a valid key."""
    identity: Identity | None = g.get("identity")
    return identity.caller if identity is not None and identity.error is None else None


def windows() -> list[Window]:
    """Those of the current request, its own first. One of a model is counted when the body has been read."""
    caller, address = _caller(), request.remote_addr or "unknown"
    if caller is None:
        return [Window("ip", address, current().settings.anonymous_rpm)]
    found = []
    rpm = current().catalog.requests_per_minute(caller)
    if rpm is not None:
        found.append(Window("key", caller.key_id, rpm))
    for item in caller.limits:
        if item.rpm is not None and item.kind != "model" and item.applies(address, ()):
            found.append(Window(item.kind, item.name, item.rpm))
    return found


def count_model(call: Call) -> None:
    """Count a call in the windows of its model.

    Raises:
        RateLimited: then it is counted nowhere.
    """
    limited = [item for item in call.caller.limits if item.kind == "model" and item.rpm is not None]
    storage = current_app.extensions["llm_service_limiter"].limiter.storage
    if not limited or not isinstance(storage, SharedStorage):  # in memory a worker's share of it says little
        return
    targets = [(target.provider.name, target.model) for target in call.targets]
    wanted = [Window("model", item.name, item.rpm or 0) for item in limited if item.applies("", targets)]
    try:
        breached = _take(storage, wanted)
    except (RedisError, OSError):
        return
    if breached is not None:
        raise _refusal(breached, *_left(breached))


def build(app: Flask, redis_url: str, workers: int) -> Limiter:
    """The limiter of one application, checked before every guarded route."""
    storage_uri = re.sub(r"\A(redis|rediss|unix)://", r"shared+\1://", redis_url)
    in_memory = storage_uri.startswith("memory:")

    def share(kind: str) -> str:
        found = _of_kind(kind)
        if not found:
            return ""  # no limit
        limit = found[0].allowed
        if isinstance(limiter.limiter.storage, MemoryStorage) and not in_memory:
            limit = max(1, limit // workers)
        return f"{limit} per {WINDOW} second"

    limiter = QuickLimiter(
        lambda: "unused",
        application_limits=[
            ApplicationLimit(partial(share, kind), key_function=partial(_key_of, kind)) for kind in KINDS
        ],
        strategy="moving-window",
        storage_uri=storage_uri,
        storage_options=REDIS_OPTIONS if not in_memory else {},  # type: ignore[arg-type]
        headers_enabled=False,
        in_memory_fallback_enabled=True,
        key_prefix="llm",
    )
    limiter.request_filter(_not_counted)
    limiter.init_app(app)
    _end_timers(limiter)
    app.extensions["llm_service_limiter"] = limiter
    return limiter


def _of_kind(kind: str) -> list[Window]:
    """The narrowest window of the kind, or none."""
    return sorted((item for item in windows() if item.kind == kind), key=lambda item: item.allowed)[:1]


def _key_of(kind: str) -> str:
    return _of_kind(kind)[0].key


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
    return _caller() is not None and request.method in ("GET", "HEAD")


@lru_cache(maxsize=1024)
def _item(allowed: int) -> RateLimitItem:
    return RateLimitItemPerSecond(allowed, WINDOW)


def breach(error: RateLimitExceeded) -> RateLimited:
    """Flask-Limiter's own refusal, made in memory, as ours."""
    limiter: Limiter = current_app.extensions["llm_service_limiter"]
    breached = limiter.current_limit
    kind = next((name for name in KINDS if breached is not None and f"/{name}:" in breached.key), "key")
    window = (_of_kind(kind) or windows())[0]
    reset, remaining = WINDOW, 0
    if breached is not None:
        try:
            reset = min(WINDOW, max(1, math.ceil(breached.window.reset_time - time.time())))
            remaining = max(0, breached.window.remaining)
        except REDIS_FAILURES:
            pass  # the refusal stands; only the time of the reset is the longest possible
    return _refusal(window, remaining, reset)


def _left(window: Window) -> tuple[int, int]:
    """(remaining, seconds until there is more) of one that has refused."""
    try:
        remaining, reset = look(window)
    except REDIS_FAILURES:
        return 0, WINDOW
    return remaining, min(WINDOW, max(1, reset))


def _refusal(window: Window, remaining: int, reset: int) -> RateLimited:
    return RateLimited(
        f"Rate limit reached: {window.allowed} requests per minute for {SCOPE_LABELS[window.kind]}. "
        f"Retry in {reset} s.",
        retry_after=reset,
        limit=_limit(window, remaining, reset),
    )


def _limit(window: Window, remaining: int, reset: int) -> Limit:
    return Limit("requests", window.kind, window.allowed, WINDOW, remaining, reset)


def headers(limit: Limit) -> dict[str, str]:
    """draft-ietf-httpapi-ratelimit-headers-10. No ``w`` without a window, no ``t`` where time does not help."""
    policy, state = f'"{limit.name}";q={limit.quota}', f'"{limit.name}";r={limit.remaining}'
    if limit.window:
        policy += f";w={limit.window}"
    if limit.reset:
        state += f";t={limit.reset}"
    return {"RateLimit-Policy": policy, "RateLimit": state}


def look(window: Window) -> tuple[int, int]:
    """(remaining, seconds until more is left; 0 when nothing is used), without counting.

    Raises RedisError, OSError.
    """
    from limits.strategies import MovingWindowRateLimiter

    limiter: Limiter = current_app.extensions["llm_service_limiter"]
    # Redis itself, also while the limits are counted in this worker's memory, which is only a share of the truth.
    counted = MovingWindowRateLimiter(limiter.storage)
    stats = counted.get_window_stats(_item(window.allowed), "llm", window.key, "global")
    if stats.remaining >= window.allowed:
        return window.allowed, 0
    return max(0, stats.remaining), max(0, math.ceil(stats.reset_time - time.time()))
