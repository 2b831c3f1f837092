"""The call path of the money: every limit that applies to a call is held before it is sent, and settled when it ends.

The hold is an upper bound (``upper_bound``). A call that has a budget is rejected if nothing bounds its cost: a model
without a price, or a field that makes the vendor charge for something that is not in the request. If the caller set
no limit on the output, the model's own limit is written into the body that is sent.

The caller pays what its row says. If the cost of a call with a budget is not known, its row says what was held, and
that it is not exact.

A call that holds nothing which another call waits for is settled together with many others, once its row is durable.
If this worker dies before that, the reaper writes a row for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Protocol

import orjson

from llm_service.billing.ledger import Check, Held, Ledger, Settlement, bounded
from llm_service.billing.upper_bound import UpperBound, upper_bound
from llm_service.catalog.catalog import Catalog
from llm_service.core import periods
from llm_service.core.call import Call
from llm_service.core.errors import Forbidden, Limit, UnsupportedParameter
from llm_service.core.limits import Budget, scope_of
from llm_service.core.target import Target
from llm_service.formats import registry
from llm_service.observability.record import Record, known_before

log = logging.getLogger(__name__)

SCOPE_LABELS: Final[Mapping[str, str]] = {
    "key": "this API key",
    "ip": "this address without a valid API key",
    "user": "this key's user",
    "org": "this key's organisation",
    "service": "the whole service",
    "model": "this model",
    "network": "this network",
}
_PER: Final[Mapping[str, str]] = {"day": "daily", "week": "weekly", "month": "monthly", "total": "total"}


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

    __slots__ = ("_admission", "_is_settled", "_recorder", "budgets", "call", "held")

    def __init__(
        self,
        admission: Admission,
        recorder: Recorder,
        call: Call,
        held: Held,
        budgets: tuple[tuple[Budget, Check], ...],
    ) -> None:
        self.call, self.held, self.budgets = call, held, budgets
        self._admission, self._recorder = admission, recorder
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
        self._admission.forget(self.call.id)
        record = self._recorder.end(error)
        if record is None:
            return
        try:
            self._recorder.settled(self._admission.settle(self, record))
        except Exception as failure:  # noqa: BLE001 - see above
            self._recorder.failed(failure)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle(error)


class Admission:
    """Holds and settles the calls of each process.

    ``ledger()`` returns the ledger of this process. ``zone`` is the time zone in which the budgets' periods begin.
    """

    def __init__(self, catalog: Catalog, ledger: Callable[[], Ledger], zone: str) -> None:
        self._catalog, self._ledger, self._zone = catalog, ledger, zone
        self._listeners: list[Callable[[], object]] = []
        self._live: dict[str, Recorder] = {}
        self._unsettled: dict[str, tuple[float, Settlement]] = {}

    def subscribe(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` before each call is held. It must be quick."""
        self._listeners.append(listener)

    def admit(self, call: Call, recorder: Recorder) -> AdmittedCall:
        """Hold what ``call`` may take: all of it or nothing. The result settles what ``recorder`` says of the call.

        Raises:
            Forbidden: the key has a budget, and the model has no price.
            UnsupportedParameter: the key has a budget, and nothing bounds what this field costs.
            BudgetExceeded, RateLimited, Unavailable: of the ledger.
        """
        for listener in self._listeners:
            listener()
        targets, created_at = call.targets, recorder.created_at
        rates = tuple(self._rates(call, targets))
        budgets = tuple(item for item in call.caller.budgets if _covers(item, targets))
        if call.kind == "count":  # which no vendor bills
            budgets, rates = (), tuple(check for check in rates if check.kind == "slots")
        body = registry.format_of(call).BOUNDS.with_default_limit(call.body)
        call = call if body is call.body else replace(call, body=body)
        estimated: UpperBound | None = None
        if budgets or any(check.kind == "tokens" for check in rates):
            estimated = upper_bound(call, targets)
            call = _bounded_call(call, estimated, targets[0])
            if call.json_answers == "retry":
                estimated = _twice(estimated)
            rates = tuple(replace(c, amount=estimated.tokens) if c.kind == "tokens" else c for c in rates)
        money: tuple[tuple[Budget, Check], ...] = ()
        if budgets and estimated is not None:
            cost = _worst_cost(estimated)
            money = tuple((item, self.check(item, cost, created_at)) for item in budgets)
        checks = (*(check for _, check in money), *rates)
        held = self._ledger().hold(call.id, checks, _known(call, created_at, targets[0], money))
        self._live[call.id] = recorder
        return AdmittedCall(self, recorder, call, held, money)

    def settle(self, admitted: AdmittedCall, record: Record) -> Record | None:
        """Settle a call and give back what it did not use.

        Returns:
            The record as the row must say it; None if another worker wrote the row.
        """
        cost, tokens = record.cost_nanousd, record.input_tokens + record.output_tokens
        if not admitted.held.checks:
            self._unsettled[record.id] = (time.monotonic(), Settlement(record.id, bounded(cost or 0), tokens))
            return record
        if cost is None and admitted.budgets:
            cost = max(check.amount for _, check in admitted.budgets)
            record = replace(record, cost_nanousd=cost, usage_exact=False)
        settlement = Settlement(
            record.id,
            bounded(cost or 0),
            tokens,
            orjson.dumps(record.row()),
            exempt=_exempt(admitted.budgets, record.provider or "", record.model_served or ""),
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

    def forget(self, call_id: str) -> None:
        """The call has ended: its lease is not renewed any more."""
        self._live.pop(call_id, None)

    def tokens_seen(self) -> dict[str, int]:
        """The output tokens of each running call so far, by its id."""
        return {call_id: recorder.output_tokens_seen() for call_id, recorder in list(self._live.items())}

    def check(self, budget: Budget, cost: int, at: datetime) -> Check:
        """What ``cost`` takes of ``budget`` in the period around ``at``."""
        period, ends = _period(budget.period, self._zone, int(at.timestamp()) // 60)
        owner = SCOPE_LABELS[budget.kind]
        label = f"{_PER[budget.period]} budget of {owner}"
        if budget.model:
            label = f"{_PER[budget.period]} budget for {budget.model} of {owner}"
        return Check("money", budget.scope, budget.amount_nanousd, cost, period, ends, label)

    def _rates(self, call: Call, targets: Sequence[Target]) -> Iterator[Check]:
        """The checks of tokens, without their amounts yet, and of parallel calls."""
        caller = call.caller
        own = (self._catalog.tokens_per_minute(caller), self._catalog.parallel_calls(caller))
        yield from _pair(scope_of("key", caller.key_id), "key", *own)
        served = [(target.provider.name, target.model) for target in targets]
        for limits in caller.limits:
            if limits.applies(call.client_ip, served):
                yield from _pair(limits.scope, limits.kind, limits.tpm, limits.parallel)


def _pair(scope: str, kind: str, tpm: int | None, parallel: int | None) -> Iterator[Check]:
    if tpm is not None:
        yield Check("tokens", scope, tpm, 0, label=f"limit of tokens per minute of {SCOPE_LABELS[kind]}")
    if parallel is not None:
        yield Check("slots", scope, parallel, 1, label=f"limit of parallel calls of {SCOPE_LABELS[kind]}")


@lru_cache(maxsize=64)
def _period(period: Any, zone: str, minute: int) -> tuple[str, int | None]:
    """Identifier and end (Unix ms) of the period around a Unix minute. In every zone days begin at full minutes."""
    at = datetime.fromtimestamp(minute * 60, UTC)
    ends = periods.ends_at(period, zone, at)
    return periods.period_id(period, zone, at), None if ends is None else int(ends.timestamp() * 1000)


def _covers(budget: Budget, targets: Sequence[Target]) -> bool:
    return not budget.model or any(budget.covers(target.provider.name, target.model) for target in targets)


def _worst_cost(estimated: UpperBound) -> int:
    if estimated.unpriced is not None:
        raise Forbidden(
            f"This API key has a budget, and the price of {estimated.unpriced} is not known to this service.",
            param="model",
            code="model_without_price",
        )
    if estimated.unbounded is not None:
        raise UnsupportedParameter(
            f"This API key has a budget, and nothing bounds the cost of {estimated.unbounded}: leave it out.",
            param=estimated.unbounded,
        )
    if estimated.cost_nanousd is None:
        raise UnsupportedParameter(
            "This API key has a budget, and this service does not know the model's output limit: send max_tokens.",
            param="max_tokens",
        )
    return estimated.cost_nanousd


def _twice(estimated: UpperBound) -> UpperBound:
    """The bound of a call that may ask its model once more. It then reads its first answer, and reading a token
    costs no more than writing it."""
    cost = estimated.cost_nanousd
    return replace(
        estimated,
        input_tokens=2 * estimated.input_tokens + estimated.output_tokens,
        output_tokens=2 * estimated.output_tokens,
        cost_nanousd=None if cost is None else 3 * cost,
    )


def _bounded_call(call: Call, estimated: UpperBound, target: Target) -> Call:
    """``call`` with a limit on its output, if it has none of its own and one is known."""
    if estimated.given or estimated.max_tokens is None:
        return call
    bounds = registry.format_of(call).BOUNDS
    return replace(call, body=bounds.with_output_limit(call.body, estimated.max_tokens, target))


def _exempt(budgets: Sequence[tuple[Budget, Check]], provider: str, model: str) -> tuple[str, ...]:
    """Counter keys of the budgets that a call served by this model does not count against: held for other targets."""
    return tuple(check.counter_key for item, check in budgets if item.model and not item.covers(provider, model))


def _warn_beyond(admitted: AdmittedCall, cost: int) -> None:
    if admitted.budgets and cost > admitted.budgets[0][1].amount:
        log.warning("call %s cost more than its worst case: a vendor's count or a price is wrong", admitted.call.id)


def _known(call: Call, created_at: datetime, target: Target, money: Sequence[tuple[Budget, Check]]) -> bytes:
    """What the hold keeps, so that the reconciler can write the call's row if this worker dies."""
    return orjson.dumps(
        {
            **known_before(call, created_at),
            "body_bytes": call.body_bytes,
            "target": target.name,
            "worst": money[0][1].amount if money else None,
            "exempt": _exempt(money, target.provider.name, target.model),
        }
    )
