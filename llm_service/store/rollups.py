"""Usage per UTC day, in ``usage_daily``: the log writer adds to it, and usage queries read it.

The sums are exact because a row is added to them in the transaction that inserts it, and
only if the database reports that it was inserted (``RETURNING`` after ``ON CONFLICT DO
NOTHING``). So a batch that is repeated, or written by two workers, adds nothing the second
time, and a process that is killed in between leaves neither the row nor the sum. A
background job with a watermark would have to know which rows are not committed yet; no job
is needed here.

A sum stops at 2**63 - 1 instead of failing: an absurd number of a vendor must not stop the log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, Table, and_, case, func, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError

from llm_service.store.tables import RequestRow, UsageDay

TABLE: Table = UsageDay.metadata.tables[UsageDay.__tablename__]
LABELS = ("key_id", "org", "user", "provider", "model_served")
DIMENSIONS = ("day", *LABELS)
COUNTS = ("calls", "input_tokens", "output_tokens", "cached_tokens", "unpriced_calls")
_SUMS = (*COUNTS, "cost_nanousd")

_ROWS: Table = RequestRow.metadata.tables[RequestRow.__tablename__]
_TOKENS = ("input_tokens", "output_tokens", "cached_tokens")
_MAX = 2**63 - 1
_MAX_VALUES = 500  # in one statement
Group: TypeAlias = tuple[Any, ...]
AddUp: TypeAlias = Callable[[ColumnElement[Any]], ColumnElement[Any]]


@dataclass(slots=True)
class Totals:
    """Sums over calls. ``cost_nanousd`` is None if no cost is known."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    unpriced_calls: int = 0
    cost_nanousd: int | None = None

    def add(self, other: Totals) -> None:
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.cost_nanousd is not None:
            self.cost_nanousd = (self.cost_nanousd or 0) + other.cost_nanousd


