"""``flask requests``: the request log. The log contains no content, so no command here can show any."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import click
from flask import current_app

from llm_service.cli import output
from llm_service.cli import parameters as read
from llm_service.store import keys, requests, retention
from llm_service.store.tables import OUTCOMES

group = output.Group("requests", help="Read the request log.")

_since = click.option("--since", type=read.PAST, help="Only calls since then: 24h, 7d, or a time in ISO 8601.")
_TABLE_COLUMNS = (
    "created_at",
    "id",
    "key_id",
    "route",
    "model",
    "status",
    "outcome",
    "input_tokens",
    "output_tokens",
    "cost",
    "latency_ms",
)
_NUMBERS = ("status", "input_tokens", "output_tokens", "cost", "latency_ms")


def _filters(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option("--outcome", type=click.Choice(OUTCOMES), help="Only calls with this outcome.")(function)
    return click.option("--key", help="Only calls of this key: its id or name.")(function)


@group.command("list")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Maximum number.")
@_since
@_filters
@output.json_option
def list_(limit: int, since: datetime | None, key: str | None, outcome: str | None, as_json: bool) -> None:
    """List the newest calls, newest first."""
    rows = requests.recent(limit, since, _key_id(key), outcome, statement_timeout=output.STATEMENT_TIMEOUT)
    if as_json:
        output.echo_json(rows)
        return
    output.echo_table(_TABLE_COLUMNS, [_cells(row) for row in rows], numbers=_NUMBERS)


@group.command()
@click.option("--last", type=click.IntRange(0, 10_000), default=10, show_default=True, help="Number of earlier calls.")
@_filters
@output.json_option
def tail(last: int, key: str | None, outcome: str | None, as_json: bool) -> None:
    """Print calls as they end, until Ctrl-C. With --json: one object per line."""
    rows = requests.follow(_key_id(key), outcome, last=last)
    if as_json:
        output.follow(rows, output.echo_json)
        return
    output.follow(rows, lambda row: click.echo("  ".join(output.cell(value) for value in _cells(row))))


@group.command()
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="jsonl", show_default=True)
@_since
@_filters
@output.json_option
def export(form: str, since: datetime | None, key: str | None, outcome: str | None, as_json: bool) -> None:
    """Write all calls to stdout, oldest first, as CSV or JSON lines (--json means JSON lines)."""
    rows = requests.export(since, _key_id(key), outcome, statement_timeout=output.STATEMENT_TIMEOUT)
    if form == "csv" and not as_json:
        _write_csv(rows)
        return
    for row in rows:
        output.echo_json(row)


@group.command()
@click.option("--days", type=click.IntRange(1, 36500), help="Number of days to keep, instead of the setting's.")
@output.json_option
def prune(days: int | None, as_json: bool) -> None:
    """Delete the rows that are older than LLM_SERVICE_LOG_RETENTION_DAYS. The sums that `usage` prints stay."""
    days = days or current_app.extensions["llm_service"].settings.log_retention_days
    if days is None:
        raise click.UsageError("No age limit is set for rows: set LLM_SERVICE_LOG_RETENTION_DAYS, or give --days.")
    before = retention.cutoff(days)
    deleted = retention.prune(before)
    if as_json:
        output.echo_json({"deleted": deleted, "before": before})
    else:
        click.echo(f"Deleted {deleted:,} rows from before {output.cell(before)} UTC.")


def _write_csv(rows: Iterator[dict[str, Any]]) -> None:
    # The line ends of RFC 4180. With "\n" Python 3.11 leaves a "\r" in a field unquoted: readers end the row there.
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    writer.writerow(requests.COLUMNS)
    for row in rows:
        writer.writerow([_spreadsheet(row[name]) for name in requests.COLUMNS])


def _spreadsheet(value: Any) -> Any:
    """Return ``value``, with an apostrophe in front if a spreadsheet would run it as a formula.

    Callers choose some of these texts, such as model names (owasp.org/www-community/attacks/CSV_Injection).
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    value = output.plain(value)
    if isinstance(value, str) and value.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return "'" + value
    return value


def _key_id(reference: str | None) -> str | None:
    """Return the key's id for an id or a name.

    An unknown reference is returned as it is: it may be the id of a key from API_KEYS.
    """
    if reference is None:
        return None
    found = keys.matching(reference)
    if len(found) > 1:
        ids = ", ".join(stored.id for stored in found)
        raise click.ClickException(f"Several keys have this name; use one of the ids: {ids}.")
    return found[0].id if found else reference


def _cells(row: dict[str, Any]) -> list[Any]:
    served = f"{row['provider']}/{row['model_served']}" if row["provider"] and row["model_served"] else None
    computed = {"model": served or row["model_asked"], "cost": output.dollars(row["cost_nanousd"])}
    return [computed[name] if name in computed else row[name] for name in _TABLE_COLUMNS]
