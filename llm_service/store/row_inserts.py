"""Where the log writer's batches go: the rows and, in the same transaction, their sums per day (``rollups``).

Each process has one sink, used by one greenlet or thread.

SQLite never yields to gevent's hub, so in a patched process ``SqliteSink`` works in
a native thread. psycopg is cooperative there and must *not* run in a native thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote

import orjson
import psycopg
from sqlalchemy import Connection, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, StatementError

from llm_service.store import retention, rollups
from llm_service.store.engine import set_pragmas, unpooled_engine
from llm_service.store.native import NativeThread
from llm_service.store.tables import RequestRow, UTCDateTime

Row: TypeAlias = Mapping[str, Any]
TABLE: Table = RequestRow.metadata.tables[RequestRow.__tablename__]
_AWARE = UTCDateTime()

# Errors that a value causes, not the database: a defect in our code, or an absurd number from a vendor.
_VALUE_ERRORS = (TypeError, ValueError, OverflowError, ArithmeticError, LookupError, AttributeError)


class Sink(Protocol):
    def write(self, rows: Sequence[Row]) -> None:
        """Insert ``rows`` and add the new ones to the sums, in one transaction, all or none.

        A row that exists already is left as it is and not counted again.
        """

    def prune(self, before: datetime) -> int:
        """Delete at most ``retention.BATCH`` of the oldest rows from before ``before``. Return their number."""

    def blames_a_row(self, error: Exception) -> bool:
        """Whether a row caused ``error`` of ``write``. If not, the same rows may be written later."""

    def close(self) -> None: ...


def sink_for(url: str) -> Sink:
    if make_url(url).get_backend_name() == "sqlite":
        return SqliteSink(url)
    return PostgresSink(url)


class SqliteSink:
    """Uses plain sqlite3 with statements that SQLAlchemy compiles: its engine would cost more than the insert.

    A batch is one statement. Each statement takes the interpreter lock back several
    times, and beside a busy hub each of these may cost 5 ms.
    """

    def __init__(self, url: str) -> None:
        self._path = str(make_url(url).database)
        self._rows = _Statement(sqlite.insert(TABLE).on_conflict_do_nothing().returning(TABLE.c.id))
        self._sums = _Statement(rollups.upsert("sqlite"))
        self._prune = _Statement(retention.statement())
        self._connection: sqlite3.Connection | None = None
        self._native = NativeThread()

    def write(self, rows: Sequence[Row]) -> None:
        self._native(self._insert, rows)

    def prune(self, before: datetime) -> int:
        return self._native(self._delete, before)

    def _insert(self, rows: Sequence[Row]) -> int:
        by_id = {row["id"]: row for row in reversed(rows)}
        bound = [self._rows.bound(row) for row in rows]
        with self._transaction() as connection:
            added = [by_id[row_id] for (row_id,) in self._rows.many(connection, bound)]
            self._sums.many(connection, [self._sums.bound(row) for row in rollups.folded(added)])
        return len(added)

    def _delete(self, before: datetime) -> int:
        with self._transaction() as connection:
            return connection.execute(self._prune.sql, self._prune.bound({"before": before})).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connected()
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            self._connection = None
            connection.close()  # rolls back
            raise

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            # rw, not rwc: a missing file is an outage and must not be replaced by an empty one.
            location = f"file:{quote(self._path)}?mode=rw"
            connection = sqlite3.connect(
                location,
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=16,  # each batch size has its own statement; a few of the large ones are enough
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
            # Not a row's fault: OperationalError (locked, full, no such table), plain DatabaseError (damaged file).
            row_errors = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
            return isinstance(error, row_errors)
        return isinstance(error, _VALUE_ERRORS)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._native.close()


class _Statement:
    """A statement for plain sqlite3. Its VALUES row can be repeated for several rows."""

    def __init__(self, statement: Any) -> None:
        dialect = sqlite.dialect()
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        self.names = tuple(compiled.positiontup or ())
        self._defaults = compiled.params  # of parameters that the statement itself sets
        self._one_row = f"({', '.join('?' * len(self.names))})"
        self._binders = [compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect) for name in self.names]

    def bound(self, row: Row) -> list[Any]:
        values = [row.get(name, self._defaults[name]) for name in self.names]
        return [bind(value) if bind else value for bind, value in zip(self._binders, values, strict=True)]

    def many(self, connection: sqlite3.Connection, bound: Sequence[list[Any]]) -> list[tuple[Any, ...]]:
        """Run it with all rows, in as few statements as SQLite's limit allows. Return the returned rows."""
        at_once = max(1, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // len(self.names))
        returned: list[tuple[Any, ...]] = []
        for start in range(0, len(bound), at_once):
            part = bound[start : start + at_once]
            statement = self.sql.replace(self._one_row, ", ".join([self._one_row] * len(part)))
            returned += connection.execute(statement, [value for row in part for value in row]).fetchall()
        return returned


class PostgresSink:
    """Uses psycopg through SQLAlchemy, on a connection of its own that it keeps between batches.

    A batch is sent as one JSON document, which takes a few milliseconds. With a parameter
    for each value, 1,000 rows would block the hub for 200 ms.
    """

    def __init__(self, url: str) -> None:
        self._engine = unpooled_engine(url)
        self._names = tuple(TABLE.c.keys())
        columns = ", ".join(f'"{name}"' for name in self._names)
        rows = f"SELECT {columns} FROM json_populate_recordset(NULL::{TABLE.name}, %s::json)"  # noqa: S608
        self._insert = f"INSERT INTO {TABLE.name} ({columns}) {rows} ON CONFLICT DO NOTHING RETURNING id"
        self._sums = rollups.upsert("postgresql")
        self._connection: Connection | None = None

    def write(self, rows: Sequence[Row]) -> None:
        by_id = {row["id"]: row for row in reversed(rows)}
        # Every writer inserts in the same order: otherwise two writers of the same rows could deadlock.
        values = [{name: row.get(name) for name in self._names} for _, row in sorted(by_id.items())]
        for item in values:
            item["created_at"] = _AWARE.process_bind_param(item["created_at"], self._engine.dialect)
        document = orjson.dumps(values).decode()
        with self._transaction() as connection:
            added = connection.exec_driver_sql(self._insert, (document,)).scalars().all()
            sums = rollups.folded(by_id[row_id] for row_id in added)
            if sums:
                connection.execute(self._sums, sums)

    def prune(self, before: datetime) -> int:
        with self._transaction() as connection:
            return connection.execute(retention.statement(), {"before": before}).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        if self._connection is None:
            self._connection = self._engine.connect()
        try:
            yield self._connection
            self._connection.commit()
        except BaseException:
            self.close()
            raise

    def blames_a_row(self, error: Exception) -> bool:
        if isinstance(error, DBAPIError):
            if isinstance(error.orig, psycopg.ProgrammingError):
                # With an SQLSTATE the statement failed (no such table yet). Without one psycopg could not send a value.
                return error.orig.sqlstate is None
            return isinstance(error.orig, (psycopg.DataError, psycopg.IntegrityError, psycopg.NotSupportedError))
        return isinstance(error, (StatementError, *_VALUE_ERRORS))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()  # so that closing does not wait for a server that may be gone
            connection.close()
