"""What a call may take and what it took: the limits that apply to it, held before it is made, settled when it ends.

The hold is an upper bound (``upper_bound``). A call that has a budget is refused when nothing bounds its
cost: a model without a price, a field that makes the vendor charge for what is not in the request.
Where the caller set no limit on the output, the model's own is written into the body that travels.

What the caller pays is what its row says. A cost that is not known, of a call with a budget, is what
was held, and the row says that it is not exact.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

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
from llm_service.observability import scrub
from llm_service.observability.record import Record

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


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted call: as it travels, and what was taken for it."""

    call: Call
    held: Held
    budgets: tuple[tuple[Budget, Check], ...] = ()

    @property
    def tightest(self) -> Limit | None:
        return self.held.tightest()


class Meter:
    """``ledger()`` is this process' own. ``zone``: in which budgets' periods begin."""

    def __init__(self, catalog: Catalog, ledger: Callable[[], Ledger], zone: str) -> None:
        self._catalog, self._ledger, self._zone = catalog, ledger, zone

    def admit(self, call: Call, created_at: datetime) -> Admission:
        """Hold what ``call`` may take, all or nothing. ``created_at`` is its row's.

        Raises:
            ModelNotFound, Forbidden: of the catalogue; also a model without a price for a key with a budget.
            UnsupportedParameter: of a key with a budget: the field whose cost nothing bounds.
            BudgetExceeded, RateLimited, Unavailable: of the ledger.
        """
        targets = self._catalog.resolve(call.model, call.caller)
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
        held = self._ledger().hold(call.id, checks, _intent(call, created_at, targets[0], money))
        return Admission(call, held, money)

    def settle(self, admission: Admission, record: Record) -> Record | None:
        """Give back what was not used. The record as its row must say it; None when somebody else wrote the row."""
        cost = record.cost_nanousd
        if cost is None and admission.budgets:
            cost = max(check.amount for _, check in admission.budgets)
            record = replace(record, cost_nanousd=cost, usage_exact=False)
        settlement = Settlement(
            record.id,
            bounded(cost or 0),
            record.input_tokens + record.output_tokens,
            orjson.dumps(record.row()),
            exempt=_exempt(admission.budgets, record.provider or "", record.model_served or ""),
        )
        _warn_beyond(admission, cost or 0)
        return record if self._ledger().settle_many([settlement])[0] else None

    def check(self, budget: Budget, cost: int, at: datetime) -> Check:
        """What ``cost`` takes of ``budget`` in the period around ``at``."""
        period, ends = _period(budget.period, self._zone, int(at.timestamp()) // 60)
        whose = SCOPE_LABELS[budget.kind]
        label = f"{_PER[budget.period]} budget of {whose}"
        if budget.model:
            label = f"{_PER[budget.period]} budget for {budget.model} of {whose}"
        return Check("money", budget.scope, budget.amount_nanousd, cost, period, ends, label)

    def _rates(self, call: Call, targets: Sequence[Target]) -> Iterator[Check]:
        """Checks of tokens (of no amount yet) and parallel calls."""
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
    """Identifier and end (Unix ms): no zone's days begin within a minute."""
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
            f"This API key has a budget, and what {estimated.unbounded} costs cannot be known beforehand.",
            param=estimated.unbounded,
        )
    if estimated.cost_nanousd is None:
        raise UnsupportedParameter(
            "This API key has a budget: send max_tokens, as the model's own limit is not known to this service.",
            param="max_tokens",
        )
    return estimated.cost_nanousd


def _twice(estimated: UpperBound) -> UpperBound:
    """Of a call whose model may be asked once more, and is then shown its first answer: which costs no more read
    than written."""
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
    """Places of the budgets that a call served by this model does not count against: held for other targets."""
    return tuple(check.place for item, check in budgets if item.model and not item.covers(provider, model))


def _warn_beyond(admission: Admission, cost: int) -> None:
    if admission.budgets and cost > admission.budgets[0][1].amount:
        log.warning("call %s cost more than its worst case: a vendor's count or a price is wrong", admission.call.id)


def _intent(call: Call, created_at: datetime, target: Target, money: Sequence[tuple[Budget, Check]]) -> bytes:
    """What ``accounting`` makes the row of, should this worker die."""
    caller = call.caller
    return orjson.dumps(
        {
            "created_at": created_at,
            "key_id": caller.key_id,
            "org": caller.org,
            "user": caller.user,
            "route": call.route,
            "dialect": call.format,
            "stream": call.stream,
            "model_asked": scrub.identifier(call.model),
            "request_id": scrub.identifier(call.request_id),
            "body_bytes": call.body_bytes,
            "target": target.name,
            "worst": money[0][1].amount if money else None,
            "exempt": _exempt(money, target.provider.name, target.model),
        }
    )
