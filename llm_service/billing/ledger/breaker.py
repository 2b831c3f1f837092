"""The way to Redis: one script over one connection of the process (``redis_pipe``), short time-outs, and a breaker
so that a dead one is not waited for."""

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


# Seconds that a busy server may take, and that are waited for one which did not answer when it was asked last.
PATIENCE: Final = 1.0
LOOK: Final = 0.1


def client(url: str, timeout: float = PATIENCE) -> Redis:
    """A client as ``Ledger`` needs it: no wait beyond ``timeout`` seconds, and nothing is sent twice by itself."""
    made: Redis = Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        max_connections=2_000,
    )
    return made


class RedisAway(Exception):
    """Redis did not answer. ``asked`` False: nothing was sent, so nothing can have happened there."""

    def __init__(self, asked: bool) -> None:
        super().__init__("Redis did not answer")
        self.asked = asked


class Gate:
    """Runs the script. After a failure one call per ``pause`` seconds looks for Redis, for at most ``LOOK`` seconds,
    and tries again if it is there; all others fail at once.

    A command is never sent twice by itself, and every operation of the script bears being repeated by its caller.
    """

    def __init__(self, redis: Redis, prefix: str, now_ms: Callable[[], int] | None = None, pause: float = 1.0) -> None:
        self.prefix = prefix
        pool = getattr(redis, "connection_pool", None)
        # A cluster's client has many: its commands go their own ways.
        self._send: Callable[..., Any] = redis.execute_command if pool is None else Pipe(pool).ask
        self._pool = pool
        self._key = f"{prefix}:leases"
        self.failures = 0
        self._now_ms, self._pause = now_ms, pause
        self._try_at: float | None = None
        self._lock = threading.Lock()

    @property
    def available(self) -> bool:
        """Whether Redis answered when it was asked last."""
        return self._try_at is None

    def run(self, operation: str, *arguments: str | bytes | int) -> Any:
        """The script's reply. Raises RedisAway."""
        now = "" if self._now_ms is None else self._now_ms()
        return self.ask("EVALSHA", _SHA, 1, self._key, self.prefix, operation, now, *arguments)

    def ask(self, *command: str | bytes | int) -> Any:
        """Redis' answer, unless it is known to be away. Raises RedisAway."""
        if self._try_at is not None and not self._may_try():
            raise RedisAway(asked=False)
        sent = False
        try:
            if self._try_at is not None:
                self._look()
            sent = True
            reply = self._asked(command)
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

    def _asked(self, command: tuple[str | bytes | int, ...]) -> Any:
        try:
            return self._send(*command)
        except NoScriptError:  # a server that has started since: before anything else it looks at what it remembers
            self._send("EVAL", SCRIPT, 1, self._key, self.prefix, "wake", "")
            return self._send(*command)

    def _look(self) -> None:
        """Raises RedisError, OSError: nobody is there."""
        if not isinstance(self._pool, ConnectionPool):
            return
        limits = {"socket_timeout": LOOK, "socket_connect_timeout": LOOK}
        connection = self._pool.connection_class(**{**self._pool.connection_kwargs, **limits})
        try:
            connection.connect()  # greets the server: an answer is waited for
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
