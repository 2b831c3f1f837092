"""Settlement: when a call ends, what it cost is spent, and everything else that it held is free again.

The caller pays what its row says. If the cost of a call with a budget is not known, or only an estimate because the
vendor did not report the usage of its answer, its row says what was held, and that it is not exact.

A call that holds nothing which another call waits for is settled together with many others, once its row is durable.
If this worker dies before that, the reaper writes a row for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol

import orjson

from llm_service.billing.ledger import Check, Held, Ledger, Settlement, bounded
from llm_service.core.call import Call
from llm_service.core.errors import Limit
from llm_service.core.limits import Budget
from llm_service.observability.record import Record

log = logging.getLogger(__name__)


class Recorder(Protocol):
    """What is needed of ``call_recorder.CallRecorder``."""

    created_at: datetime

    def output_tokens_seen(self) -> int: ...

    def end(self, error: BaseException | None = None) -> Record | None: ...

    def settled(self, record: Record | None) -> None: ...

    def failed(self, failure: BaseException) -> None: ...


class AdmittedCall:
    """A call that may be sent, and what it holds. ``with`` settles it, whatever its end.

    Attributes:
        call: as it must be sent.
        held: what the ledger holds for it.
        budgets: the budgets that it counts against, with what it took of each.
    """

    __slots__ = ("_ended", "_is_settled", "_recorder", "_settler", "budgets", "call", "held")

    def __init__(
        self,
        settler: Settler,
        ended: Callable[[str], object],
        recorder: Recorder,
        call: Call,
        held: Held,
        budgets: tuple[tuple[Budget, Check], ...],
    ) -> None:
        self.call, self.held, self.budgets = call, held, budgets
        self._settler, self._ended, self._recorder = settler, ended, recorder
        self._is_settled = False

    @property
    def tightest(self) -> Limit | None:
        return self.held.tightest()

    def __enter__(self) -> AdmittedCall:
        return self

    def settle(self, error: BaseException | None = None) -> None:
        """Settle the call at what its record says, once. ``error`` is what ended it.

        A failure is reported, and does not change the call's end: the row is kept, and the lease expires.
        """
        if self._is_settled:
            return
        self._is_settled = True
        self._ended(self.call.id)  # its lease is not renewed any more
        record = self._recorder.end(error)
        if record is None:
            return
        try:
            self._recorder.settled(self._settler.settle(self, record))
        except Exception as failure:  # noqa: BLE001 - see above
            self._recorder.failed(failure)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle(error)


class Settler:
    """Settles the calls of each process. ``ledger()`` returns the ledger of this process."""

    def __init__(self, ledger: Callable[[], Ledger]) -> None:
        self._ledger = ledger
        self._unsettled: dict[str, tuple[float, Settlement]] = {}

    def settle(self, admitted: AdmittedCall, record: Record) -> Record | None:
        """Settle a call and give back what it did not use.

        Returns:
            The record as the row must say it; None if another worker wrote the row.
        """
        cost, tokens = record.cost_nanousd, record.input_tokens + record.output_tokens
        if not admitted.held.checks:
            self._unsettled[record.id] = (time.monotonic(), Settlement(record.id, bounded(cost or 0), tokens))
            return record
        if admitted.budgets and (cost is None or record.usage_lost):
            cost = max(cost or 0, *(check.amount for _, check in admitted.budgets))
            record = replace(record, cost_nanousd=cost, usage_exact=False)
        settlement = Settlement(
            record.id,
            bounded(cost or 0),
            tokens,
            orjson.dumps(record.row()),
            exempt=exempt_keys(admitted.budgets, record.provider or "", record.model_served or ""),
        )
        _warn_beyond(admitted, cost or 0)
        return record if self._ledger().settle_many([settlement])[0] else None

    def committed(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The log's writer has made these rows durable, or has given them up."""
        held = [pair[1] for row in rows if (pair := self._unsettled.pop(row["id"], None)) is not None]
        self._ledger().settle_many(held)
        settled = {settlement.call_id for settlement in held}
        self._ledger().written([row["id"] for row in rows if row["id"] not in settled])

    def settle_unwritten(self, seconds: float) -> None:
        """Settle calls that have waited ``seconds`` for their rows: the writer did not accept these rows."""
        before = time.monotonic() - seconds
        unwritten = [settlement for at, settlement in list(self._unsettled.values()) if at < before]
        for settlement in unwritten:
            self._unsettled.pop(settlement.call_id, None)
        self._ledger().settle_many(unwritten)


def exempt_keys(budgets: Sequence[tuple[Budget, Check]], provider: str, model: str) -> tuple[str, ...]:
    """The counter keys of the budgets that were held for other targets: a call that this model serves does not count
    against them."""
    return tuple(check.counter_key for item, check in budgets if item.model and not item.covers(provider, model))


def _warn_beyond(admitted: AdmittedCall, cost: int) -> None:
    if admitted.budgets and cost > admitted.budgets[0][1].amount:
        log.warning("call %s cost more than its worst case: a vendor's count or a price is wrong", admitted.call.id)
