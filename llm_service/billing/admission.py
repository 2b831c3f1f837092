"""Admission: every limit that applies to a call is held before the call is sent.

The hold is an upper bound (``upper_bound``). A call that has a budget is rejected if nothing bounds its cost: a model
without a price, or a field that makes the vendor charge for something that is not in the request. If the caller set
no limit on the output, the model's own limit is written into the body that is sent.

``settlement`` settles the call when it ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import orjson

from llm_service.billing.ledger import Check, Ledger
from llm_service.billing.settlement import AdmittedCall, Recorder, Settler, exempt_keys
from llm_service.billing.upper_bound import UpperBound, upper_bound
from llm_service.catalog.catalog import Catalog
from llm_service.core import periods
from llm_service.core.call import Call
from llm_service.core.errors import Forbidden, UnsupportedParameter
from llm_service.core.limits import Budget, scope_of
from llm_service.core.target import Target
from llm_service.formats import registry
from llm_service.observability.record import known_before

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


class Admission:
    """Holds what the calls of each process may take. ``settler`` settles them.

    ``ledger()`` returns the ledger of this process. ``zone`` is the time zone in which the budgets' periods begin.
    """

    def __init__(self, catalog: Catalog, ledger: Callable[[], Ledger], settler: Settler, zone: str) -> None:
        self.settler = settler
        self._catalog, self._ledger, self._zone = catalog, ledger, zone
        self._listeners: list[Callable[[], object]] = []
        self._live: dict[str, Recorder] = {}

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
            call = _bounded_call(call, estimated)
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
        return AdmittedCall(self.settler, self._ended, recorder, call, held, money)

    def _ended(self, call_id: str) -> None:
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


def _bounded_call(call: Call, estimated: UpperBound) -> Call:
    """``call`` with a limit on its output, if it has none of its own and one is known."""
    if estimated.given or estimated.max_tokens is None:
        return call
    bounds = registry.format_of(call).BOUNDS
    return replace(call, body=bounds.with_output_limit(call.body, estimated.max_tokens))


def _known(call: Call, created_at: datetime, target: Target, money: Sequence[tuple[Budget, Check]]) -> bytes:
    """What the hold keeps, so that the reconciler can write the call's row if this worker dies."""
    return orjson.dumps(
        {
            **known_before(call, created_at),
            "body_bytes": call.body_bytes,
            "target": target.name,
            "worst": money[0][1].amount if money else None,
            "exempt": exempt_keys(money, target.provider.name, target.model),
        }
    )
