"""What the commands ask of the budgets' counters in Redis.

Commands must often do without Redis: the embedded server runs only while the service runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import click
from flask import current_app

from llm_service.core.errors import Unavailable
from llm_service.store.budgets import Budget


class Reconciler(Protocol):
    def rebuild(self) -> int:
        """Rebuild all counters from the request log and return their number. Raises Unavailable."""

    def balances(self, budget: Budget) -> tuple[int, int] | None:
        """Return (spent, held) in nano-dollars in the current period, or None while Redis does not answer."""


def rebuild() -> int:
    """Rebuild all counters from the request log and return their number.

    Raises:
        click.ClickException: the rebuild failed; the message says what to do.
    """
    try:
        return _reconciler().rebuild()
    except Unavailable as error:
        raise click.ClickException(f"Nothing was rebuilt: {error.message} {_remedy(error)}") from None


def held(selected: Iterable[Budget]) -> dict[str, int | None]:
    """Return what running calls hold of each budget, by the budget's id; None where Redis does not answer."""
    amounts: dict[str, int | None] = {}
    unavailable = False
    for budget in selected:
        # After the first failure Redis is not asked again: each attempt would wait for its time-out.
        balances = None if unavailable else _reconciler().balances(budget)
        unavailable = balances is None
        amounts[budget.id] = None if balances is None else balances[1]
    return amounts


def count_earlier_costs(budget: Budget, spent: int) -> None:
    """If ``budget`` is new, make Redis count what was spent before. Redis has no counter for that money yet."""
    if spent and budget.updated_at == budget.created_at:
        _rebuild_or_warn()


def count_earlier_costs_for_tier(tier: str) -> None:
    """Do the same for a key to which the budget of its ``tier`` now applies."""
    if current_app.extensions["llm_service"].catalog.tier(tier).budget is not None:
        _rebuild_or_warn()


def _rebuild_or_warn() -> None:
    try:
        _reconciler().rebuild()
    except Unavailable as error:
        click.echo(
            f"Warning: earlier costs are not counted yet: {error.message} {_remedy(error)}"
            " The service counts them when it starts; while it runs, use `flask --app wsgi budgets rebuild`.",
            err=True,
        )


def _reconciler() -> Reconciler:
    reconciler: Reconciler = current_app.extensions["llm_service"].reconciler
    return reconciler


def _remedy(error: Unavailable) -> str:
    if error.retry_after:
        return f"Try again in {error.retry_after} s."
    if current_app.extensions["llm_service"].settings.redis_url is None:
        return "Without REDIS_URL the embedded server runs only while the service runs: start the service first."
    return "Check that REDIS_URL is the one that the service uses, and that this server answers."
