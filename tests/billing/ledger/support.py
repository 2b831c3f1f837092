"""Helpers of the ledger's tests."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from llm_service.billing.ledger import Check, Ledger

_epochs = itertools.count()
PERIOD = "2026-01"


class Wire:
    """The connection of one worker to Redis. It can fail before Redis is asked (``up`` False) or before Redis'
    answer arrives (``mute`` True).

    The ledger uses it as a client, of which it needs only the connection pool.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis: Any = redis
        self.up = True
        self.mute = False
        self.asked = 0
        self.connections: list[Any] = []

    @property
    def connection_pool(self) -> Wire:
        return self

    def get_connection(self) -> _Connection:
        real = self.redis.connection_pool.get_connection()
        self.connections.append(real)
        return _Connection(self, real)

    def close(self) -> None:
        """Close the connections, as if the process had ended."""
        for connection in self.connections:
            connection.disconnect()
            self.redis.connection_pool.release(connection)
        self.connections.clear()


class _Connection:
    def __init__(self, wire: Wire, real: Any) -> None:
        self.wire, self.real = wire, real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if not self.wire.up:
            raise RedisConnectionError("down")
        self.wire.asked += 1
        self.real.send_packed_command(command, check_health)

    def read_response(self) -> Any:
        reply = self.real.read_response()
        if self.wire.mute:
            raise RedisTimeoutError("no answer")
        return reply


def money(amount: int, quota: int = 100, scope: str = "key:a", period: str = PERIOD) -> Check:
    return Check("money", scope, quota, amount, period, label="monthly budget of this API key")


def tokens(amount: int, quota: int = 1000, scope: str = "key:a") -> Check:
    return Check("tokens", scope, quota, amount, label="limit of tokens per minute of this API key")


def slot(quota: int = 2, scope: str = "key:a") -> Check:
    return Check("slots", scope, quota, 1, label="limit of parallel calls of this API key")


def build(ledger: Ledger, spent: Mapping[tuple[str, str], int], included: Collection[str] = ()) -> None:
    epoch = f"epoch-{next(_epochs)}"
    assert ledger.begin_rebuild(epoch)
    assert ledger.rebuild(epoch, spent, included)


def slots_of(wire: Wire, scope: str = "key:a") -> int:
    return int(wire.redis.scard(f"{{llm}}:slots:{scope}"))


def tokens_of(wire: Wire, scope: str = "key:a") -> int:
    names = wire.redis.keys(f"{{llm}}:tokens:*:{scope}")
    return sum(int(wire.redis.get(name)) for name in names)


def everything_held(wire: Wire) -> list[bytes]:
    """Return the Redis keys that still hold something."""
    left = list(wire.redis.keys("{llm}:hold:*")) + list(wire.redis.keys("{llm}:slots:*"))
    left += [name for name in wire.redis.keys("{llm}:money:*") if int(wire.redis.hget(name, "held") or 0)]
    return left + list(wire.redis.keys("{llm}:leases"))
