"""Limits of requests per minute, with Flask-Limiter and Redis. There are limits for a key, user, organisation,
network, model and for the whole service, and for an address without a valid key.

The window moves: at most N requests are admitted in any 60 s. One script counts them
in Redis, so the limits are exact across workers. While Redis is away, each worker
grants its share of the limit from memory, and tries Redis again by itself.

Flask-Limiter's own headers are off. It computes them after the view, with more reads
from Redis, and a failure there would turn an answer that was paid for into a 500.
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

from llm_service.api import client_address
from llm_service.api.authentication import Identity
from llm_service.billing.admission import SCOPE_LABELS
from llm_service.core.call import Call, Caller
from llm_service.core.errors import Limit, RateLimited, Unavailable
from llm_service.service import current
from llm_service.store.redis_pipe import Pipe

WINDOW = 60
# The exceptions that reading the counters raises while Redis is away.
REDIS_FAILURES: Final = (RedisError, StorageError, OSError)
_ATTEMPTS: Final = 3
# The kinds of scopes that Flask-Limiter itself counts.
KINDS: Final = ("key", "ip", "user", "org", "network", "service")

# A Redis that does not answer must cost a fraction of a second once, not a minute per call (redis-py's default).
REDIS_OPTIONS = {
    "socket_timeout": 0.25,
    "socket_connect_timeout": 0.25,
    "retry": Retry(NoBackoff(), 0),
    "max_connections": 2_000,
}

# Like the library's acquire_moving_window.lua, and with the same list, whose newest entry is the first. But this script
# returns how many entries are in the window and the time of the oldest, and it stores each time unchanged, so that the
# entry can be found again.
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
    """Counts over the single connection of the process (``redis_pipe``), and can undo a count."""

    STORAGE_SCHEME = ["shared+redis", "shared+rediss", "shared+unix"]  # noqa: RUF012 - the library declares it so

    def __init__(self, uri: str, **options: Any) -> None:
        super().__init__(uri.removeprefix("shared+"), **options)
        self._pipe = Pipe(self.storage.connection_pool)

    def acquire_at(self, key: str, now: float, limit: int, expiry: int) -> tuple[int, float] | None:
        """Count a request. Returns how many are in the window then, and the time of the oldest; None if it is full."""
        arguments = (1, self.prefixed_key(key), now, limit, expiry)
        try:
            reply = self._pipe.ask("EVALSHA", _ACQUIRE_SHA, *arguments)
        except NoScriptError:  # the server was restarted and has no scripts
            reply = self._pipe.ask("EVAL", _ACQUIRE, *arguments)
        return (reply[0], float(reply[1])) if reply else None

    def release_at(self, key: str, at: float) -> None:
        """Remove the entry with the time ``at``."""
        self._pipe.ask("LREM", self.prefixed_key(key), 1, at)


@dataclass(frozen=True, slots=True)
class Window:
    """A limit of requests per minute that applies to a request: the kind and the name of its scope, and the number."""

    kind: str
    name: str
    allowed: int

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def stored_key(self) -> str:
        """The key that Flask-Limiter's application limits use in the storage."""
        return _item(self.allowed).key_for("llm", self.key, "global")


class QuickLimiter(Limiter):
    """Flask-Limiter with a faster check while Redis answers: a request is counted in all its windows or in none.

    Flask-Limiter's own check evaluates the limits one by one, and a request that a later limit rejects stays counted
    in the earlier ones. It also takes as long as a bare endpoint. It is used only while Redis is away.
    """

    def _check_request_limit(self, callable_name: str | None = None, in_middleware: bool = True) -> None:
        storage = self.limiter.storage
        if not (in_middleware and request.endpoint and isinstance(storage, SharedStorage)):
            self._check_in_memory(callable_name, in_middleware)
            return
        if _not_counted():
            return
        try:
            breached = _take(storage, windows())
        except (RedisError, OSError):
            self._check_in_memory(callable_name, in_middleware)
            return
        if breached is not None:
            raise _rejection(breached, *_remaining_of_full(breached))

    def _check_in_memory(self, callable_name: str | None, in_middleware: bool) -> None:
        """Flask-Limiter's own check, which counts in memory after Redis has failed.

        If several requests find at the same time that Redis is away, Flask-Limiter changes to memory for the first of
        them and raises the failure for the others. Those are checked once more, and then they are counted in memory.
        Redis may also come back and fail again in between, so there are a few attempts.

        Raises:
            Unavailable: Redis came back and failed at each attempt.
        """
        for _ in range(_ATTEMPTS):
            try:
                super()._check_request_limit(callable_name, in_middleware)
                return
            except REDIS_FAILURES:
                self.context.seen_limits.clear()  # otherwise the next attempt would skip the limits
        raise Unavailable("Limits cannot be checked right now. Try again in 1 s.", retry_after=1) from None


