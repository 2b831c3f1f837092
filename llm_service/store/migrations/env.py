"""Alembic runs this file for every command. It leaves logging as the service has configured it."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from llm_service.extensions import db
from llm_service.store import schema, tables
from llm_service.store.engine import unpooled_engine


def _render(kind: str, item: Any, _autogen: Any) -> str | Literal[False]:
    """Write SQLAlchemy's own types, so that a migration keeps its meaning when our code changes."""
    if kind == "type" and isinstance(item, tables.UTCDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def _configure(**where: Any) -> None:
    context.configure(
        target_metadata=tables.Base.metadata,
        transactional_ddl=True,
        compare_type=True,
        compare_server_default=True,
        render_as_batch=True,
        render_item=_render,
        **where,
    )


def _offline() -> None:
    _configure(url=db.engine.url, literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()


def _online() -> None:
    # Not from the pool: the settings of schema.begin must not stay on a pooled connection.
    with schema.lock(db.engine), unpooled_engine(db.engine.url).connect() as connection:
        schema.begin(connection)
        _configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()


if context.is_offline_mode():
    _offline()
else:
    _online()
