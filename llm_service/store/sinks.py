"""Where the log writer's batches go. One sink per process, used by one greenlet or thread.

SQLite never yields to gevent's hub, so in a patched process its half runs in
one native thread; psycopg is cooperative there and must *not* run in a native
thread.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote

import psycopg
from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, StatementError

from llm_service.store.engine import lone_engine, set_pragmas
from llm_service.store.models import RequestRow

Row: TypeAlias = Mapping[str, Any]
TABLE: Table = RequestRow.metadata.tables[RequestRow.__tablename__]

# Errors of a value rather than of the database: a defect of ours, or an absurd number of a vendor's.
_VALUE_ERRORS = (TypeError, ValueError, OverflowError, ArithmeticError, LookupError, AttributeError)


class Sink(Protocol):
    def write(self, rows: Sequence[Row]) -> None:
        """Insert ``rows`` in one transaction, all or none. A row that is there already is left as it is."""

    def blames_a_row(self, error: Exception) -> bool:
        """Whether ``error`` of ``write`` is a row's fault; if not, the same rows may pass later."""

    def close(self) -> None: ...


def sink_for(url: str) -> Sink:
    if make_url(url).get_backend_name() == "sqlite":
        return SqliteSink(url)
    return PostgresSink(url)


class SqliteSink:
    """Plain sqlite3 with the statement SQLAlchemy compiles: its engine would cost more than the insert.

    One statement for the whole batch: each takes the interpreter lock back
    several times, and beside a busy hub every time may cost 5 ms.
    """

    def __init__(self, url: str) -> None:
        self._path = str(make_url(url).database)
        dialect = sqlite.dialect()
        compiled = sqlite.insert(TABLE).on_conflict_do_nothing().compile(dialect=dialect)
        self._sql = str(compiled)
        self._names = tuple(compiled.positiontup or ())
        self._one_row = f"({', '.join('?' * len(self._names))})"
        self._binders = [TABLE.c[name].type.dialect_impl(dialect).bind_processor(dialect) for name in self._names]
        self._connection: sqlite3.Connection | None = None
        self._native = _native_thread()

    def write(self, rows: Sequence[Row]) -> None:
        if self._native is None:
            self._insert(rows)
            return
        # As a value: gevent's pool would print the traceback of an exception before handing it on.
        error = self._native.apply(self._attempt, (rows,))
        if error is not None:
            raise error

    def _attempt(self, rows: Sequence[Row]) -> Exception | None:
        try:
            self._insert(rows)
        except Exception as error:  # noqa: BLE001 - raised by write(), in the caller's own thread
            return error
        return None

    def _insert(self, rows: Sequence[Row]) -> None:
        bound = [self._bound(row) for row in rows]
        connection = self._connected()
        most = max(1, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // len(self._names))
        try:
            connection.execute("BEGIN IMMEDIATE")
            for start in range(0, len(bound), most):
                part = bound[start : start + most]
                statement = self._sql.replace(self._one_row, ", ".join([self._one_row] * len(part)))
                connection.execute(statement, [value for row in part for value in row])
            connection.execute("COMMIT")
        except BaseException:
            self._connection = None
            connection.close()  # rolls back
            raise

    def _bound(self, row: Row) -> list[Any]:
        values = [row.get(name) for name in self._names]
        return [bind(value) if bind else value for bind, value in zip(self._binders, values, strict=True)]

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            # rw, not rwc: a file that is gone must be seen as an outage, not be replaced by an empty one.
            location = f"file:{quote(self._path)}?mode=rw"
            connection = sqlite3.connect(
                location,
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=16,  # one per size of batch: a few of the big ones are enough
            )
            try:
                set_pragmas(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def blames_a_row(self, error: Exception) -> bool:
        if isinstance(error, sqlite3.Error):
            # OperationalError: locked, full, no such table; a bare DatabaseError: a damaged file.
            faults = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
            return isinstance(error, faults)
        return isinstance(error, _VALUE_ERRORS)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if self._native is not None:
            self._native.kill()


class PostgresSink:
    """psycopg through SQLAlchemy, on one connection of its own, kept between batches."""

    def __init__(self, url: str) -> None:
        self._engine = lone_engine(url)
        self._statement = postgresql.insert(TABLE).on_conflict_do_nothing()
        self._names = tuple(TABLE.c.keys())
        self._connection: Connection | None = None

    def write(self, rows: Sequence[Row]) -> None:
        bound = [{name: row.get(name) for name in self._names} for row in rows]
        if self._connection is None:
            self._connection = self._engine.connect()
        try:
            self._connection.execute(self._statement, bound)
            self._connection.commit()
        except BaseException:
            self.close()
            raise

    def blames_a_row(self, error: Exception) -> bool:
        if isinstance(error, DBAPIError):
            if isinstance(error.orig, psycopg.ProgrammingError):
                # With a code it is about the statement (no such table yet); without, psycopg cannot send a value.
                return error.orig.sqlstate is None
            return isinstance(error.orig, (psycopg.DataError, psycopg.IntegrityError, psycopg.NotSupportedError))
        return isinstance(error, (StatementError, *_VALUE_ERRORS))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()  # never wait for a server that may be gone
            connection.close()


def _native_thread() -> Any:
    """gevent's pool of one real thread when gevent has replaced threads, else None: the caller is one already."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return None
    from gevent.threadpool import ThreadPool

    return ThreadPool(1)
