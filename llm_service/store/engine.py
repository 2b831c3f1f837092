"""How the service connects to its database: URLs, time-outs and SQLite's pragmas.

``hide_parameters`` is always on: an SQLAlchemy error or an engine log line must
never print the values of a row.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from llm_service.settings import Settings, SettingsError

SQLITE_BUSY_MS = 250
STATEMENT_TIMEOUT_MS = 5_000
LOCK_TIMEOUT_MS = 2_000

# If packets to PostgreSQL are lost, a call must wait seconds, not the kernel's two hours.
_LIBPQ = {
    "connect_timeout": 5,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "llm_service",
}


def database_url(settings: Settings) -> str:
    """Return the SQLAlchemy URL, with an absolute path for SQLite.

    Flask-SQLAlchemy resolves a relative path in its own instance folder, sqlite3 in
    the working directory. An absolute path means the same file to both.

    Raises:
        SettingsError: it is not a URL, or names a database that this service does not support.
    """
    try:
        url = make_url(settings.sqlalchemy_url)
    except ArgumentError:
        raise SettingsError("DATABASE_URL: must be an SQLAlchemy URL") from None
    if url.drivername in ("postgresql", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise SettingsError("DATABASE_URL: must be sqlite:///path or postgresql://user:password@host/name")
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise SettingsError("DATABASE_URL: SQLite needs a plain file path that all workers can open")
    return url.set(database=str(Path(url.database).absolute())).render_as_string(hide_password=False)


def engine_options(settings: Settings) -> dict[str, Any]:
    """``SQLALCHEMY_ENGINE_OPTIONS`` for ``database_url(settings)``."""
    return options_for(make_url(database_url(settings)))


def options_for(url: URL) -> dict[str, Any]:
    """Return the keyword arguments of ``create_engine``."""
    if url.get_backend_name() == "sqlite":
        return {"hide_parameters": True, "pool_events": [(_on_sqlite_connect, "connect")]}
    return {
        "hide_parameters": True,
        "pool_pre_ping": True,
        "pool_size": 5,
        "max_overflow": 5,
        "pool_timeout": 5,
        "connect_args": _connect_args(url),
    }


def unpooled_engine(url: str | URL) -> Engine:
    """Return an engine without a pool, for a user of a single connection such as the log writer or a migration."""
    options = options_for(make_url(url))
    kept = {name: options[name] for name in ("hide_parameters", "pool_events", "connect_args") if name in options}
    return create_engine(url, poolclass=NullPool, **kept)


def _connect_args(url: URL) -> dict[str, Any]:
    """Leave out what the URL itself sets, because connect_args would override it."""
    arguments: dict[str, Any] = {name: value for name, value in _LIBPQ.items() if name not in url.query}
    ours = f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
    theirs = url.query.get("options", "")
    arguments["options"] = f"{ours} {theirs if isinstance(theirs, str) else ' '.join(theirs)}".strip()
    return arguments


def set_pragmas(connection: sqlite3.Connection) -> None:
    """Raises sqlite3.OperationalError if another process is switching the file to WAL at this moment."""
    connection.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _on_sqlite_connect(connection: sqlite3.Connection, _record: object) -> None:
    # The switch to WAL ignores busy_timeout, so processes that open a new file at the same time collide.
    for attempt in range(100):
        try:
            set_pragmas(connection)
            return
        except sqlite3.OperationalError:
            if attempt == 99:
                raise
            time.sleep(0.02)


@contextmanager
def reading(engine: Engine, statement_timeout: float | None = None) -> Iterator[Connection]:
    """Open a connection for SELECTs. ``statement_timeout``: seconds, instead of the service's own (PostgreSQL)."""
    with engine.connect() as connection:
        if statement_timeout is not None and engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(statement_timeout * 1000)}")
        yield connection


@contextmanager
def writing(engine: Engine, lock_timeout: float = 10.0) -> Iterator[Connection]:
    """Open a transaction that waits up to ``lock_timeout`` seconds for SQLite's write lock.

    The log writers hold that lock for milliseconds at a time. The wait blocks the thread, so this is for commands
    that people run.
    """
    with engine.connect() as connection:
        sqlite = engine.dialect.name == "sqlite"
        if sqlite:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(lock_timeout * 1000)}")
        try:
            yield connection
            connection.commit()
        finally:
            if sqlite:
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {SQLITE_BUSY_MS}")


def schema_missing(error: BaseException) -> bool:
    """Whether ``error`` means that a table or column is missing because migrations were not applied."""
    if not isinstance(error, DBAPIError):
        return False
    if getattr(error.orig, "sqlstate", None) in ("42P01", "42703"):
        return True
    return isinstance(error.orig, sqlite3.OperationalError) and any(
        phrase in str(error.orig) for phrase in ("no such table", "no such column", "has no column named")
    )
