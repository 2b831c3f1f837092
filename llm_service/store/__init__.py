"""What the service keeps: API keys and the request log, in SQLite or PostgreSQL.

``keys``, ``budgets``, ``limits`` and ``requests`` hold the queries. ``writer`` is the
only way to add a row to the log, ``schema`` runs the migrations and ``engine``
connects to the database.
"""

from __future__ import annotations

from flask import Flask

from llm_service.extensions import db, migrate
from llm_service.settings import Settings
from llm_service.store.engine import database_url, engine_options
from llm_service.store.schema import upgrade

__all__ = ["configure", "database_url", "engine_options", "upgrade"]


def configure(app: Flask, settings: Settings) -> None:
    """Bind the database to ``app``. Opens no connection.

    Raises:
        SettingsError: DATABASE_URL cannot be used; the message names it.
    """
    app.config["SQLALCHEMY_DATABASE_URI"] = database_url(settings)
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(settings)
    db.init_app(app)
    migrate.init_app(app, db)