def _take(storage: SharedStorage, wanted: Iterable[Window]) -> Window | None:
    """Count the request in each window. If one is full, count it in none and return that window."""
    granted: list[tuple[str, float]] = g.setdefault("granted", [])
    for window in wanted:
        now = time.time()
        counted = storage.acquire_at(window.stored_key, now, window.allowed, WINDOW)
        if counted is None:
            undo()
            return window
        granted.append((window.stored_key, now))
        used, oldest = counted
        limit = _limit(window, window.allowed - used, max(1, math.ceil(oldest + WINDOW - now)))
        g.tightest = tightest(g.get("tightest"), limit)
    return None


def tightest(*candidates: Limit | None) -> Limit | None:
    """The limit of which the smallest part is left. None among the arguments are ignored."""
    known = [limit for limit in candidates if limit is not None]
    return min(known, key=lambda limit: limit.remaining / limit.quota, default=None)


def undo() -> None:
    """Remove the current request from all windows, because the ledger or a later limit rejected it."""
    granted: list[tuple[str, float]] = g.pop("granted", [])
    storage = current_app.extensions["llm_service_limiter"].storage
    try:
        for key, at in granted:
            storage.release_at(key, at)
    except (RedisError, OSError):
        pass  # then it stays counted for a minute


def _caller() -> Caller | None:
    """The caller of the current request if its key is valid."""
    identity: Identity | None = g.get("identity")
    return identity.caller if identity is not None and identity.error is None else None


def windows() -> list[Window]:
    """The windows of the current request, the key's first. Those of models are counted after the body is read."""
    caller, address = _caller(), request.remote_addr or "unknown"
    if caller is None:
        return [Window("ip", client_address.counted(address), current().settings.anonymous_rpm)]
    result = []
    rpm = current().catalog.requests_per_minute(caller)
    if rpm is not None:
        result.append(Window("key", caller.key_id, rpm))
    for item in caller.limits:
        if item.rpm is not None and item.kind != "model" and item.applies(address, ()):
            result.append(Window(item.kind, item.name, item.rpm))
    return result


def count_model(call: Call) -> None:
    """Count a call in the windows of its model.

    Raises:
        RateLimited: A window is full. The call is counted in none then.
    """
    limited = [item for item in call.caller.limits if item.kind == "model" and item.rpm is not None]
    storage = current_app.extensions["llm_service_limiter"].limiter.storage
    if not limited or not isinstance(storage, SharedStorage):  # one worker's share in memory would mean little
        return
    targets = [(target.provider.name, target.model) for target in call.targets]
    wanted = [Window("model", item.name, item.rpm or 0) for item in limited if item.applies("", targets)]
    try:
        breached = _take(storage, wanted)
    except (RedisError, OSError):
        return
    if breached is not None:
        raise _rejection(breached, *_remaining_of_full(breached))


def build(app: Flask, redis_url: str, workers: int) -> Limiter:
    """The limiter of one application. It is checked before every route that is not open to all."""
    storage_uri = re.sub(r"\A(redis|rediss|unix)://", r"shared+\1://", redis_url)
    in_memory = storage_uri.startswith("memory:")

    def share(kind: str) -> str:
        narrowest = _of_kind(kind)
        if not narrowest:
            return ""  # no limit
        limit = narrowest[0].allowed
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
    """A list with the window of this kind that allows least, or an empty list."""
    return sorted((item for item in windows() if item.kind == kind), key=lambda item: item.allowed)[:1]


