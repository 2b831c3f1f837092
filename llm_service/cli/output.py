"""How commands print: JSON for programs, tables for people, one sentence for a failure.

rich is imported only when a table is drawn, so a ``--json`` call does not pay for the import.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError

from llm_service.core.money import NANO_PER_DOLLAR
from llm_service.store.engine import schema_missing

# Seconds that one SQL statement of a command may take. People wait longer than calls do.
STATEMENT_TIMEOUT = 600.0

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")


class _ExplainsDatabaseErrors:
    """A command or group that reports a database failure in one sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)  # type: ignore[misc]
        except SQLAlchemyError as error:
            if schema_missing(error):
                raise click.ClickException(
                    "The database schema is missing or old: run `flask --app wsgi db upgrade`."
                ) from None
            cause = type(getattr(error, "orig", None) or error).__name__
            raise click.ClickException(f"The database reported an error ({cause}).") from None


class Group(_ExplainsDatabaseErrors, AppGroup):
    pass


class Command(_ExplainsDatabaseErrors, click.Command):
    pass


def plain(value: Any) -> Any:
    """Return ``value`` in a form that JSON can hold: times are in ISO 8601, in UTC, with Z."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, tuple):
        return list(value)
    return value


def json_line(data: Any) -> str:
    # Only ASCII is written: the encoding of stdout may lack characters that a name contains.
    return json.dumps(data, default=plain)


def echo_json(data: Any) -> None:
    click.echo(json_line(data))


def cell(value: Any) -> str:
    """Return ``value`` as text for people. Control characters become visible: a name may contain escape codes."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(item) for item in value) or "all"
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return "".join("\ufffd" if unicodedata.category(char) in ("Cc", "Cf", "Cs") else char for char in text)


def dollars(nanodollars: int | None) -> str:
    """Return the amount exact to the nano-dollar, with at least six decimals; ``-`` if it is unknown."""
    if nanodollars is None:
        return "-"
    whole, rest = divmod(nanodollars, NANO_PER_DOLLAR)
    return f"${whole:,}.{f'{rest:09d}'.rstrip('0').ljust(6, '0')}"


def echo_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Iterable[str] = ()) -> None:
    """Print a table. The columns named in ``numbers`` are right-aligned."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    # A pipe has no width. Lines are never wrapped there: an id broken in two is useless.
    console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False, width=None if terminal else 10_000)
    table = Table(box=None if not terminal else _box(), header_style="bold", pad_edge=terminal)
    right = set(numbers)
    for name in columns:
        # On a narrow terminal the other columns are folded first.
        whole = not terminal or name in ("id", "key_id")
        table.add_column(name, justify="right" if name in right else "left", no_wrap=whole, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    if terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _box() -> Any:
    from rich import box

    return box.SIMPLE_HEAD


def echo_fields(fields: Sequence[tuple[str, Any]]) -> None:
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        click.echo(f"{name:<{width}}  {cell(value)}")


def follow(lines: Iterable[Any], show: Callable[[Any], None]) -> None:
    """Show each line as it comes, until Ctrl-C. That is the normal way to end, not a failure."""
    try:
        for line in lines:
            show(line)
            sys.stdout.flush()
    except KeyboardInterrupt:
        pass
