"""``flask db``: Flask-Migrate's commands, with our own ``upgrade``.

Ours costs one SELECT when there is nothing to do and may run in any number of
processes at once. The others are loaded when they are asked for.
"""

from __future__ import annotations

import click
from flask import current_app, g
from flask.cli import with_appcontext

from llm_service.cli import output
from llm_service.extensions import db, migrate
from llm_service.store import schema


class _Group(output.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._theirs().commands} - {"init", "list-templates"})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or self._theirs().get_command(ctx, cmd_name)

    def _theirs(self) -> click.Group:
        from flask_migrate.cli import db as theirs  # type: ignore[import-untyped]

        assert isinstance(theirs, click.Group)
        return theirs


@click.group("db", cls=_Group)
@click.pass_context
@with_appcontext
def group(ctx: click.Context) -> None:
    """Prepare and change the database."""
    if ctx.invoked_subcommand == "upgrade":
        return
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    migrate.load(app)
    app.cli.add_command(group)  # Flask-Migrate has put its own in this place
    g.directory, g.x_arg = None, ()


@group.command()
@click.argument("revision", default="head")
@click.option("--sql", is_flag=True, help="Print the SQL instead of running it.")
@output.json_option
def upgrade(revision: str, sql: bool, as_json: bool) -> None:
    """Bring the database to this version's schema, or to REVISION."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    try:
        changed = schema.upgrade(app, revision, sql=sql)
    except schema.SchemaError as error:
        raise click.ClickException(f"{error}.") from None
    if sql:
        return
    at = schema.current(db.engine)
    if as_json:
        output.echo_json({"revision": at, "changed": changed})
    else:
        click.echo(f"The database is {'now' if changed else 'already'} at revision {at}.")
