"""What alembic runs for every command; logging stays as the service set it up."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from llm_service.extensions import db
from llm_service.store import models, schema
from llm_service.store.engine import lone_engine


def _render(kind: str, item: Any, _autogen: Any) -> str | Literal[False]:
    """A migration must not change its meaning with our code: it names SQLAlchemy's own types."""
    if kind == "type" and isinstance(item, models.UTCDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def _configure(**where: Any) -> None:
    context.configure(
        target_metadata=models.Base.metadata,
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
    # A connection of its own: what schema.begin sets must not stay behind in the pool.
    with schema.lock(db.engine), lone_engine(db.engine.url).connect() as connection:
        schema.begin(connection)
        _configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()


if context.is_offline_mode():
    _offline()
else:
    _online()
