"""What the service keeps: API keys and the request log, in SQLite or PostgreSQL.

``keys`` and ``requests`` hold the queries, ``writer`` the one way a log row gets
in, ``schema`` the migrations, ``engine`` how a database is reached.
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
        SettingsError: naming DATABASE_URL.
    """
    app.config["SQLALCHEMY_DATABASE_URI"] = database_url(settings)
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(settings)
    db.init_app(app)
    migrate.init_app(app, db)
