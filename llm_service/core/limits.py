"""The scope of a limit or a budget, and which calls count against it. Pure values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Literal, TypeAlias

from llm_service.core.periods import Period

BudgetKind: TypeAlias = Literal["key", "user", "org", "service"]
LimitKind: TypeAlias = Literal["user", "org", "network", "model", "service"]

# The date that vendors append to the model name that was asked for: gpt-4o-mini-2024-07-18, claude-haiku-4-5-20251001.
_DATED = re.compile(r"-20\d\d-?[01]\d-?[0-3]\d$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Budget:
    """Money a scope may spend per period. ``model`` "" means all models."""

    id: str
    kind: BudgetKind
    name: str
    model: str
    amount_nanousd: int
    period: Period
    created_at: datetime
    updated_at: datetime

    @property
    def scope(self) -> str:
        return scope_of(self.kind, self.name, self.model)

    def covers(self, provider: str, model: str) -> bool:
        return covers(self.model, provider, model)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one scope. ``name`` is "" for the service. None means no limit of this kind."""

    kind: LimitKind
    name: str
    rpm: int | None = None
    tpm: int | None = None
    parallel: int | None = None

    @property
    def scope(self) -> str:
        """``user:<name>`` and so on, or ``service``."""
        return scope_of(self.kind, self.name)

    def applies(self, client_ip: str, targets: Iterable[tuple[str, str]]) -> bool:
        """Whether a call from this address counts against them, if its caller belongs to the scope.

        ``targets`` are the provider and the model of each target that may answer it.
        """
        if self.kind == "network":
            return within(client_ip, self.name)
        if self.kind == "model":
            return any(covers(self.name, provider, model) for provider, model in targets)
        return True


def scope_of(kind: str, name: str, model: str = "") -> str:
    """The name of a scope: ``key:<id>``, ``user:<name>``, ``org:<name>`` or ``service``.

    With a model it is ``model:<key id>:<pattern>`` for a key, and ``model:<scope>:<pattern>`` for other scopes.
    Colons and percent signs in names are percent-encoded.
    """
    name = name.replace("%", "%25").replace(":", "%3A")
    scope = "service" if kind == "service" else f"{kind}:{name}"
    if not model:
        return scope
    return f"model:{name if kind == 'key' else scope}:{model}"


def covers(pattern: str, provider: str, model: str) -> bool:
    """Whether a budget for ``pattern`` counts a call that ``model`` of ``provider`` answers.

    The pattern is matched as in the model lists of keys: against ``provider/model`` and ``model``, each with and
    without the date that vendors append. Holds and rebuilt sums must both use this rule, or they count different calls.
    """
    if not pattern:
        return True
    bare = _DATED.sub("", model)
    return any(fnmatchcase(name, pattern) for name in (f"{provider}/{model}", model, f"{provider}/{bare}", bare))


@lru_cache(maxsize=4096)
def within(client_ip: str, network: str) -> bool:
    """Whether the address is in the network (CIDR). Text that is not an address is in no network."""
    try:
        address = ip_address(client_ip)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address) in ip_network(network, strict=False)
