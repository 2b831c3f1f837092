"""Reading the request log. Rows are dicts from column name to value; times are aware and in UTC.

These functions need an application context for ``db.engine``. ``statement_timeout``
is the number of seconds that one statement may take, instead of the service's own
limit (PostgreSQL).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal, TypeAlias, get_args

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, or_, select

from llm_service.extensions import db
from llm_service.store import engine, rollups
from llm_service.store.rollups import Totals
from llm_service.store.tables import RequestRow

Row: TypeAlias = dict[str, Any]
By: TypeAlias = Literal["key", "org", "user", "model", "day"]

_TABLE: Table = RequestRow.metadata.tables[RequestRow.__tablename__]
_C = _TABLE.c
COLUMNS: tuple[str, ...] = tuple(_C.keys())
BY: tuple[str, ...] = get_args(By)
_DIMENSIONS = {
    "key": ("key_id",),
    "org": ("org",),
    "user": ("user",),
    "model": ("provider", "model_served"),
    "day": ("day",),
}

_PAGE = 1000
_IDS = 500  # in one statement
# A row is written when its call ends but has the time at which the call began, so a follower looks back: every time
# over the last two minutes, and every 15 s over the last hour, for calls that took longer.
_NEAR, _FAR, _FAR_EVERY = timedelta(minutes=2), timedelta(hours=1), 15.0


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums of one group of calls.

    ``group`` is None for calls that belong to none (no org, or no model was reached).
    ``cost_nanousd`` is the sum of the known costs, or None if all are unknown.
    ``unpriced_calls`` is the number of calls with an unknown cost. A rejected call
    never reached a vendor, so it has no cost; that is not an unknown cost.
    """

    group: str | None
    calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_nanousd: int | None
    unpriced_calls: int


