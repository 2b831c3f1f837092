"""What commands ask of the service's counters in Redis, which is away more often for them than for the service."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import click
from flask import current_app

from llm_service.core.errors import Unavailable
from llm_service.store.budgets import Budget


class Accounts(Protocol):
    def rebuild(self) -> int:
        """Set all counters anew from the log; how many there are. Raises Unavailable."""

    def balances(self, budget: Budget) -> tuple[int, int] | None:
        """(spent, held) in nano-dollars in the current period; None while Redis is away."""


def rebuild() -> int:
    """As ``Accounts.rebuild``.

    Raises:
        click.ClickException: it could not be done; says what to do.
    """
    try:
        return _accounts().rebuild()
    except Unavailable as error:
        raise click.ClickException(f"Nothing was rebuilt: {error.message} {_remedy(error)}") from None


def held(found: Iterable[Budget]) -> dict[str, int | None]:
    """By the budgets' ids, what calls in flight hold of them; None where Redis does not say."""
    told: dict[str, int | None] = {}
    away = False
    for budget in found:
        # Asked once in vain, it is not waited for again.
        pair = None if away else _accounts().balances(budget)
        away = pair is None
        told[budget.id] = None if pair is None else pair[1]
    return told


def count_from_before(budget: Budget, spent: int) -> None:
    """Have Redis count what was spent before ``budget`` was first set, of which it knows nothing."""
    if spent and budget.updated_at == budget.created_at:
        _count_anew()


def count_from_before_in(tier: str) -> None:
    """The same for a key that the budget of its ``tier`` begins to count for."""
    if current_app.extensions["llm_service"].catalog.tier(tier).budget is not None:
        _count_anew()


def _count_anew() -> None:
    try:
        _accounts().rebuild()
    except Unavailable as error:
        click.echo(
            f"Warning: what was spent before is not counted yet: {error.message} {_remedy(error)}"
            " The service does it when it starts, and `flask --app wsgi budgets rebuild` while it runs.",
            err=True,
        )


def _accounts() -> Accounts:
    accounts: Accounts = current_app.extensions["llm_service"].accounts
    return accounts


def _remedy(error: Unavailable) -> str:
    if error.retry_after:
        return f"Try again in {error.retry_after} s."
    if current_app.extensions["llm_service"].settings.redis_url is None:
        return "Without REDIS_URL the embedded server runs only while the service runs: start it first."
    return "Is REDIS_URL the service's, and does that server answer?"
