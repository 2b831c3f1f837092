"""``flask budgets``: money per key, user, organisation and for the whole service."""

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
    """List all budgets with what is spent, held by calls in flight, and left in the current period."""
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
    """Show one budget: BUDGET is its id."""
    (fields,) = described([_chosen(budget)])
    _say(fields, as_json)


@group.command("set")
@scopes.options("key", "user", "org")
@click.option("--amount", type=read.USD, required=True, help="Dollars, to the nano-dollar: 25, 0.50.")
@click.option("--per", type=click.Choice(periods.PERIODS), default="month", show_default=True)
@click.option("--model", type=read.LABEL, help="Only for this model or pattern, e.g. openai/gpt-5*.")
@output.json_option
def set_(as_json: bool, amount: int, per: Any, model: str | None, **given: Any) -> None:
    """Set the budget of a scope per period, and per model if one is named; an older one is replaced."""
    kind, name = scopes.meant(given)
    budget = budgets.put(kind, name, amount, per, model or "")
    (fields,) = described([budget])
    counters.count_from_before(budget, fields["spent_nanousd"])
    _say(fields, as_json)
    if not as_json:
        _warn(fields)


@group.command()
@_budget_argument
@output.json_option
def remove(budget: str, as_json: bool) -> None:
    """Remove a budget: what it limited is then without that limit."""
    try:
        gone = budgets.remove(_chosen(budget).id)
    except budgets.BudgetUnknown:
        raise _unknown() from None
    stored = keys.find(gone.name) if gone.kind == "key" else None
    if stored is not None:
        counters.count_from_before_in(stored.caller.tier)
    if as_json:
        output.echo_json({"id": gone.id, "removed": True})
    else:
        click.echo(f"Removed budget {gone.id}.")


@group.command()
@output.json_option
def rebuild(as_json: bool) -> None:
    """Recompute what Redis counts from the request log."""
    rebuilt = counters.rebuild()
    if as_json:
        output.echo_json({"rebuilt": rebuilt})
    else:
        click.echo(f"{rebuilt:,} {'counter was' if rebuilt == 1 else 'counters were'} rebuilt from the log.")


def described(found: Iterable[Budget]) -> list[dict[str, Any]]:
    """Budgets as commands print them. What is spent in the current period is the log's word, what is held Redis'."""
    found = list(found)
    zone = current_app.extensions["llm_service"].settings.time_zone
    now = datetime.now(UTC)
    spent = budgets.spent(found, zone, now, patience=output.PATIENCE)
    held = counters.held(found)
    return [{**_describe(item, spent, zone, now), **_held(held[item.id])} for item in found]


def _warn(fields: dict[str, Any]) -> None:
    """Say on stderr that a budget was set below what is spent."""
    over = fields["spent_nanousd"] - fields["amount_nanousd"]
    if over > 0:
        spent = output.dollars(fields["spent_nanousd"])
        click.echo(
            f"Warning: {spent} is already spent in this period ({fields['period']}), {output.dollars(over)} more"
            " than the budget: nothing is left until it resets.",
            err=True,
        )


def _describe(budget: Budget, spent: dict[tuple[str, str], int], zone: str, now: datetime) -> dict[str, Any]:
    period = periods.period_id(budget.period, zone, now)
    used = spent[budget.scope, period]
    return {
        "id": budget.id,
        "kind": budget.kind,
        "name": budget.name or None,
        "model": budget.model or None,
        "amount_usd": as_dollars(budget.amount_nanousd),
        "amount_nanousd": budget.amount_nanousd,
        "per": budget.period,
        "period": period,
        "spent_usd": as_dollars(used),
        "spent_nanousd": used,
        "left_usd": as_dollars(max(0, budget.amount_nanousd - used)),
        "over_by_usd": as_dollars(max(0, used - budget.amount_nanousd)),
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


def _chosen(budget_id: str) -> Budget:
    found = budgets.find(budget_id.strip().lower())
    if found is None:
        raise _unknown()
    return found


def _unknown() -> click.ClickException:
    return click.ClickException("There is no budget with this id; `flask --app wsgi budgets list` shows them.")


def _say(fields: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.echo_json(fields)
        return
    shown = {name: value for name, value in fields.items() if not name.endswith(("_usd", "_nanousd"))}
    output.echo_fields([*shown.items(), *_in_dollars(fields).items()])
