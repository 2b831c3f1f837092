"""How long rows of the request log are kept. The sums per day stay: they answer for the rows that are gone.

Whole UTC days go, so that a day has all of its rows or none. Rows are deleted in
small batches, each a transaction of its own: SQLite has one writer at a time, and
calls' rows must not wait for a year of old ones.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Table, bindparam, delete, select

from llm_service.extensions import db
from llm_service.store import engine
from llm_service.store.models import RequestRow

BATCH = 500
PAUSE_SECONDS = 0.02
_TABLE: Table = RequestRow.metadata.tables[RequestRow.__tablename__]


def cutoff(days: int, now: datetime | None = None) -> datetime:
    """The midnight (UTC) before which rows are older than ``days`` days."""
    now = (now or datetime.now(UTC)).astimezone(UTC)
    return now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)


def statement() -> Any:
    """Deletes up to ``BATCH`` rows from before the parameter ``before``.

    What another worker is just deleting is left to it (PostgreSQL).
    """
    old = select(_TABLE.c.id).where(_TABLE.c.created_at < bindparam("before", type_=_TABLE.c.created_at.type))
    chosen = old.order_by(_TABLE.c.created_at).limit(BATCH).with_for_update(skip_locked=True)
    return delete(_TABLE).where(_TABLE.c.id.in_(chosen))


def prune(before: datetime) -> int:
    """Delete all rows from before then; how many it were. Needs an application context."""
    deleted = 0
    while True:
        with engine.writing(db.engine) as connection:
            batch = connection.execute(statement(), {"before": before}).rowcount
        deleted += batch
        if batch < BATCH:
            return deleted
        time.sleep(PAUSE_SECONDS)
