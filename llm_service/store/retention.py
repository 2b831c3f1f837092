"""Deletes old rows of the request log. The sums per day stay and stand for the deleted rows.

Whole UTC days are deleted, so that a day has all of its rows or none. Rows are deleted
in small batches, each in a transaction of its own: SQLite has one writer at a time, and
the rows of new calls must not wait until a year of old ones is deleted.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Table, bindparam, delete, select

from llm_service.extensions import db
from llm_service.store import engine
from llm_service.store.tables import RequestRow

BATCH = 500
PAUSE_SECONDS = 0.02
_TABLE: Table = RequestRow.metadata.tables[RequestRow.__tablename__]


def cutoff(days: int, now: datetime | None = None) -> datetime:
    """Return the midnight (UTC) before which rows are older than ``days`` days."""
    now = (now or datetime.now(UTC)).astimezone(UTC)
    return now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)


def statement() -> Any:
    """Return the statement that deletes up to ``BATCH`` rows from before the parameter ``before``.

    It skips rows that another worker is deleting at this moment (PostgreSQL).
    """
    old = select(_TABLE.c.id).where(_TABLE.c.created_at < bindparam("before", type_=_TABLE.c.created_at.type))
    chosen = old.order_by(_TABLE.c.created_at).limit(BATCH).with_for_update(skip_locked=True)
    return delete(_TABLE).where(_TABLE.c.id.in_(chosen))


def prune(before: datetime) -> int:
    """Delete all rows from before ``before`` and return their number. Needs an application context."""
    deleted = 0
    while True:
        with engine.writing(db.engine) as connection:
            batch = connection.execute(statement(), {"before": before}).rowcount
        deleted += batch
        if batch < BATCH:
            return deleted
        time.sleep(PAUSE_SECONDS)
