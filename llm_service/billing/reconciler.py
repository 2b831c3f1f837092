"""The ledger's owner in each process: calls are admitted and settled here, and every two seconds the books are kept.

The books: what could not be settled for want of Redis is recovered once its rows are durable, leases of
live calls are renewed, calls of dead workers get their row (outcome ``aborted``) and are settled, rows that
died with their worker between settlement and commit are written, and counters that Redis lost are built
again from the log. Each process also builds them once when it starts: what was changed without Redis, and
settings that move a period's borders, are counted from then on.

The loop is a greenlet where gevent has replaced threads. It starts with the process' first call, or by ``start``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Protocol

import orjson
from redis import Redis

from llm_service.billing import admission as metering
from llm_service.billing import ledger
from llm_service.billing.admission import Admission
from llm_service.billing.ledger import REDIS_TIMEOUT, TICK, Ledger, Reaped, Settlement, bounded
from llm_service.catalog.catalog import Catalog
from llm_service.core import ids
from llm_service.core.call import Call, Caller
from llm_service.core.errors import ServiceError, Unavailable
from llm_service.core.limits import Budget
from llm_service.core.usage import Usage
from llm_service.observability.record import Record
from llm_service.settings import Settings
from llm_service.store import budgets, keys, requests

LEASE_SECONDS: Final = 10.0
# Of a row that was settled and not reported as written: its worker had this long to write it.
LATE_SECONDS: Final = 10.0
BYTES_PER_TOKEN: Final = 4

log = logging.getLogger(__name__)


class Entry(Protocol):
    """What is needed of ``journal.Entry``."""

    created_at: datetime

    def output_tokens_seen(self) -> int: ...

    def settle_with(self, settle: Callable[[Record], Record | None]) -> None: ...


class Writer(Protocol):
    """What is needed of ``store.writer.Writer``."""

    @property
    def queued(self) -> int: ...

    def put(self, row: Mapping[str, Any]) -> bool: ...

    def flush(self, deadline_seconds: float) -> bool: ...


class Metrics(Protocol):
    """What is needed of ``telemetry.Metrics``."""

    def calls_reaped(self, count: int) -> None: ...

    def calls_without_redis(self, admitted: int, refused: int) -> None: ...


class Accounts:
    """One per application. ``context`` gives an application context, for the database.

    ``fixed``: callers whose keys are in no table.
    """

    def __init__(
        self,
        catalog: Catalog,
        writer: Writer,
        context: Callable[[], AbstractContextManager[Any]],
        settings: Settings,
        redis_url: str,
        fixed: Iterable[Caller],
        metrics: Metrics,
    ) -> None:
        self.zone, self.without_redis = settings.time_zone, settings.money_without_redis
        self._catalog, self._writer, self._context, self._fixed = catalog, writer, context, tuple(fixed)
        self._redis_url, self._workers, self._metrics = redis_url, settings.workers, metrics
        self._meter = metering.Meter(catalog, lambda: self.ledger, self.zone)
        self._own: tuple[int, Ledger, Redis] | None = None
        self._loop: _Loop | None = None
        self._live: dict[str, Entry] = {}
        self._retried: dict[str, float] = {}
        self._doubtful: dict[str, int] = {}
        self._unsettled: dict[str, tuple[float, Settlement]] = {}
        self._told = (0, 0)
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    @property
    def ledger(self) -> Ledger:
        """This process' own: a forked worker is another owner of leases."""
        own = self._own
        if own is None or own[0] != os.getpid():
            client = _client(self._redis_url)
            made = Ledger(
                client,
                ids.new_id(),
                LEASE_SECONDS,
                workers=self._workers,
                without_redis=self.without_redis,
            )
            own = self._own = (os.getpid(), made, client)
        return own[1]

    @property
    def state(self) -> str:
        """Of the budgets: ``ok``, or what becomes of their calls while Redis is away or not filled from the log,
        ``closed`` or ``open``."""
        with suppress(Unavailable):
            return self.without_redis if self.ledger.is_empty() else "ok"
        return self.without_redis

    # -- a call --

    def admit(self, call: Call, entry: Entry) -> Admission:
        """Hold what ``call`` may take; its entry settles it. Raises as ``Meter.admit``."""
        self.start()
        admission = self._meter.admit(call, entry.created_at)
        self._live[call.id] = entry
        entry.settle_with(partial(self._settle, admission))
        return admission

    def _settle(self, admission: Admission, record: Record) -> Record | None:
        self._live.pop(record.id, None)
        if admission.held.checks:
            return self._meter.settle(admission, record)
        # It held nothing that anybody waits for: settled with many others when its row is durable. Should this worker
        # die before that, the reaper's row stands for it.
        settlement = Settlement(
            record.id, bounded(record.cost_nanousd or 0), record.input_tokens + record.output_tokens
        )
        self._unsettled[record.id] = (time.monotonic(), settlement)
        return record

    def committed(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The log's writer has made these durable, or has given them up."""
        held = [found[1] for row in rows if (found := self._unsettled.pop(row["id"], None)) is not None]
        self.ledger.settle_many(held)
        settled = {settlement.call_id for settlement in held}
        self.ledger.written([row["id"] for row in rows if row["id"] not in settled])

    def _settle_dropped(self) -> None:
        """Of rows that the writer did not take nothing is heard again."""
        if self._writer.queued:
            return
        old = time.monotonic() - LATE_SECONDS
        dropped = [settlement for at, settlement in list(self._unsettled.values()) if at < old]
        for settlement in dropped:
            self._unsettled.pop(settlement.call_id, None)
        self.ledger.settle_many(dropped)

    # -- the books --

    def start(self) -> None:
        """Keep the books in this process from now on."""
        loop = self._loop
        if loop is not None and loop.pid == os.getpid() and not loop.dead:
            return
        with self._lock:
            loop = self._loop
            if not self._stopping.is_set() and (loop is None or loop.pid != os.getpid() or loop.dead):
                self._loop = _Loop(self)

    def close(self) -> None:
        """Stop keeping them; after the last call has ended and before the writer is closed."""
        self._stopping.set()
        loop = self._loop
        if loop is not None and loop.pid == os.getpid():
            loop.join(0.5)

    def hang_up(self) -> None:
        """Leave no connection to Redis for forked workers to inherit."""
        own, self._own = self._own, None
        if own is not None:
            own[2].connection_pool.disconnect()

    def wait(self, seconds: float) -> bool:
        """Until the end of this process' books, at most so long; whether it is the end."""
        return self._stopping.wait(seconds)

    def tick(self) -> None:
        """One round. What fails is done in the next."""
        self._count()
        lost = self.ledger.lost()
        if (lost.ids or lost.uncounted) and self._writer.flush(1.0):
            self.ledger.recover(lost)
        self.ledger.renew({call_id: entry.output_tokens_seen() for call_id, entry in list(self._live.items())})
        if not self.ledger.available:
            return
        self._reap()
        self._write_late()
        self._compare()
        self._settle_dropped()
        with suppress(Unavailable):
            if self.ledger.is_empty():
                self.rebuild()

    def _reap(self) -> None:
        found = self.ledger.reap()
        if not found:
            return
        with self._context():
            logged = requests.settled([reaped.call_id for reaped in found])
        made = 0
        for reaped in found:
            try:
                row, exempt = _aborted(reaped, self._catalog)
            except (KeyError, TypeError, ValueError) as error:  # of another version: must not keep the others waiting
                log.error("call %s of a dead worker cannot be settled (%s)", reaped.call_id, type(error).__name__)
                continue
            cost, tokens = logged.get(reaped.call_id, (row["cost_nanousd"], row["input_tokens"] + row["output_tokens"]))
            kept = b"" if reaped.call_id in logged else orjson.dumps(row)
            settlement = Settlement(reaped.call_id, bounded(cost or 0), tokens, kept, claimed=True, exempt=exempt)
            if self.ledger.settle_many([settlement])[0] and kept:
                self._put(row)
                made += 1
        if made:
            log.warning("%d calls of a worker that died were settled as aborted", made)
            self._metrics.calls_reaped(made)

    def _write_late(self) -> None:
        """Rows whose worker died, or whose database was away, between their settlement and their commit."""
        if self._writer.queued:  # a database that is away: its own rows first
            return
        now = time.monotonic()
        self._retried = {call_id: at for call_id, at in self._retried.items() if now - at < 60}
        for call_id, kept in self.ledger.unwritten(LATE_SECONDS).items():
            if call_id not in self._retried:
                self._retried[call_id] = now
                self._put(orjson.loads(kept))

    def _put(self, row: dict[str, Any]) -> None:
        row["created_at"] = _time(row["created_at"])
        if self._writer.put(row):
            self._doubtful[row["id"]] = row["cost_nanousd"] or 0

    def _compare(self) -> None:
        """A row that another worker wrote first stays. At another cost, the log is right and the counters are not."""
        if not self._doubtful or self._writer.queued:
            return
        with self._context():
            logged = requests.settled(list(self._doubtful))
        if any(self._doubtful[call_id] != (cost or 0) for call_id, (cost, _) in logged.items()):
            self.ledger.recount()
        self._doubtful.clear()  # nothing waits: what is not in the log was given up

    def _count(self) -> None:
        now = (self.ledger.admitted_without_redis, self.ledger.refused_without_redis)
        admitted, refused = now[0] - self._told[0], now[1] - self._told[1]
        if admitted or refused:
            self._metrics.calls_without_redis(admitted, refused)
        self._told = now

    def rebuild(self, *, at_once: bool = False) -> int:
        """Set the counters of all budgets anew from the log; how many there are.

        ``at_once``: no other process can hold anything. Raises Unavailable without Redis, or while another rebuilds.
        """
        books, epoch = self.ledger, ids.new_id()
        empty = books.is_empty()
        if not books.begin_rebuild(epoch):
            raise Unavailable("The budgets are being rebuilt already.", retry_after=2)
        if empty and not at_once and self._stopping.wait(1.5 * TICK):  # every worker holds again what it held
            return 0
        now = datetime.now(UTC)
        with self._context():
            counted = self._budgets()
            with requests.snapshot() as connection:
                spent = budgets.spent_in(connection, counted, self.zone, now)
                included = requests.present(connection, books.counted())
        ends = {}
        for budget in counted:
            check = self._meter.check(budget, 0, now)
            if check.resets_at_ms is not None:
                ends[check.scope, check.period] = check.resets_at_ms
        books.rebuild(epoch, spent, included, ends)
        return len(spent)

    def _budgets(self) -> list[Budget]:
        """Every budget there is, tiers' of each of their keys too."""
        found = budgets.list_all()
        if not any(tier.budget for tier in self._catalog.tiers.values()):
            return found
        of_keys: dict[str, list[Budget]] = {}
        for item in found:
            if item.kind == "key":
                of_keys.setdefault(item.name, []).append(item)
        everybody = [stored.caller for stored in keys.list_all() if stored.revoked_at is None]
        for caller in (*everybody, *self._fixed):
            own = of_keys.get(caller.key_id, [])
            tier = self._catalog.tier(caller.tier).budget
            found += [item for item in budgets.effective(own, caller.key_id, tier) if item.id == budgets.TIER]
        return found

    def balances(self, budget: Budget) -> tuple[int, int] | None:
        """(spent, held) in nano-dollars as Redis counts them; None while it is away."""
        check = self._meter.check(budget, 0, datetime.now(UTC))
        try:
            return self.ledger.balances(check.scope, check.period)
        except Unavailable:
            return None


class _Loop:
    """Keeps one process' books."""

    def __init__(self, accounts: Accounts) -> None:
        self.pid, self.dead = os.getpid(), False
        self._accounts = accounts
        self._thread = threading.Thread(target=self._run, name="accounts", daemon=True)
        self._thread.start()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._attempt(self._accounts.rebuild)
            while self.pid == os.getpid() and not self._accounts.wait(TICK):
                self._attempt(self._accounts.tick)
        finally:
            self.dead = True

    def _attempt(self, keep: Callable[[], Any]) -> None:
        try:
            keep()
        except ServiceError:  # Redis is away, or another process builds: known, and said elsewhere
            pass
        except Exception as error:  # noqa: BLE001 - a database that is away, or a defect: the next round tries again
            log.warning("the books could not be kept (%s)", type(error).__name__)


def _aborted(reaped: Reaped, catalog: Catalog) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The row of a call whose worker died: its input estimated, its output as last renewed, its cost of these.

    And the places of budgets it does not count against.
    """
    told = orjson.loads(reaped.record)
    exempt = tuple(told.pop("exempt"))
    provider, _, model = told["target"].partition("/")
    usage = Usage(-(-told.pop("body_bytes") // BYTES_PER_TOKEN), bounded(reaped.seen), exact=False)
    worst, cost = told.pop("worst"), None
    if provider in catalog.providers:
        price = catalog.target(catalog.providers[provider], model).price
        cost = price.cost(usage, at=_time(told["created_at"]).timestamp()) if price is not None else None
    del told["target"]
    row = {
        "id": reaped.call_id,
        **told,
        "provider": provider,
        "model_served": model,
        "status": 500,
        "outcome": "aborted",
        "error_type": "worker_lost",
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "usage_exact": False,
        "cost_nanousd": worst if cost is None else cost,
    }
    return row, exempt


def _time(value: str | datetime) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _client(url: str) -> Redis:
    """Also of the URLs that only ``limits`` knows: Sentinel, Cluster."""
    if url.partition("://")[0] in ("redis", "rediss", "unix"):
        return ledger.client(url)
    from limits.storage import storage_from_string

    storage: Any = storage_from_string(url, socket_timeout=REDIS_TIMEOUT, socket_connect_timeout=REDIS_TIMEOUT)
    client: Redis = storage.storage
    return client
