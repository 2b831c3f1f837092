"""``flask db``: Flask-Migrate's commands, with our own ``upgrade``.

Our ``upgrade`` costs one SELECT when there is nothing to do, and any number of
processes may run it at once. Flask-Migrate is imported only when one of its
commands is used.
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
        return sorted({*super().list_commands(ctx), *self._flask_migrate().commands} - {"init", "list-templates"})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or self._flask_migrate().get_command(ctx, cmd_name)

    def _flask_migrate(self) -> click.Group:
        from flask_migrate.cli import db as group  # type: ignore[import-untyped]

        assert isinstance(group, click.Group)
        return group


@click.group("db", cls=_Group)
@click.pass_context
@with_appcontext
def group(ctx: click.Context) -> None:
    """Prepare and change the database."""
    if ctx.invoked_subcommand == "upgrade":
        return
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    migrate.load(app)
    app.cli.add_command(group)  # Flask-Migrate has replaced it by its own group
    g.directory, g.x_arg = None, ()


@group.command()
@click.argument("revision", default="head")
@click.option("--sql", is_flag=True, help="Print the SQL instead of running it.")
@output.json_option
def upgrade(revision: str, sql: bool, as_json: bool) -> None:
    """Migrate the database to this version's schema, or to REVISION."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    try:
        changed = schema.upgrade(app, revision, sql=sql)
    except schema.SchemaError as error:
        raise click.ClickException(f"{error}.") from None
    if sql:
        return
    current = schema.current(db.engine)
    if as_json:
        output.echo_json({"revision": current, "changed": changed})
    else:
        click.echo(f"The database is {'now' if changed else 'already'} at revision {current}.")
