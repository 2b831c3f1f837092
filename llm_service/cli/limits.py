"""``flask limits``: limits of users, organisations, networks, models and the whole service."""

from __future__ import annotations

from typing import Any

import click

from llm_service.cli import output, scopes
from llm_service.cli import parameters as read
from llm_service.store import limits
from llm_service.store.limits import Limits

group = output.Group("limits", help="Limit users, organisations, networks, models and the whole service.")


@group.command("list")
@output.json_option
def list_(as_json: bool) -> None:
    """List the limits that are set."""
    rows = [_describe(item) for item in limits.list_all()]
    if as_json:
        output.echo_json(rows)
        return
    columns = ("kind", "name", *limits.NAMES)
    output.echo_table(columns, [[row[name] for name in columns] for row in rows], numbers=limits.NAMES)


@group.command("set")
@scopes.options("user", "org", "network", "model")
@click.option("--rpm", type=read.RPM, help="Requests per minute; none for no limit.")
@click.option("--tpm", type=read.TPM, help="Tokens per minute; none for no limit.")
@click.option("--parallel", type=read.PARALLEL, help="Calls at the same time; none for no limit.")
@output.json_option
def set_(as_json: bool, rpm: int | None, tpm: int | None, parallel: int | None, **given: Any) -> None:
    """Limit all calls of one scope together. Limits that are not given stay as they are."""
    kind, name = scopes.selected(given)
    ctx = click.get_current_context()
    values = {"rpm": rpm, "tpm": tpm, "parallel": parallel}
    typed = {
        limit: value
        for limit, value in values.items()
        if ctx.get_parameter_source(limit) is click.core.ParameterSource.COMMANDLINE
    }
    if not typed:
        raise click.UsageError("Nothing to set: give at least one limit.")
    fields = _describe(limits.put(kind, name, typed))
    if as_json:
        output.echo_json(fields)
    else:
        output.echo_fields(list(fields.items()))


@group.command()
@scopes.options("user", "org", "network", "model")
@output.json_option
def remove(as_json: bool, **given: Any) -> None:
    """Remove all limits of one scope."""
    kind, name = scopes.selected(given)
    if not limits.remove(kind, name):
        raise click.ClickException("This scope has no limits. `flask --app wsgi limits list` shows all limits.")
    if as_json:
        output.echo_json({"removed": True, "kind": kind, "name": name or None})
    else:
        click.echo("Removed.")


def _describe(item: Limits) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "name": item.name or None,
        "rpm": item.rpm,
        "tpm": item.tpm,
        "parallel": item.parallel,
    }
