"""Budget thresholds that were passed: which process records one, and when its webhook is due.

The spent amount comes from the request log (``budgets.spent_in``), not from the ledger.
The first process that finds a passed threshold inserts a row into ``budget_alerts``, once
per budget, amount, period and threshold. A claim moves ``next_at`` into the future, so that
no two processes send the same alert. An alert that a killed process had claimed becomes due
again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url

from llm_service.catalog.load import TierBudget
from llm_service.core import ids, periods
from llm_service.core.periods import Period
from llm_service.store import budgets, engine, rollups
from llm_service.store.budgets import Budget, Kind
from llm_service.store.native import NativeThread
from llm_service.store.tables import ApiKey, BudgetAlertRow, BudgetRow

THRESHOLDS = (50, 80, 100)  # percent
KEPT = timedelta(days=90)  # after the end of the period
# Time-outs: of a statement that reads the sums of the whole log, and of the wait for SQLite's write lock.
READ_SECONDS, WRITE_SECONDS = 30.0, 2.0

_TABLE: Table = BudgetAlertRow.metadata.tables[BudgetAlertRow.__tablename__]
_C = _TABLE.c
_UNIQUE = [column.name for column in _TABLE.primary_key.columns]
Identity: TypeAlias = tuple[Kind, str, str, str, int, int]
_BATCH = 500  # names in one statement
_MAX_KNOWN = 100_000
T = TypeVar("T")


class Spender(NamedTuple):
    """The key, user and organisation of written rows; "" where the rows name none."""

    key_id: str
    user: str
    org: str


@dataclass(frozen=True, slots=True)
class Alert:
    """A row of ``budget_alerts``. ``attempts`` includes the attempt that is being made."""

    scope_kind: Kind
    scope_name: str
    model: str
    period_id: str
    amount_nanousd: int
    threshold: int
    id: str
    period: Period
    resets_at: datetime | None
    spent_nanousd: int
    created_at: datetime
    attempts: int = 0

    @property
    def scope(self) -> str:
        return budgets.scope_of(self.scope_kind, self.scope_name, self.model)

    @property
    def identity(self) -> Identity:
        return self.scope_kind, self.scope_name, self.model, self.period_id, self.amount_nanousd, self.threshold


_FIELDS = tuple(Alert.__dataclass_fields__)


class AlertLog:
    """The alerts in the database. Each process has one, for one greenlet or thread.

    It opens a connection for each call and keeps none.
    """

    def __init__(self, url: str, zone: str, tier_budget: Callable[[str | None], TierBudget | None]) -> None:
        """``tier_budget`` returns the budget of the tier with this name, or of the default tier for None."""
        self._engine = engine.unpooled_engine(_existing(make_url(url)))
        self._dialect: Any = sqlite if self._engine.dialect.name == "sqlite" else postgresql
        # psycopg is cooperative and must not run in a native thread.
        self._native = NativeThread() if self._dialect is sqlite else None
        self._zone, self._tier_budget = zone, tier_budget
        self._known: set[Identity] = set()

    def spenders(self, since: datetime) -> set[Spender]:
        """Return the spenders of all rows since the UTC day of ``since``."""
        return self._do(self._spenders, since)

    def passed(self, spenders: Collection[Spender], at: datetime, due: bool) -> list[Alert]:
        """Record and return the thresholds that the spenders' budgets have passed and that were not recorded before.

        The periods are those around ``at``. With ``due`` the alerts are to be delivered. A budget of 0 has no
        thresholds.
        """
        return self._do(self._passed, spenders, at, due)

    def claim(self, now: datetime, until: datetime) -> Alert | None:
        """Return the first alert that is due, or None. No other process gets it before ``until``."""
        return self._do(self._claim, now, until)

    def next_due(self) -> datetime | None:
        return self._do(self._next_due)

    def delivered(self, alert: Alert, now: datetime) -> None:
        self._do(self._settle, alert, {"delivered_at": now, "next_at": None})

    def postponed(self, alert: Alert, until: datetime | None) -> None:
        """Make the alert due again at ``until``; None means never."""
        self._do(self._settle, alert, {"next_at": until})

    def prune(self, now: datetime) -> int:
        """Delete the alerts of periods that ended more than ``KEPT`` ago. Return their number."""
        return self._do(self._prune, now)

    def close(self) -> None:
        if self._native is not None:
            self._native.close()

    def _do(self, function: Callable[..., T], *arguments: Any) -> T:
        return function(*arguments) if self._native is None else self._native(function, *arguments)

    def _spenders(self, since: datetime) -> set[Spender]:
        day = rollups.TABLE.c
        columns = day.key_id, day.user, day.org
        statement = select(*columns).where(day.day >= since.astimezone(UTC).date()).distinct()
        with engine.reading(self._engine, READ_SECONDS) as connection:
            return {Spender(*row) for row in connection.execute(statement)}

    def _passed(self, spenders: Collection[Spender], at: datetime, due: bool) -> list[Alert]:
        period_ids = {period: periods.period_id(period, self._zone, at) for period in periods.PERIODS}
        with engine.reading(self._engine, READ_SECONDS) as connection:
            found = self._budgets_of(connection, spenders)
            found = [
                item for item in found if item.amount_nanousd and not self._is_known(item, period_ids, THRESHOLDS[-1])
            ]
            spent = budgets.spent_in(connection, found, self._zone, at)
        alerts = [
            self._alert(item, period_ids[item.period], threshold, spent[item.scope, period_ids[item.period]], at)
            for item in found
            for threshold in THRESHOLDS
            if spent[item.scope, period_ids[item.period]] * 100 >= item.amount_nanousd * threshold
            and not self._is_known(item, period_ids, threshold)
        ]
        return self._record(alerts, at if due else None) if alerts else []

    def _budgets_of(self, connection: Connection, spenders: Collection[Spender]) -> list[Budget]:
        found = list(_rows_of(connection, "service", {""}))
        found += _rows_of(connection, "user", {item.user for item in spenders} - {""})
        found += _rows_of(connection, "org", {item.org for item in spenders} - {""})
        keys = {item.key_id for item in spenders} - {""}
        own: dict[str, list[Budget]] = {key_id: [] for key_id in keys}
        for item in _rows_of(connection, "key", keys):
            own[item.name].append(item)
        tiers = dict(_tiers_of(connection, keys))
        for key_id, rows in own.items():
            # Keys from API_KEYS have no row and belong to the default tier.
            found += budgets.effective(rows, key_id, self._tier_budget(tiers.get(key_id)))
        return found

    def _is_known(self, budget: Budget, period_ids: Mapping[Period, str], threshold: int) -> bool:
        return _identity(budget, period_ids[budget.period], threshold) in self._known

    def _alert(self, budget: Budget, period_id: str, threshold: int, spent: int, at: datetime) -> Alert:
        resets_at = periods.ends_at(budget.period, self._zone, at)
        values = *_identity(budget, period_id, threshold), ids.new_id(), budget.period, resets_at, spent, at
        return Alert(*values)

    def _record(self, alerts: list[Alert], next_at: datetime | None) -> list[Alert]:
        """Insert the alerts. Return those that no process had inserted before."""
        # Every process inserts in the same order: otherwise two of them could deadlock.
        alerts.sort(key=lambda alert: alert.identity)
        rows = [asdict(alert) | {"next_at": next_at} for alert in alerts]
        statement = self._dialect.insert(_TABLE).on_conflict_do_nothing(index_elements=_UNIQUE).returning(_C.id)
        with engine.writing(self._engine, WRITE_SECONDS) as connection:
            new = set(connection.execute(statement, rows).scalars())
        if len(self._known) > _MAX_KNOWN:  # most of them belong to periods that are over
            self._known.clear()
        self._known |= {alert.identity for alert in alerts}
        return [alert for alert in alerts if alert.id in new]

    def _claim(self, now: datetime, until: datetime) -> Alert | None:
        first = select(_C.id).where(_C.next_at <= now).order_by(_C.created_at, _C.threshold).limit(1)
        chosen = first.with_for_update(skip_locked=True).scalar_subquery()
        statement = update(_TABLE).where(_C.id == chosen, _C.next_at <= now)
        statement = statement.values(next_at=until, attempts=_C.attempts + 1)
        with engine.writing(self._engine, WRITE_SECONDS) as connection:
            row = connection.execute(statement.returning(*(_C[name] for name in _FIELDS))).first()
        return None if row is None else Alert(*row)

    def _next_due(self) -> datetime | None:
        with engine.reading(self._engine) as connection:
            found: datetime | None = connection.execute(select(func.min(_C.next_at))).scalar()
        return found

    def _settle(self, alert: Alert, values: dict[str, Any]) -> None:
        # Only the process of the last attempt may change the row: an earlier attempt may have outlasted its claim.
        own_attempt = (_C.id == alert.id) & (_C.attempts == alert.attempts)
        with engine.writing(self._engine, WRITE_SECONDS) as connection:
            connection.execute(update(_TABLE).where(own_attempt).values(**values))

    def _prune(self, now: datetime) -> int:
        with engine.writing(self._engine, WRITE_SECONDS) as connection:
            return connection.execute(delete(_TABLE).where(_C.resets_at < now - KEPT)).rowcount


def _existing(url: URL) -> URL:
    """Return a URL that never creates the SQLite file: a missing file is an outage, not a new database."""
    if url.get_backend_name() != "sqlite":
        return url
    return url.set(database=f"file:{quote(str(Path(str(url.database))))}", query={"mode": "rw", "uri": "true"})


def _identity(budget: Budget, period_id: str, threshold: int) -> Identity:
    return budget.kind, budget.name, budget.model, period_id, budget.amount_nanousd, threshold


def _rows_of(connection: Connection, kind: str, names: Collection[str]) -> Iterator[Budget]:
    column = BudgetRow.metadata.tables[BudgetRow.__tablename__].c
    fields = (
        column.id,
        column.scope_kind,
        column.scope_name,
        column.model,
        column.amount_nanousd,
        column.period,
        column.created_at,
        column.updated_at,
    )
    statement = select(*fields).where(column.scope_kind == kind)
    for row in _in_batches(connection, statement, column.scope_name, names):
        yield Budget(*row)


def _tiers_of(connection: Connection, keys: Collection[str]) -> Iterator[tuple[str, str]]:
    column = ApiKey.metadata.tables[ApiKey.__tablename__].c
    yield from _in_batches(connection, select(column.id, column.tier), column.id, keys)


def _in_batches(
    connection: Connection, statement: Any, column: ColumnElement[str], names: Collection[str]
) -> Iterator[Any]:
    """Yield the rows whose ``column`` is one of ``names``, with at most ``_BATCH`` names per statement."""
    wanted = sorted(names)
    for start in range(0, len(wanted), _BATCH):
        yield from connection.execute(statement.where(column.in_(wanted[start : start + _BATCH])))
