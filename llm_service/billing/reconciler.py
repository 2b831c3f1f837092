"""Reconciles Redis with the request log, every two seconds in each process.

Each round does what calls and workers have left undone:

* calls that could not be settled while Redis was unavailable are recovered, once their rows are durable;
* the leases of running calls are renewed;
* calls of dead workers get a row (outcome ``aborted``) and are settled;
* rows are written if their worker died between the settlement and the commit;
* counters that Redis lost are rebuilt from the log.

Each process also rebuilds the counters once when it starts. From then on they include what was changed without Redis,
and follow settings that move the borders of a period.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import orjson

from llm_service.billing.admission import Admission
from llm_service.billing.ledger import TICK, Ledger, Reaped, Settlement, bounded
from llm_service.billing.ledger.of_process import ProcessLedger
from llm_service.catalog.catalog import Catalog
from llm_service.core import ids
from llm_service.core.background import Background, Loop
from llm_service.core.call import Caller
from llm_service.core.errors import ServiceError, Unavailable
from llm_service.core.limits import Budget
from llm_service.core.usage import Usage
from llm_service.observability.record import Record
from llm_service.settings import Settings
from llm_service.store import budgets, keys, requests

# How long a worker has to write a row that it has settled, before another worker writes it.
LATE_SECONDS: Final = 10.0
BYTES_PER_TOKEN: Final = 4

log = logging.getLogger(__name__)


class Writer(Protocol):
    """What is needed of ``store.writer.Writer``."""

    @property
    def queued(self) -> int: ...

    def put(self, row: Mapping[str, Any]) -> bool: ...

    def flush(self, deadline_seconds: float) -> bool: ...


class Metrics(Protocol):
    """What is needed of ``metrics.Metrics``."""

    def calls_reaped(self, count: int) -> None: ...

    def calls_without_redis(self, admitted: int, refused: int) -> None: ...


class Reconciler:
    """One per application. ``context`` returns an application context, for the database.

    ``fixed`` are the callers with keys that are in no table.
    """

    def __init__(
        self,
        catalog: Catalog,
        admission: Admission,
        ledger: ProcessLedger,
        writer: Writer,
        context: Callable[[], AbstractContextManager[Any]],
        settings: Settings,
        fixed: Iterable[Caller],
        metrics: Metrics,
    ) -> None:
        self._zone, self._without_redis = settings.time_zone, settings.money_without_redis
        self._catalog, self._admission, self._process_ledger = catalog, admission, ledger
        self._writer, self._context, self._fixed, self._metrics = writer, context, tuple(fixed), metrics
        self._background = Background(lambda _: _Rounds(self))
        self._retried: dict[str, float] = {}
        self._unconfirmed: dict[str, int] = {}
        self._reported = (0, 0)

    @property
    def _ledger(self) -> Ledger:
        return self._process_ledger.get()

    @property
    def state(self) -> str:
        """The state of the budgets: ``ok``, or ``closed`` or ``open``.

        The last two say what happens to calls with budgets while Redis is unavailable, or not filled from the log.
        """
        with suppress(Unavailable):
            return self._without_redis if self._ledger.is_empty() else "ok"
        return self._without_redis

    def start(self) -> None:
        """Reconcile in this process from now on."""
        self._background.running()

    def close(self) -> None:
        """Stop. Must be called after the last call has ended, and before the writer is closed."""
        self._background.stop(0.5)

    def disconnect(self) -> None:
        """Close the connection to Redis, so that forked workers do not inherit it."""
        self._process_ledger.disconnect()

    def reconcile(self) -> None:
        """Do one round. If a step fails, the next round does it."""
        self._count()
        ledger = self._ledger
        lost = ledger.lost()
        if (lost.ids or lost.uncounted) and self._writer.flush(1.0):
            ledger.recover(lost)
        ledger.renew(self._admission.tokens_seen())
        if not ledger.available:
            return
        self._reap()
        self._write_late()
        self._compare()
        if not self._writer.queued:
            self._admission.settler.settle_unwritten(LATE_SECONDS)
        with suppress(Unavailable):
            if ledger.is_empty():
                self.rebuild()

    def _reap(self) -> None:
        """Settle the calls of dead workers and write their rows. A row that the log already has wins."""
        expired = self._ledger.reap()
        if not expired:
            return
        with self._context():
            logged = requests.settled([reaped.call_id for reaped in expired])
        written = 0
        for reaped in expired:
            try:
                record, exempt = _lost_call(reaped, self._catalog)
            except (KeyError, TypeError, ValueError) as error:  # of another version; the others must not wait for it
                log.error("call %s of a dead worker cannot be settled (%s)", reaped.call_id, type(error).__name__)
                continue
            own = (record.cost_nanousd, record.input_tokens + record.output_tokens)
            cost, tokens = logged.get(reaped.call_id, own)
            kept = b"" if reaped.call_id in logged else orjson.dumps(record.row())
            settlement = Settlement(reaped.call_id, bounded(cost or 0), tokens, kept, claimed=True, exempt=exempt)
            if self._ledger.settle_many([settlement])[0] and kept:
                self._put(record.row())
                written += 1
        if written:
            log.warning("%d calls of a worker that died were settled as aborted", written)
            self._metrics.calls_reaped(written)

    def _write_late(self) -> None:
        """Write rows that were settled but not committed: their worker died, or its database was unavailable."""
        if self._writer.queued:  # if the database is unavailable, this worker's own rows come first
            return
        now = time.monotonic()
        self._retried = {call_id: at for call_id, at in self._retried.items() if now - at < 60}
        for call_id, kept in self._ledger.unwritten(LATE_SECONDS).items():
            if call_id not in self._retried:
                self._retried[call_id] = now
                self._put(orjson.loads(kept))

    def _put(self, row: dict[str, Any]) -> None:
        row["created_at"] = _time(row["created_at"])
        if self._writer.put(row):
            self._unconfirmed[row["id"]] = row["cost_nanousd"] or 0

    def _compare(self) -> None:
        """Look for rows that another worker wrote first, at another cost. Then the log is right, not the counters."""
        if not self._unconfirmed or self._writer.queued:
            return
        with self._context():
            logged = requests.settled(list(self._unconfirmed))
        if any(self._unconfirmed[call_id] != (cost or 0) for call_id, (cost, _) in logged.items()):
            self._ledger.recount()
        self._unconfirmed.clear()  # no row is waiting: a row that is not in the log was given up

    def _count(self) -> None:
        """Report how many calls were decided without Redis since the last round."""
        now = (self._ledger.admitted_without_redis, self._ledger.refused_without_redis)
        admitted, rejected = now[0] - self._reported[0], now[1] - self._reported[1]
        if admitted or rejected:
            self._metrics.calls_without_redis(admitted, rejected)
        self._reported = now

    def rebuild(self, *, at_once: bool = False) -> int:
        """Set the counters of all budgets from the log, and return how many there are.

        ``at_once``: no other process can hold anything, so there is nothing to wait for.

        Raises:
            Unavailable: Redis does not answer, or another process is rebuilding.
        """
        ledger, epoch = self._ledger, ids.new_id()
        empty = ledger.is_empty()
        if not ledger.begin_rebuild(epoch):
            raise Unavailable("The budgets are being rebuilt already.", retry_after=2)
        # Until every worker has renewed its holds.
        if empty and not at_once and self._background.closing.wait(1.5 * TICK):
            return 0
        now = datetime.now(UTC)
        with self._context():
            counted = self._budgets()
            with requests.snapshot() as connection:
                spent = budgets.spent_in(connection, counted, self._zone, now)
                included = requests.present(connection, ledger.counted())
        ends = {}
        for budget in counted:
            check = self._admission.check(budget, 0, now)
            if check.resets_at_ms is not None:
                ends[check.scope, check.period] = check.resets_at_ms
        ledger.rebuild(epoch, spent, included, ends)
        return len(spent)

    def _budgets(self) -> list[Budget]:
        """Every budget there is, including the budgets that a tier gives to each of its keys."""
        stored = budgets.list_all()
        if not any(tier.budget for tier in self._catalog.tiers.values()):
            return stored
        of_keys: dict[str, list[Budget]] = {}
        for item in stored:
            if item.kind == "key":
                of_keys.setdefault(item.name, []).append(item)
        callers = [key.caller for key in keys.list_all() if key.revoked_at is None]
        all_budgets = list(stored)
        for caller in (*callers, *self._fixed):
            own = of_keys.get(caller.key_id, [])
            tier = self._catalog.tier(caller.tier).budget
            all_budgets += [item for item in budgets.effective(own, caller.key_id, tier) if item.id == budgets.TIER]
        return all_budgets

    def balances(self, budget: Budget) -> tuple[int, int] | None:
        """(spent, held) in nano-dollars as Redis counts them; None while it is unavailable."""
        check = self._admission.check(budget, 0, datetime.now(UTC))
        try:
            return self._ledger.balances(check.scope, check.period)
        except Unavailable:
            return None


class _Rounds(Loop):
    """The rounds of one process. The first one rebuilds the counters."""

    name = "reconciler"

    def __init__(self, reconciler: Reconciler) -> None:
        super().__init__()
        self._reconciler = reconciler
        self._is_first = True

    def round(self) -> None:
        if self._is_first:
            self._is_first = False
            self._reconciler.rebuild()
        elif not self.stopping.wait(TICK):
            self._reconciler.reconcile()

    def failed(self, error: Exception) -> None:
        if not isinstance(error, ServiceError):  # Redis is unavailable, or another process rebuilds: both are expected
            super().failed(error)


def _lost_call(reaped: Reaped, catalog: Catalog) -> tuple[Record, tuple[str, ...]]:
    """The record of a call of a dead worker, and the counter keys of budgets that it does not count against.

    Its input is estimated, its output is what was last renewed, and its cost is that of both.
    """
    known = orjson.loads(reaped.record)
    exempt = tuple(known.pop("exempt"))
    target, worst = known.pop("target"), known.pop("worst")
    usage = Usage(-(-known.pop("body_bytes") // BYTES_PER_TOKEN), bounded(reaped.seen), exact=False)
    known["created_at"] = _time(known["created_at"])
    provider, _, model = target.partition("/")
    cost = None
    if provider in catalog.providers:
        price = catalog.target(catalog.providers[provider], model).price
        cost = None if price is None else price.cost(usage, at=known["created_at"].timestamp())
    return Record.of_lost_call(reaped.call_id, known, target, usage, worst if cost is None else cost), exempt


def _time(value: str | datetime) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value
