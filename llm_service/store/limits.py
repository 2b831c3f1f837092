"""Limits of users, organisations and the whole service. Keys have theirs in ``api_keys``, tiers in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from sqlalchemy import Table, and_, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from llm_service.extensions import db
from llm_service.store import engine
from llm_service.store.models import LimitRow

Kind: TypeAlias = Literal["user", "org", "service"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NAMES = ("rpm", "tpm", "parallel")

_TABLE: Table = LimitRow.metadata.tables[LimitRow.__tablename__]
_C = _TABLE.c


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one scope; ``name`` is "" for the service. None: no limit of this kind."""

    kind: Kind
    name: str
    rpm: int | None = None
    tpm: int | None = None
    parallel: int | None = None


def list_all() -> list[Limits]:
    """By kind and name."""
    with engine.reading(db.engine) as connection:
        found = [Limits(*row) for row in connection.execute(select(_TABLE))]
    return sorted(found, key=lambda item: (KINDS.index(item.kind), item.name))


def for_caller(user: str | None, org: str | None) -> list[Limits]:
    """Those that a call of this user and organisation counts against, the service's too: one SELECT."""
    scopes = [("service", "")] + [(kind, name) for kind, name in (("user", user), ("org", org)) if name]
    matching = or_(*(and_(_C.scope_kind == kind, _C.scope_name == name) for kind, name in scopes))
    with engine.reading(db.engine) as connection:
        found = [Limits(*row) for row in connection.execute(select(_TABLE).where(matching))]
    return sorted(found, key=lambda item: KINDS.index(item.kind))


def put(kind: Kind, name: str, values: Mapping[str, int | None]) -> Limits:
    """Set any of rpm, tpm and parallel; what is not named stays.

    Raises:
        ValueError: an unknown kind, a name where there is none, or a limit that is no positive integer.
    """
    if kind not in KINDS or (kind == "service") != (name == ""):
        raise ValueError("the service has no name, users and organisations have one")
    if set(values) - set(NAMES) or any(value is not None and value < 1 for value in values.values()):
        raise ValueError(f"limits are {', '.join(NAMES)}, each at least 1")
    dialect: Any = sqlite if db.engine.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(_TABLE).values(scope_kind=kind, scope_name=name, **values)
    unique = ["scope_kind", "scope_name"]
    if values:
        statement = statement.on_conflict_do_update(index_elements=unique, set_=dict(values))
    else:
        statement = statement.on_conflict_do_nothing(index_elements=unique)
    found = select(_TABLE).where(_C.scope_kind == kind, _C.scope_name == name)
    with engine.writing(db.engine) as connection:
        connection.execute(statement)
        return Limits(*connection.execute(found).one())


def remove(kind: Kind, name: str) -> bool:
    """Delete the scope's limits; whether there were some."""
    with engine.writing(db.engine) as connection:
        gone = connection.execute(delete(_TABLE).where(_C.scope_kind == kind, _C.scope_name == name))
        return gone.rowcount > 0
