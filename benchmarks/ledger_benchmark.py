"""``python -m benchmarks.ledger_benchmark [--calls N]``: the time that the ledger adds to a call.

Measures a hold of three limits and its settlement, as one worker makes them over one connection: a Unix socket to a
Redis server for this benchmark alone. PINGs in between measure a bare round trip under the same conditions.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from redis import Redis

from llm_service.billing.ledger import Check, Ledger, client
from llm_service.core.ids import new_id
from llm_service.server import embedded_redis

CALLS, ROUND = 5_000, 50
CHECKS = (
    Check("money", "key:one", 10**15, 12_345_678, "month:2026-01", 4_000_000_000_000, "monthly budget of this API key"),
    Check("tokens", "key:one", 10**12, 2_345, label="tokens per minute of this API key"),
    Check("slots", "key:one", 100, 1, label="parallel calls of this API key"),
)
RECORD = b'{"key": "one", "model": "fast", "estimate": 2345, "created_at": "2026-01-01T00:00:00Z"}'


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.ledger_benchmark", description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = embedded_redis.ensure(Path(folder))
        try:
            measure(client(server.url, timeout=5), options.calls)
        finally:
            server.stop()


def measure(redis: Redis, calls: int) -> None:
    ledger = Ledger(redis, new_id())
    ledger.begin_rebuild("first")
    ledger.rebuild("first", {})
    pings, holds, settlements = [], [], []
    for _ in range(max(1, calls // ROUND)):
        pings += [timed(redis.ping) for _ in range(ROUND)]
        for _ in range(ROUND):
            call_id = new_id()
            holds.append(timed(partial(ledger.hold, call_id, CHECKS, RECORD)))
            settlements.append(timed(partial(ledger.settle, call_id, 1_234_567, 1_234, RECORD)))
            ledger.written([call_id])
    both = [hold + settlement for hold, settlement in zip(holds, settlements, strict=True)]
    for name, times in (("PING", pings), ("hold", holds), ("settle", settlements), ("hold + settle", both)):
        cuts = statistics.quantiles(times, n=100)
        print(f"{name:14} p50 {cuts[49]:6.3f} ms   p99 {cuts[98]:6.3f} ms")


def timed(operation: Callable[[], object]) -> float:
    started = time.perf_counter()
    operation()
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
