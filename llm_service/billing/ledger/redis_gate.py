"""How the ledger reaches Redis: one script, one connection per process (``redis_pipe``), short time-outs, and a
circuit breaker, so that calls do not wait for a dead server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from hashlib import sha1
from pathlib import Path
from typing import Any, Final

from redis import ConnectionPool, Redis, RedisError
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from llm_service.store.redis_pipe import Pipe

SCRIPT: Final = Path(__file__).with_name("ledger.lua").read_text(encoding="utf-8")
log = logging.getLogger(__name__)
_SHA: Final = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

REDIS_TIMEOUT: Final = 1.0  # seconds; a busy server may take this long
PROBE_TIMEOUT: Final = 0.1  # seconds; for a server that did not answer the last time


def client(url: str, timeout: float = REDIS_TIMEOUT) -> Redis:
    """Return a client as ``Ledger`` needs it: it waits at most ``timeout`` seconds and never retries a command."""
    made: Redis = Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        max_connections=2_000,
    )
    return made


class RedisAway(Exception):
    """Redis did not answer. If ``asked`` is False, nothing was sent, so Redis cannot have changed anything."""

    def __init__(self, asked: bool) -> None:
        super().__init__("Redis did not answer")
        self.asked = asked


class Gate:
    """Runs the script, with a circuit breaker.

    After a failure one call per ``pause`` seconds probes Redis for at most ``PROBE_TIMEOUT`` seconds, and runs if
    Redis answers. All other calls fail at once. The gate never repeats a command. Callers may: every operation of
    the script can be repeated without harm.
    """

    def __init__(self, redis: Redis, prefix: str, now_ms: Callable[[], int] | None = None, pause: float = 1.0) -> None:
        self.prefix = prefix
        pool = getattr(redis, "connection_pool", None)
        # The client of a cluster has several pools and must send its commands itself.
        self._send: Callable[..., Any] = redis.execute_command if pool is None else Pipe(pool).ask
        self._pool = pool
        self._key = f"{prefix}:leases"
        self.failures = 0
        self._now_ms, self._pause = now_ms, pause
        self._try_at: float | None = None
        self._lock = threading.Lock()

    @property
    def available(self) -> bool:
        """Whether Redis answered the last command."""
        return self._try_at is None

    def run(self, operation: str, *arguments: str | bytes | int) -> Any:
        """Run an operation of the script and return its reply. Raises RedisAway."""
        now = "" if self._now_ms is None else self._now_ms()
        return self.ask("EVALSHA", _SHA, 1, self._key, self.prefix, operation, now, *arguments)

    def ask(self, *command: str | bytes | int) -> Any:
        """Return Redis' answer. If Redis is known to be unavailable, it is not asked. Raises RedisAway."""
        if self._try_at is not None and not self._may_try():
            raise RedisAway(asked=False)
        sent = False
        try:
            if self._try_at is not None:
                self._probe()
            sent = True
            reply = self._send_with_script(command)
        except (RedisError, OSError) as error:
            self.failures += 1
            if self._try_at is None:
                log.warning("the ledger's Redis does not answer (%s)", type(error).__name__)
            self._try_at = time.monotonic() + self._pause
            raise RedisAway(asked=sent) from error
        if self._try_at is not None:
            log.warning("the ledger's Redis answers again")
            self._try_at = None
        return reply

    def _send_with_script(self, command: tuple[str | bytes | int, ...]) -> Any:
        try:
            return self._send(*command)
        except NoScriptError:  # the server was restarted: it must first check which counters it still has
            self._send("EVAL", SCRIPT, 1, self._key, self.prefix, "wake", "")
            return self._send(*command)

    def _probe(self) -> None:
        """Raises RedisError or OSError if the server does not answer."""
        if not isinstance(self._pool, ConnectionPool):
            return
        limits = {"socket_timeout": PROBE_TIMEOUT, "socket_connect_timeout": PROBE_TIMEOUT}
        connection = self._pool.connection_class(**{**self._pool.connection_kwargs, **limits})
        try:
            connection.connect()  # includes a greeting, so it waits for an answer
            connection.send_command("PING")
            connection.read_response()
        finally:
            connection.disconnect()

    def _may_try(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if self._try_at is not None and now < self._try_at:
                return False
            self._try_at = now + self._pause
            return True
