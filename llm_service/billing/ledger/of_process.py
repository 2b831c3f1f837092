"""The ledger of the current process, and its connection to Redis."""

from __future__ import annotations

import os
from typing import Any, Final, Literal

from redis import Redis

from llm_service.billing import ledger
from llm_service.billing.ledger import REDIS_TIMEOUT, Ledger
from llm_service.core import ids

LEASE_SECONDS: Final = 10.0


class ProcessLedger:
    """Makes one ledger per process: a forked worker owns leases of its own.

    ``workers`` is the number of processes that share the limits, ``without_redis`` what happens to budgets while
    Redis is unavailable: ``closed`` or ``open``.
    """

    def __init__(self, redis_url: str, workers: int, without_redis: Literal["closed", "open"]) -> None:
        self._redis_url, self._workers, self._without_redis = redis_url, workers, without_redis
        self._own: tuple[int, Ledger, Redis] | None = None

    def get(self) -> Ledger:
        own = self._own
        if own is None or own[0] != os.getpid():
            client = _client(self._redis_url)
            made = Ledger(client, ids.new_id(), LEASE_SECONDS, workers=self._workers, without_redis=self._without_redis)
            own = self._own = (os.getpid(), made, client)
        return own[1]

    def disconnect(self) -> None:
        """Close the connection, so that forked workers do not inherit it."""
        own, self._own = self._own, None
        if own is not None:
            own[2].connection_pool.disconnect()


def _client(url: str) -> Redis:
    """A client for ``url``, including the kinds that only ``limits`` knows: Sentinel, Cluster."""
    if url.partition("://")[0] in ("redis", "rediss", "unix"):
        return ledger.client(url)
    from limits.storage import storage_from_string

    storage: Any = storage_from_string(url, socket_timeout=REDIS_TIMEOUT, socket_connect_timeout=REDIS_TIMEOUT)
    client: Redis = storage.storage
    return client