def folded(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add up ``rows`` of the request log. Return rows of ``usage_daily``, sorted by their dimensions.

    The order prevents a deadlock of two writers.
    """
    found: dict[Group, Totals] = {}
    for row in rows:
        group = (row["created_at"].astimezone(UTC).date(), *(row.get(name) or "" for name in LABELS))
        cost = row.get("cost_nanousd")
        totals = found.setdefault(group, Totals())
        input_, output, cached = (max(0, row.get(name) or 0) for name in _TOKENS)
        unpriced = cost is None and row.get("outcome") != "refused"
        totals.add(Totals(1, input_, output, cached, int(unpriced), None if cost is None else max(0, cost)))
    return [
        {**dict(zip(DIMENSIONS, group, strict=True)), **{name: _capped(getattr(found[group], name)) for name in _SUMS}}
        for group in sorted(found)
    ]


def upsert(dialect: str) -> Any:
    """Return the statement that adds the rows of ``folded``. ``dialect`` is sqlite or postgresql."""
    statement: Any = sqlite.insert(TABLE) if dialect == "sqlite" else postgresql.insert(TABLE)
    return statement.on_conflict_do_update(
        index_elements=DIMENSIONS, set_={name: _added(TABLE.c[name], statement.excluded[name]) for name in _SUMS}
    )


def sums(
    connection: Connection,
    by: Sequence[str],
    since: datetime | None = None,
    only: Mapping[str, Collection[str]] | None = None,
) -> dict[Group, Totals]:
    """Return the totals of the calls since ``since``, grouped by some of ``DIMENSIONS``.

    ``only`` maps a label to the values that are wanted. Whole days come from ``usage_daily``.
    If ``since`` lies within a day, that day's part comes from its rows, unless the log no longer
    reaches back that far: then the whole day counts.
    """
    try:
        return _sums(connection, by, since, only or {}, func.sum)
    except OperationalError as error:
        if "integer overflow" not in str(error.orig):
            raise
        return _sums(connection, by, since, only or {}, _sum_in_halves)


def _sums(
    connection: Connection,
    by: Sequence[str],
    since: datetime | None,
    only: Mapping[str, Collection[str]],
    add_up: AddUp,
) -> dict[Group, Totals]:
    # If there are too many values for a statement, the groups are filtered here instead.
    wanted = {name: values for name, values in only.items() if len(values) <= _MAX_VALUES}
    day = None if since is None else since.astimezone(UTC).date()
    found: dict[Group, Totals] = {}
    if since is not None and day is not None and since > _midnight(day) and _reaches(connection, since):
        day += timedelta(days=1)
        found = _of_rows(connection, by, since, wanted, add_up)
    columns = [TABLE.c[name] for name in by]
    conditions: list[ColumnElement[bool]] = [TABLE.c[name].in_(values) for name, values in wanted.items()]
    if day is not None:
        conditions.append(TABLE.c.day >= day)
    totals = [add_up(TABLE.c[name]) for name in _SUMS]
    for row in connection.execute(select(*columns, *totals).where(*conditions).group_by(*columns)):
        found.setdefault(tuple(row[: len(by)]), Totals()).add(_totals(row[len(by) :]))
    if len(wanted) == len(only):
        return found
    return {group: item for group, item in found.items() if _wanted(dict(zip(by, group, strict=True)), only)}


def _reaches(connection: Connection, since: datetime) -> bool:
    oldest = connection.execute(select(func.min(_ROWS.c.created_at))).scalar()
    return oldest is not None and oldest <= since


def _of_rows(
    connection: Connection, by: Sequence[str], since: datetime, wanted: Mapping[str, Collection[str]], add_up: AddUp
) -> dict[Group, Totals]:
    day = since.astimezone(UTC).date()
    labels = [name for name in by if name != "day"]
    columns = [_ROWS.c[name] for name in labels]
    # The conditions compare bare columns, so that an index can be used.
    conditions: list[ColumnElement[bool]] = [
        _ROWS.c.created_at >= since,
        _ROWS.c.created_at < _midnight(day + timedelta(days=1)),
    ]
    conditions += [_ROWS.c[name].in_(values) for name, values in wanted.items()]
    unpriced = case((and_(_ROWS.c.cost_nanousd.is_(None), _ROWS.c.outcome != "refused"), 1))
    tokens = [add_up(_ROWS.c[name]) for name in _TOKENS]
    totals = [func.count(), *tokens, func.count(unpriced), add_up(_ROWS.c.cost_nanousd)]
    found: dict[Group, Totals] = {}
    for row in connection.execute(select(*columns, *totals).where(*conditions).group_by(*columns)):
        named = {**dict(zip(labels, (value or "" for value in row), strict=False)), "day": day}
        counted = _totals(row[len(labels) :])
        if counted.calls:  # without GROUP BY there is a row even if no call matches
            found.setdefault(tuple(named[name] for name in by), Totals()).add(counted)
    return found


def _wanted(named: Mapping[str, Any], only: Mapping[str, Collection[str]]) -> bool:
    return all(named[name] in values for name, values in only.items() if name in named)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _totals(values: Sequence[Any]) -> Totals:
    *counts, cost = values
    calls, input_, output, cached, unpriced = (min(int(value or 0), _MAX) for value in counts)
    return Totals(calls, input_, output, cached, unpriced, None if cost is None else min(int(cost), _MAX))


def _capped(value: int | None) -> int | None:
    return None if value is None else min(value, _MAX)


def _added(old: ColumnElement[Any], new: ColumnElement[Any]) -> ColumnElement[Any]:
    maximum: ColumnElement[Any] = literal_column(str(_MAX))
    # Null plus a number is the number: an unknown amount adds nothing.
    return func.coalesce(case((old > maximum - new, maximum), else_=old + new), old, new)


def _sum_in_halves(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Sum without overflow, for SQLite, where a SUM that overflows is an error. It takes twice as long."""
    high: ColumnElement[Any] = func.sum(column.op(">>")(literal_column("32")))
    low: ColumnElement[Any] = func.sum(column.op("&")(literal_column("4294967295")))
    maximum: ColumnElement[Any] = literal_column(str(_MAX))
    return case((high >= literal_column(str(2**30)), maximum), else_=high * literal_column(str(2**32)) + low)