def _key_of(kind: str) -> str:
    return _of_kind(kind)[0].key


def _end_timers(limiter: Limiter) -> None:
    """End the timers of storages in memory: they are threads, which do not survive a fork. The first use starts one."""
    for storage in (limiter.storage, limiter._fallback_storage):
        if isinstance(storage, MemoryStorage):
            storage.timer.cancel()
            storage.timer.join()


def _not_counted() -> bool:
    """Whether the request is not counted: routes open to all, preflights, and a caller's GET requests."""
    if request.method == "OPTIONS" or request.blueprint in current_app.extensions["llm_service_open"]:
        return True
    identity: Identity | None = g.get("identity")
    if identity is not None and isinstance(identity.error, Unavailable):
        return True  # the key could not be looked up, so a 503 follows; it must not count against the address
    return _caller() is not None and request.method in ("GET", "HEAD")


@lru_cache(maxsize=1024)
def _item(allowed: int) -> RateLimitItem:
    return RateLimitItemPerSecond(allowed, WINDOW)


def rate_limited(error: RateLimitExceeded) -> RateLimited:
    """Our error for Flask-Limiter's own, which it raises when it counts in memory."""
    limiter: Limiter = current_app.extensions["llm_service_limiter"]
    breached = limiter.current_limit
    kind = next((name for name in KINDS if breached is not None and f"/{name}:" in breached.key), "key")
    window = (_of_kind(kind) or windows())[0]
    reset, left = WINDOW, 0
    if breached is not None:
        try:
            reset = min(WINDOW, max(1, math.ceil(breached.window.reset_time - time.time())))
            left = max(0, breached.window.remaining)
        except REDIS_FAILURES:
            pass  # the request is rejected in any case; the time of the reset is then the longest possible
    return _rejection(window, left, reset)


def _remaining_of_full(window: Window) -> tuple[int, int]:
    """(requests that remain, seconds until there are more) of a window that is full."""
    try:
        left, reset = remaining(window)
    except REDIS_FAILURES:
        return 0, WINDOW
    return left, min(WINDOW, max(1, reset))


def _rejection(window: Window, left: int, reset: int) -> RateLimited:
    return RateLimited(
        f"Rate limit reached: {window.allowed} requests per minute for {SCOPE_LABELS[window.kind]}. "
        f"Retry in {reset} s.",
        retry_after=reset,
        limit=_limit(window, left, reset),
    )


def _limit(window: Window, left: int, reset: int) -> Limit:
    return Limit("requests", window.kind, window.allowed, WINDOW, left, reset)


def headers(limit: Limit) -> dict[str, str]:
    """The headers of draft-ietf-httpapi-ratelimit-headers-10.

    ``w`` is left out if the limit has no window, and ``t`` if waiting does not help.
    """
    policy, state = f'"{limit.name}";q={limit.quota}', f'"{limit.name}";r={limit.remaining}'
    if limit.window:
        policy += f";w={limit.window}"
    if limit.reset:
        state += f";t={limit.reset}"
    return {"RateLimit-Policy": policy, "RateLimit": state}


def remaining(window: Window) -> tuple[int, int]:
    """(requests that remain, seconds until more remain or 0 if none is counted). It does not count anything.

    Raises RedisError, OSError.
    """
    from limits.strategies import MovingWindowRateLimiter

    limiter: Limiter = current_app.extensions["llm_service_limiter"]
    # It always asks Redis, because while limits are counted in memory, this worker knows only its own share.
    counted = MovingWindowRateLimiter(limiter.storage)
    stats = counted.get_window_stats(_item(window.allowed), "llm", window.key, "global")
    if stats.remaining >= window.allowed:
        return window.allowed, 0
    return max(0, stats.remaining), max(0, math.ceil(stats.reset_time - time.time()))
