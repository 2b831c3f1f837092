"""``flask usage``: calls, tokens and cost per key, organisation, user, model or day."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click
from flask.cli import with_appcontext

from llm_service.cli import output
from llm_service.cli import parameters as read
from llm_service.store import keys, requests

_COUNTS = ("calls", "input_tokens", "output_tokens", "cached_tokens")


@click.command("usage", cls=output.Command)
@click.option("--by", type=click.Choice(requests.BY), default="key", show_default=True)
@click.option("--since", type=read.PAST, help="Only calls since then: 24h, 7d, or a time in ISO 8601.")
@output.json_option
@with_appcontext
def command(by: Any, since: datetime | None, as_json: bool) -> None:
    """Sum calls, tokens and cost per key, org, user, model or UTC day.

    An unknown cost is shown as "-" and is not counted as 0: unpriced_calls
    is the number of calls that a sum leaves out.
    """
    sums = requests.usage(by, since, statement_timeout=output.STATEMENT_TIMEOUT)
    rows = [{**_label(by, item.group), **_numbers(item)} for item in sums]
    if by == "key":
        names = {stored.id: stored.caller.name for stored in keys.list_all()}
        rows = [{"key_id": row["key_id"], "key_name": names.get(row["key_id"]), **row} for row in rows]
    if as_json:
        output.echo_json(rows)
        return
    numbers = (*_COUNTS, "cost", "unpriced_calls")
    labels = ("key_id", "key_name") if by == "key" else (by,)
    for row in rows:
        row["cost"] = output.dollars(row["cost_nanousd"])
    columns = (*labels, *numbers)
    output.echo_table(columns, [[row[name] for name in columns] for row in rows], numbers=numbers)


def _label(by: str, group: str | None) -> dict[str, Any]:
    return {"key_id" if by == "key" else by: group}


def _numbers(item: requests.Sums) -> dict[str, Any]:
    return {name: getattr(item, name) for name in (*_COUNTS, "cost_nanousd", "unpriced_calls")}
