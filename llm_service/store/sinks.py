"""Where the log writer's batches go: rows and, in the same transaction, their sums per day (``rollups``).

One sink per process, used by one greenlet or thread.

SQLite never yields to gevent's hub, so in a patched process its half runs in
one native thread; psycopg is cooperative there and must *not* run in a native
thread.
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
from llm_service.store.engine import lone_engine, set_pragmas
from llm_service.store.models import RequestRow, UTCDateTime
from llm_service.store.native import Native

Row: TypeAlias = Mapping[str, Any]
TABLE: Table = RequestRow.metadata.tables[RequestRow.__tablename__]
_AWARE = UTCDateTime()

# Errors of a value rather than of the database: a defect of ours, or an absurd number of a vendor's.
_VALUE_ERRORS = (TypeError, ValueError, OverflowError, ArithmeticError, LookupError, AttributeError)


class Sink(Protocol):
    def write(self, rows: Sequence[Row]) -> None:
        """Insert ``rows`` and add up the new ones, in one transaction, all or none.

        A row that is there already is left as it is, and not counted again.
        """

    def prune(self, before: datetime) -> int:
        """Delete at most ``retention.BATCH`` of the oldest rows from before then; how many it were."""

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
        self._rows = _Statement(sqlite.insert(TABLE).on_conflict_do_nothing().returning(TABLE.c.id))
        self._sums = _Statement(rollups.upsert("sqlite"))
        self._prune = _Statement(retention.statement())
        self._connection: sqlite3.Connection | None = None
        self._native = Native()

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
        self._native.close()


class _Statement:
    """A statement for plain sqlite3, whose one row of parameters can be repeated."""

    def __init__(self, statement: Any) -> None:
        dialect = sqlite.dialect()
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        self.names = tuple(compiled.positiontup or ())
        self._defaults = compiled.params  # of what the statement itself sets
        self._one_row = f"({', '.join('?' * len(self.names))})"
        self._binders = [compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect) for name in self.names]

    def bound(self, row: Row) -> list[Any]:
        values = [row.get(name, self._defaults[name]) for name in self.names]
        return [bind(value) if bind else value for bind, value in zip(self._binders, values, strict=True)]

    def many(self, connection: sqlite3.Connection, bound: Sequence[list[Any]]) -> list[tuple[Any, ...]]:
        """Run it with all the rows, as many at once as SQLite takes; what it returns."""
        most = max(1, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // len(self.names))
        returned: list[tuple[Any, ...]] = []
        for start in range(0, len(bound), most):
            part = bound[start : start + most]
            statement = self.sql.replace(self._one_row, ", ".join([self._one_row] * len(part)))
            returned += connection.execute(statement, [value for row in part for value in row]).fetchall()
        return returned


class PostgresSink:
    """psycopg through SQLAlchemy, on one connection of its own, kept between batches.

    A batch travels as one JSON document: a parameter for each value of 1,000 rows would
    hold the hub for 200 ms, this takes a few.
    """

    def __init__(self, url: str) -> None:
        self._engine = lone_engine(url)
        self._names = tuple(TABLE.c.keys())
        columns = ", ".join(f'"{name}"' for name in self._names)
        rows = f"SELECT {columns} FROM json_populate_recordset(NULL::{TABLE.name}, %s::json)"  # noqa: S608
        self._insert = f"INSERT INTO {TABLE.name} ({columns}) {rows} ON CONFLICT DO NOTHING RETURNING id"
        self._sums = rollups.upsert("postgresql")
        self._connection: Connection | None = None

    def write(self, rows: Sequence[Row]) -> None:
        by_id = {row["id"]: row for row in reversed(rows)}
        # In one order everywhere: two writers of the same rows must not wait for each other in a circle.
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
                # With a code it is about the statement (no such table yet); without, psycopg cannot send a value.
                return error.orig.sqlstate is None
            return isinstance(error.orig, (psycopg.DataError, psycopg.IntegrityError, psycopg.NotSupportedError))
        return isinstance(error, (StatementError, *_VALUE_ERRORS))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()  # never wait for a server that may be gone
            connection.close()
