"""``flask budgets``: how much money keys, users, organisations and the whole service may spend."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import click
from flask import current_app

from llm_service.cli import counters, output, scopes
from llm_service.cli import parameters as read
from llm_service.core import periods
from llm_service.core.money import as_dollars
from llm_service.store import budgets, keys
from llm_service.store.budgets import Budget

group = output.Group("budgets", help="Set budgets and see what is left of them.")
_budget_argument = click.argument("budget", metavar="BUDGET")
_COLUMNS = ("id", "kind", "name", "model", "amount", "per", "spent", "held", "left", "resets_at")
_AMOUNTS = ("amount", "spent", "held", "left")


@group.command("list")
@output.json_option
def list_(as_json: bool) -> None:
    """List all budgets: the money spent, held by running calls and left in the current period."""
    rows = described(budgets.list_all())
    if as_json:
        output.echo_json(rows)
        return
    names = {stored.id: stored.caller.name for stored in keys.list_all()}
    table = []
    for row in rows:
        name = row["name"] if row["kind"] != "key" else f"{row['name']} ({names.get(row['name'], '?')})"
        shown = {**row, "name": name, **_in_dollars(row)}
        table.append([shown[column] for column in _COLUMNS])
    output.echo_table(_COLUMNS, table, numbers=_AMOUNTS)


@group.command()
@_budget_argument
@output.json_option
def show(budget: str, as_json: bool) -> None:
    """Show one budget. BUDGET is its id."""
    (fields,) = described([_find(budget)])
    _print(fields, as_json)


@group.command("set")
@scopes.options("key", "user", "org")
@click.option("--amount", type=read.USD, required=True, help="Dollars, exact to the nano-dollar, e.g. 25 or 0.50.")
@click.option("--per", type=click.Choice(periods.PERIODS), default="month", show_default=True, help="Budget period.")
@click.option("--model", type=read.LABEL, help="Count only calls to this model or pattern, e.g. openai/gpt-6*.")
@output.json_option
def set_(as_json: bool, amount: int, per: Any, model: str | None, **given: Any) -> None:
    """Set the budget of a scope for a period, and for one model if --model is given. It replaces an older one."""
    kind, name = scopes.selected(given)
    budget = budgets.put(kind, name, amount, per, model or "")
    (fields,) = described([budget])
    counters.count_earlier_costs(budget, fields["spent_nanousd"])
    _print(fields, as_json)
    if not as_json:
        _warn_if_overspent(fields)


@group.command()
@_budget_argument
@output.json_option
def remove(budget: str, as_json: bool) -> None:
    """Remove a budget. It then limits no call any more."""
    try:
        removed = budgets.remove(_find(budget).id)
    except budgets.BudgetUnknown:
        raise _unknown() from None
    stored = keys.find(removed.name) if removed.kind == "key" else None
    if stored is not None:
        counters.count_earlier_costs_for_tier(stored.caller.tier)
    if as_json:
        output.echo_json({"id": removed.id, "removed": True})
    else:
        click.echo(f"Removed budget {removed.id}.")


@group.command()
@output.json_option
def rebuild(as_json: bool) -> None:
    """Rebuild the counters in Redis from the request log."""
    rebuilt = counters.rebuild()
    if as_json:
        output.echo_json({"rebuilt": rebuilt})
    else:
        click.echo(f"{rebuilt:,} {'counter was' if rebuilt == 1 else 'counters were'} rebuilt from the log.")


def described(selected: Iterable[Budget]) -> list[dict[str, Any]]:
    """Return budgets as the commands print them. The spent amount comes from the log, the held amount from Redis."""
    selected = list(selected)
    zone = current_app.extensions["llm_service"].settings.time_zone
    now = datetime.now(UTC)
    spent = budgets.spent(selected, zone, now, statement_timeout=output.STATEMENT_TIMEOUT)
    held = counters.held(selected)
    return [{**_describe(item, spent, zone, now), **_held(held[item.id])} for item in selected]


def _warn_if_overspent(fields: dict[str, Any]) -> None:
    """Warn on stderr if more than the budget's amount is already spent."""
    over = fields["spent_nanousd"] - fields["amount_nanousd"]
    if over > 0:
        spent = output.dollars(fields["spent_nanousd"])
        click.echo(
            f"Warning: {spent} is already spent in this period ({fields['period']}), {output.dollars(over)} more"
            " than the budget. Nothing is left until the budget resets.",
            err=True,
        )


def _describe(budget: Budget, spent: dict[tuple[str, str], int], zone: str, now: datetime) -> dict[str, Any]:
    period = periods.period_id(budget.period, zone, now)
    spent_nanousd = spent[budget.scope, period]
    return {
        "id": budget.id,
        "kind": budget.kind,
        "name": budget.name or None,
        "model": budget.model or None,
        "amount_usd": as_dollars(budget.amount_nanousd),
        "amount_nanousd": budget.amount_nanousd,
        "per": budget.period,
        "period": period,
        "spent_usd": as_dollars(spent_nanousd),
        "spent_nanousd": spent_nanousd,
        "left_usd": as_dollars(max(0, budget.amount_nanousd - spent_nanousd)),
        "over_by_usd": as_dollars(max(0, spent_nanousd - budget.amount_nanousd)),
        "resets_at": periods.ends_at(budget.period, zone, now),
        "created_at": budget.created_at,
        "updated_at": budget.updated_at,
    }


def _held(nanodollars: int | None) -> dict[str, Any]:
    return {"held_usd": as_dollars(nanodollars), "held_nanousd": nanodollars}


def _in_dollars(fields: dict[str, Any]) -> dict[str, str]:
    left = fields["amount_nanousd"] - fields["spent_nanousd"]
    amounts = (fields["amount_nanousd"], fields["spent_nanousd"], fields["held_nanousd"], max(0, left))
    return dict(zip(_AMOUNTS, map(output.dollars, amounts), strict=True))


def _find(budget_id: str) -> Budget:
    found = budgets.find(budget_id.strip().lower())
    if found is None:
        raise _unknown()
    return found


def _unknown() -> click.ClickException:
    return click.ClickException("There is no budget with this id. `flask --app wsgi budgets list` shows all ids.")


def _print(fields: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.echo_json(fields)
        return
    shown = {name: value for name, value in fields.items() if not name.endswith(("_usd", "_nanousd"))}
    output.echo_fields([*shown.items(), *_in_dollars(fields).items()])
