"""The unbound extensions. ``create_app`` binds them; importing them starts nothing."""

from __future__ import annotations

from pathlib import Path

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import MetaData

# Constraints need names: a migration can only change what it can name, and each database would choose other names.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Migrations:
    """Stands for Flask-Migrate, which is imported only when a ``flask db`` command needs it.

    Its import of alembic would cost every worker 70-100 ms at the start, for
    commands that a server never runs.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def init_app(self, app: Flask, database: SQLAlchemy) -> None:
        app.extensions["migrate"] = self
        self.database = database

    def load(self, app: Flask) -> None:
        """Replace this object by the real extension."""
        from flask_migrate import Migrate  # type: ignore[import-untyped]

        Migrate(app, self.database, directory=str(self.directory))


db = SQLAlchemy(metadata=MetaData(naming_convention=NAMING))
migrate = Migrations(Path(__file__).parent / "store" / "migrations")
