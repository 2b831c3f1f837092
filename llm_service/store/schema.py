"""Migrating the database to this version's schema.

``upgrade`` costs one SELECT when there is nothing to do, and imports alembic only
when there is. Any number of processes may start at once: ``lock`` lets one of them
migrate, and the others find that it is done.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flask import Flask
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from llm_service.extensions import db
from llm_service.store.engine import schema_missing

# The newest file in migrations/versions; a test compares the two.
HEAD: Final = "0006"
MIGRATIONS: Final = Path(__file__).with_name("migrations")
_ADVISORY_LOCK: Final = 0x6C6C6D5F73657276  # "llm_serv"


class SchemaError(RuntimeError):
    """The database is at a revision that this version does not know."""


def current(engine: Engine) -> str | None:
    """Return the revision of the database; None before the first migration."""
    try:
        with engine.connect() as connection:
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    except DBAPIError as error:
        if schema_missing(error):
            return None
        raise


def upgrade(app: Flask, revision: str = "head", *, sql: bool = False) -> bool:
    """Apply the missing migrations up to ``revision``. Return whether there were any. ``sql`` only prints them.

    Raises:
        SchemaError: the database belongs to a newer version, or there is no such revision.
        sqlalchemy.exc.DBAPIError: the database does not answer.
    """
    with app.app_context():
        before = None if sql else current(db.engine)
        if before == HEAD and revision in ("head", HEAD):
            return False

        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        try:
            command.upgrade(config, revision, sql=sql)
        except CommandError as error:
            raise SchemaError(f"The database cannot be migrated to revision {revision}: {error}") from None
        return not sql and current(db.engine) != before


@contextmanager
def lock(engine: Engine) -> Iterator[None]:
    """Hold the lock for migrations on SQLite: a file beside the database. A killed process cannot leave it locked."""
    if engine.dialect.name != "sqlite":
        yield
        return
    with open(f"{engine.url.database}.migrating", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def begin(connection: Connection) -> None:
    """Open the one transaction of a migration: either all of it happens or nothing.

    Without this, sqlite3 would commit around each CREATE TABLE. PostgreSQL waits here
    for the advisory lock, without the service's usual time-outs.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA busy_timeout = 30000")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
