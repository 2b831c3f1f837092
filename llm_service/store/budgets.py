"""Budgets: how much a scope may spend per period, and how much it has spent according to the log.

A scope is a key (named by its id), a user, an organisation or the whole service
(named ""). A budget counts all models, or those that a pattern matches. These functions
need an application context and hold no connection after they return.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TypeAlias, get_args

from sqlalchemy import Connection, Table, and_, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from llm_service.catalog.load import TierBudget
from llm_service.core import ids, periods
from llm_service.core import limits as scopes
from llm_service.core.limits import Budget as Budget
from llm_service.core.limits import covers as covers
from llm_service.core.limits import scope_of as scope_of
from llm_service.core.money import MOST_NANODOLLARS
from llm_service.core.periods import Period
from llm_service.extensions import db
from llm_service.store import engine, rollups
from llm_service.store.tables import BudgetRow

Kind: TypeAlias = scopes.BudgetKind
KINDS: tuple[Kind, ...] = get_args(Kind)
_LABELS: dict[str, str] = {"key": "key_id", "user": "user", "org": "org"}

_TABLE: Table = BudgetRow.metadata.tables[BudgetRow.__tablename__]
_C = _TABLE.c
# The id of a budget that comes from a tier of the catalogue and has no row.
TIER = "tier"
_ALWAYS = datetime.min.replace(tzinfo=UTC)


class BudgetUnknown(LookupError):
    """There is no budget with this id."""


def list_all() -> list[Budget]:
    """Return all budgets, sorted by kind, name, model and period."""
    with engine.reading(db.engine) as connection:
        return _sorted(_budget(row) for row in connection.execute(select(_TABLE)).mappings())


def find(budget_id: str) -> Budget | None:
    with engine.reading(db.engine) as connection:
        row = connection.execute(select(_TABLE).where(_C.id == budget_id)).mappings().first()
    return None if row is None else _budget(row)


def of_scope(kind: Kind, name: str) -> list[Budget]:
    """Return all budgets of one scope, including those for single models."""
    statement = select(_TABLE).where(_C.scope_kind == kind, _C.scope_name == name)
    with engine.reading(db.engine) as connection:
        return _sorted(_budget(row) for row in connection.execute(statement).mappings())


def for_caller(key_id: str, user: str | None, org: str | None) -> list[Budget]:
    """Return every budget that a call of this key may count against, the whole service's too, in one SELECT."""
    scopes = [("key", key_id), ("service", "")]
    scopes += [(kind, name) for kind, name in (("user", user), ("org", org)) if name]
    matching = or_(*(and_(_C.scope_kind == kind, _C.scope_name == name) for kind, name in scopes))
    with engine.reading(db.engine) as connection:
        return _sorted(_budget(row) for row in connection.execute(select(_TABLE).where(matching)).mappings())


def effective(found: Iterable[Budget], key_id: str, tier: TierBudget | None) -> list[Budget]:
    """Return the budgets that limit this key: ``found`` (from ``for_caller``) and its tier's budget per key.

    If the key has a budget of its own for all models, whatever its period, that one replaces the tier's. Budgets
    for single models and budgets of the key's user or organisation apply in addition. The tier's budget has the
    id ``TIER``.
    """
    found = list(found)
    own = any(item.kind == "key" and item.name == key_id and not item.model for item in found)
    if tier is None or own:
        return found
    return [Budget(TIER, "key", key_id, "", tier.amount_nanousd, tier.period, _ALWAYS, _ALWAYS), *found]


def put(kind: Kind, name: str, amount_nanousd: int, period: Period, model: str = "") -> Budget:
    """Set the budget of this scope, model and period. There is at most one.

    Raises:
        ValueError: the kind or period is unknown, the service has a name or another scope has none, or the amount is
            out of range.
    """
    if kind not in KINDS or period not in periods.PERIODS:
        raise ValueError("unknown kind or period")
    if (kind == "service") != (name == ""):
        raise ValueError("the service has no name, every other scope has one")
    if not 0 <= amount_nanousd <= MOST_NANODOLLARS:
        raise ValueError("the amount is out of range")
    now = datetime.now(UTC)
    dialect: Any = sqlite if db.engine.dialect.name == "sqlite" else postgresql
    unique = {"scope_kind": kind, "scope_name": name, "model": model, "period": period}
    changed = {"amount_nanousd": amount_nanousd, "updated_at": now}
    statement = dialect.insert(_TABLE).values(id=ids.new_id(), created_at=now, **unique, **changed)
    statement = statement.on_conflict_do_update(index_elements=list(unique), set_=changed).returning(*_C)
    with engine.writing(db.engine) as connection:
        return _budget(connection.execute(statement).mappings().one())


def remove(budget_id: str) -> Budget:
    """Delete the budget and return it.

    Raises:
        BudgetUnknown: there is none with this id.
    """
    statement = delete(_TABLE).where(_C.id == budget_id).returning(*_C)
    with engine.writing(db.engine) as connection:
        row = connection.execute(statement).mappings().first()
    if row is None:
        raise BudgetUnknown(budget_id)
    return _budget(row)


def spent(
    budgets: Iterable[Budget], zone: str, at: datetime | None = None, *, statement_timeout: float | None = None
) -> dict[tuple[str, str], int]:
    """Map (scope, period id) of each budget to the nano-dollars spent in the period around ``at`` (default: now).

    The amount is the sum of the known costs of the scope's rows in the period. Whole UTC days come from the sums
    per day. In another time zone a period can begin within a UTC day: that part comes from rows. Where retention
    has deleted these rows, the whole UTC day counts, because too much is better than too little.
    """
    with engine.reading(db.engine, statement_timeout) as connection:
        return spent_in(connection, budgets, zone, at or datetime.now(UTC))


def spent_in(connection: Connection, budgets: Iterable[Budget], zone: str, at: datetime) -> dict[tuple[str, str], int]:
    """``spent`` over a given connection, so that other reads can share the transaction."""
    wanted: dict[tuple[Kind, Period, bool], list[Budget]] = {}
    found: dict[tuple[str, str], int] = {}
    for budget in budgets:
        wanted.setdefault((budget.kind, budget.period, bool(budget.model)), []).append(budget)
    for (kind, period, by_model), group in wanted.items():
        by = ([_LABELS[kind]] if kind in _LABELS else []) + (["provider", "model_served"] if by_model else [])
        only = {_LABELS[kind]: {budget.name for budget in group}} if kind in _LABELS else None
        sums = rollups.sums(connection, by, periods.starts_at(period, zone, at), only)
        costs: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        for values, totals in sums.items():
            name, *served = values if kind in _LABELS else ("", *values)
            costs.setdefault(name, []).append((tuple(served), totals.cost_nanousd or 0))
        period_id = periods.period_id(period, zone, at)
        for budget in group:
            parts = costs.get(budget.name, ())
            found[budget.scope, period_id] = sum(
                cost for served, cost in parts if not by_model or budget.covers(served[0], served[1])
            )
    return found


def _budget(row: Any) -> Budget:
    return Budget(
        row["id"],
        row["scope_kind"],
        row["scope_name"],
        row["model"],
        row["amount_nanousd"],
        row["period"],
        row["created_at"],
        row["updated_at"],
    )


def _sorted(found: Iterable[Budget]) -> list[Budget]:
    """Sort here, so that the order does not depend on the database's collation."""
    return sorted(
        found, key=lambda item: (KINDS.index(item.kind), item.name, item.model, periods.PERIODS.index(item.period))
    )