def _conditions(since: datetime | None, key: str | None, outcome: str | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if since is not None:
        conditions.append(_C.created_at >= since)
    if key is not None:
        conditions.append(_C.key_id == key)
    if outcome is not None:
        conditions.append(_C.outcome == outcome)
    return conditions


def _filtered(since: datetime | None, key: str | None, outcome: str | None) -> Select[Any]:
    return select(_TABLE).where(*_conditions(since, key, outcome))


def recent(
    limit: int = 50,
    since: datetime | None = None,
    key: str | None = None,
    outcome: str | None = None,
    *,
    statement_timeout: float | None = None,
) -> list[Row]:
    """Return the newest ``limit`` rows, newest first. ``key`` is a key's id."""
    statement = _filtered(since, key, outcome).order_by(_C.created_at.desc(), _C.id.desc()).limit(limit)
    with engine.reading(db.engine, statement_timeout) as connection:
        return [dict(row) for row in connection.execute(statement).mappings()]


def export(
    since: datetime | None = None,
    key: str | None = None,
    outcome: str | None = None,
    *,
    statement_timeout: float | None = None,
) -> Iterator[Row]:
    """Yield all rows, oldest first, page by page from a database cursor. Close the iterator if you stop early."""
    statement = _filtered(since, key, outcome).order_by(_C.created_at, _C.id)
    with (
        engine.reading(db.engine, statement_timeout) as connection,
        connection.execution_options(yield_per=_PAGE).execute(statement) as result,
    ):
        for row in result.mappings():
            yield dict(row)


def follow(key: str | None = None, outcome: str | None = None, *, last: int = 10, every: float = 1.0) -> Iterator[Row]:
    """Yield the ``last`` rows and then each row as it is written, for ever. Reads the log every ``every`` seconds.

    It misses calls that take more than an hour, and those of a host whose clock is minutes behind.
    """
    seen = {row["id"]: row["created_at"] for row in _window(key, outcome, far=True)}
    for row in reversed(recent(last, key=key, outcome=outcome)):
        seen[row["id"]] = row["created_at"]
        yield row
    far_at = time.monotonic() + _FAR_EVERY
    while True:
        time.sleep(every)
        far = time.monotonic() >= far_at
        if far:
            far_at = time.monotonic() + _FAR_EVERY
            oldest = datetime.now(UTC) - 2 * _FAR
            seen = {row_id: created for row_id, created in seen.items() if created > oldest}
        for row in _window(key, outcome, far=far):
            if row["id"] not in seen:
                seen[row["id"]] = row["created_at"]
                yield row


def _window(key: str | None, outcome: str | None, *, far: bool) -> list[Row]:
    now = datetime.now(UTC)
    near = _C.created_at >= now - _NEAR
    # A call that is older than the near window but was not seen in it took at least half of that time.
    slow = or_(_C.latency_ms >= _NEAR.total_seconds() * 500, _C.latency_ms.is_(None))
    where = or_(near, and_(_C.created_at >= now - _FAR, slow)) if far else near
    statement = _filtered(None, key, outcome).where(where).order_by(_C.created_at, _C.id)
    with engine.reading(db.engine) as connection:
        return [dict(row) for row in connection.execute(statement).mappings()]


def usage(
    by: By = "key", since: datetime | None = None, key: str | None = None, *, statement_timeout: float | None = None
) -> list[Sums]:
    """Return the sums per key (its id), org, user, model (``provider/model`` as served) or UTC day.

    ``key`` is a key's id. The sums come from the sums per day (``rollups``). If ``since``
    lies within a day, that day's part comes from its rows; where those are deleted, the whole
    day counts. Days are sorted by date, other groups by cost, the most expensive first.

    Raises:
        ValueError: ``by`` is unknown.
    """
    if by not in BY:
        raise ValueError(f"by must be one of {', '.join(BY)}")
    only = None if key is None else {"key_id": [key]}
    with engine.reading(db.engine, statement_timeout) as connection:
        sums = rollups.sums(connection, _DIMENSIONS[by], since, only)
    named: dict[str | None, Totals] = {}
    for group, totals in sums.items():
        named.setdefault(_name(by, group), Totals()).add(totals)
    found = [_sums(group, totals) for group, totals in named.items()]
    if by == "day":
        return sorted(found, key=lambda item: item.group or "")
    return sorted(found, key=lambda item: (-(item.cost_nanousd or 0), -item.calls, item.group or ""))


def _name(by: str, group: tuple[Any, ...]) -> str | None:
    if by == "model":
        return "/".join(group) if all(group) else None
    return str(group[0]) or None


def _sums(group: str | None, totals: Totals) -> Sums:
    known = 0 if totals.cost_nanousd is None and not totals.unpriced_calls else totals.cost_nanousd
    counts = {name: getattr(totals, name) for name in rollups.COUNTS}
    return Sums(group, cost_nanousd=known, **counts)


@contextmanager
def snapshot() -> Iterator[Connection]:
    """Open a connection whose reads all see the same state of the log."""
    with engine.reading(db.engine) as connection:
        if db.engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        else:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield connection


def present(connection: Connection, ids: Iterable[str]) -> set[str]:
    """Return those of ``ids`` that have a row in the log."""
    return {row_id for (row_id,) in _by_ids(connection, ids, _C.id)}


def settled(ids: Iterable[str]) -> dict[str, tuple[int | None, int]]:
    """Map those of ``ids`` that have a row in the log to (cost in nano-dollars, tokens)."""
    with engine.reading(db.engine) as connection:
        found = _by_ids(connection, ids, _C.id, _C.cost_nanousd, _C.input_tokens, _C.output_tokens)
        return {
            row_id: (cost, (input_tokens or 0) + (output_tokens or 0))
            for row_id, cost, input_tokens, output_tokens in found
        }


def _by_ids(connection: Connection, ids: Iterable[str], *columns: ColumnElement[Any]) -> Iterator[Any]:
    for some in batched(ids, _IDS):
        yield from connection.execute(select(*columns).where(_C.id.in_(some)))


def batched(values: Iterable[str], size: int) -> Iterator[list[str]]:
    """``itertools.batched``, which Python 3.11 does not have."""
    waiting = iter(values)
    while some := list(islice(waiting, size)):
        yield some
