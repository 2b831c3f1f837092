"""Thresholds of budgets that were passed: who finds one first, and when its webhook is due.

What is spent is what the log says (``budgets.spent_in``), not what the ledger holds.
A row of ``budget_alerts`` is inserted once per budget, amount, period and threshold,
by whichever process comes first; a claim moves ``next_at`` into the future, so that
no two processes send the same one, and what a killed one had claimed is due again.
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

from llm_service.catalog.catalog import TierBudget
from llm_service.core import ids, periods
from llm_service.core.periods import Period
from llm_service.store import budgets, engine, rollups
from llm_service.store.budgets import Budget, Kind
from llm_service.store.models import ApiKey, BudgetAlertRow, BudgetRow
from llm_service.store.native import Native

THRESHOLDS = (50, 80, 100)  # percent
KEPT = timedelta(days=90)  # after the end of its period
# For statements over the whole log's sums, and for the turn to write.
READ_SECONDS, WRITE_SECONDS = 30.0, 2.0

_TABLE: Table = BudgetAlertRow.metadata.tables[BudgetAlertRow.__tablename__]
_C = _TABLE.c
_UNIQUE = [column.name for column in _TABLE.primary_key.columns]
Identity: TypeAlias = tuple[Kind, str, str, str, int, int]
_MANY = 500
_MOST_KNOWN = 100_000
T = TypeVar("T")


class Spender(NamedTuple):
    """Whose rows were written; "" where a row names nobody."""

    key_id: str
    user: str
    org: str


@dataclass(frozen=True, slots=True)
class Alert:
    """A row of ``budget_alerts``. ``attempts`` counts the one that is being made."""

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
    """One per process, for one greenlet or thread; opens a connection for each call and keeps none."""

    def __init__(self, url: str, zone: str, tier_budget: Callable[[str | None], TierBudget | None]) -> None:
        """``tier_budget``: of the tier with this name; of the default one for None."""
        self._engine = engine.lone_engine(_existing(make_url(url)))
        self._dialect: Any = sqlite if self._engine.dialect.name == "sqlite" else postgresql
        # psycopg is cooperative and must not run in a native thread.
        self._native = Native() if self._dialect is sqlite else None
        self._zone, self._tier_budget = zone, tier_budget
        self._known: set[Identity] = set()

    def spenders(self, since: datetime) -> set[Spender]:
        """Everybody with a row since then, to the day."""
        return self._do(self._spenders, since)

    def passed(self, spenders: Collection[Spender], at: datetime, due: bool) -> list[Alert]:
        """Thresholds that the budgets of these have passed in the periods around ``at``, and that nobody had found.

        They are recorded; ``due``: to be delivered. A budget of nothing has no thresholds.
        """
        return self._do(self._passed, spenders, at, due)

    def claim(self, now: datetime, until: datetime) -> Alert | None:
        """The first alert that is due, which is then not due for anybody else before ``until``."""
        return self._do(self._claim, now, until)

    def next_due(self) -> datetime | None:
        return self._do(self._next_due)

    def delivered(self, alert: Alert, now: datetime) -> None:
        self._do(self._settle, alert, {"delivered_at": now, "next_at": None})

    def postponed(self, alert: Alert, until: datetime | None) -> None:
        """Due again then; None: never."""
        self._do(self._settle, alert, {"next_at": until})

    def prune(self, now: datetime) -> int:
        """Delete alerts of periods that ended ``KEPT`` ago; how many it were."""
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
        named = {period: periods.period_id(period, self._zone, at) for period in periods.PERIODS}
        with engine.reading(self._engine, READ_SECONDS) as connection:
            found = self._budgets_of(connection, spenders)
            found = [item for item in found if item.amount_nanousd and not self._is_known(item, named, THRESHOLDS[-1])]
            spent = budgets.spent_in(connection, found, self._zone, at)
        alerts = [
            self._alert(item, named[item.period], threshold, spent[item.scope, named[item.period]], at)
            for item in found
            for threshold in THRESHOLDS
            if spent[item.scope, named[item.period]] * 100 >= item.amount_nanousd * threshold
            and not self._is_known(item, named, threshold)
        ]
        return self._recorded(alerts, at if due else None) if alerts else []

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
            # Keys of the environment have no row, and the default tier.
            found += budgets.effective(rows, key_id, self._tier_budget(tiers.get(key_id)))
        return found

    def _is_known(self, budget: Budget, named: Mapping[Period, str], threshold: int) -> bool:
        return _identity(budget, named[budget.period], threshold) in self._known

    def _alert(self, budget: Budget, period_id: str, threshold: int, spent: int, at: datetime) -> Alert:
        resets_at = periods.ends_at(budget.period, self._zone, at)
        values = *_identity(budget, period_id, threshold), ids.new_id(), budget.period, resets_at, spent, at
        return Alert(*values)

    def _recorded(self, alerts: list[Alert], next_at: datetime | None) -> list[Alert]:
        """Those that nobody recorded before."""
        # In one order everywhere: two processes must not wait for each other in a circle.
        alerts.sort(key=lambda alert: alert.identity)
        rows = [asdict(alert) | {"next_at": next_at} for alert in alerts]
        statement = self._dialect.insert(_TABLE).on_conflict_do_nothing(index_elements=_UNIQUE).returning(_C.id)
        with engine.writing(self._engine, WRITE_SECONDS) as connection:
            new = set(connection.execute(statement, rows).scalars())
        if len(self._known) > _MOST_KNOWN:  # of periods long gone
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
        # Only by who made the last attempt: an earlier one may have taken longer than its claim held.
        mine = (_C.id == alert.id) & (_C.attempts == alert.attempts)
        with engine.writing(self._engine, WRITE_SECONDS) as connection:
            connection.execute(update(_TABLE).where(mine).values(**values))

    def _prune(self, now: datetime) -> int:
        with engine.writing(self._engine, WRITE_SECONDS) as connection:
            return connection.execute(delete(_TABLE).where(_C.resets_at < now - KEPT)).rowcount


def _existing(url: URL) -> URL:
    """A file that is gone is an outage, and must not be replaced by an empty one."""
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
    for row in _in_parts(connection, statement, column.scope_name, names):
        yield Budget(*row)


def _tiers_of(connection: Connection, keys: Collection[str]) -> Iterator[tuple[str, str]]:
    column = ApiKey.metadata.tables[ApiKey.__tablename__].c
    yield from _in_parts(connection, select(column.id, column.tier), column.id, keys)


def _in_parts(
    connection: Connection, statement: Any, column: ColumnElement[str], names: Collection[str]
) -> Iterator[Any]:
    """The rows whose ``column`` is one of ``names``, however many these are."""
    wanted = sorted(names)
    for start in range(0, len(wanted), _MANY):
        yield from connection.execute(statement.where(column.in_(wanted[start : start + _MANY])))
