"""Limits of users, organisations, networks, models and the whole service.

The limits of keys are in ``api_keys``, those of tiers in the catalogue. A network is named
in CIDR, and its limits apply to all calls from it together. A model is named by a pattern, as
in budgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, TypeAlias, get_args

from sqlalchemy import Table, and_, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from llm_service.core import limits as scopes
from llm_service.core.limits import Limits as Limits
from llm_service.extensions import db
from llm_service.store import engine
from llm_service.store.tables import LimitRow

Kind: TypeAlias = scopes.LimitKind
KINDS: tuple[Kind, ...] = get_args(Kind)
NAMES = ("rpm", "tpm", "parallel")

_TABLE: Table = LimitRow.metadata.tables[LimitRow.__tablename__]
_C = _TABLE.c


def list_all() -> list[Limits]:
    """Return all limits, sorted by kind and name."""
    with engine.reading(db.engine) as connection:
        found = [Limits(*row) for row in connection.execute(select(_TABLE))]
    return sorted(found, key=lambda item: (KINDS.index(item.kind), item.name))


def for_caller(user: str | None, org: str | None) -> list[Limits]:
    """Return the limits that a call of this user and organisation may count against, in one SELECT.

    The limits of networks and models are all returned: which of them apply depends on the call.
    """
    scopes = [(kind, name) for kind, name in (("user", user), ("org", org)) if name]
    named = (and_(_C.scope_kind == kind, _C.scope_name == name) for kind, name in scopes)
    matching = or_(_C.scope_kind.in_(("service", "network", "model")), *named)
    with engine.reading(db.engine) as connection:
        found = [Limits(*row) for row in connection.execute(select(_TABLE).where(matching))]
    return sorted(found, key=lambda item: KINDS.index(item.kind))


def put(kind: Kind, name: str, values: Mapping[str, int | None]) -> Limits:
    """Set any of rpm, tpm and parallel. Limits that are not in ``values`` stay as they are.

    Raises:
        ValueError: the kind is unknown, the service has a name or another scope has none, the network is not in
            CIDR, or a limit is not a positive integer.
    """
    if kind not in KINDS or (kind == "service") != (name == ""):
        raise ValueError("the service has no name, every other scope has one")
    name = normalized(kind, name)
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
    """Delete the scope's limits. Return whether there were any."""
    name = normalized(kind, name)
    with engine.writing(db.engine) as connection:
        deleted = connection.execute(delete(_TABLE).where(_C.scope_kind == kind, _C.scope_name == name))
        return deleted.rowcount > 0


def normalized(kind: Kind, name: str) -> str:
    """Return ``name`` as it is stored: a network has no host bits. Raises ValueError if it is not a network."""
    return str(ip_network(name, strict=False)) if kind == "network" else name
