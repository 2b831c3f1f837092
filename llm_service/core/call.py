"""One request to a model as the edge read it, and who sends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from llm_service.core.limits import Budget, Limits

# What is asked for: an answer, vectors (no output tokens), or only a count of tokens (which nobody bills).
Kind: TypeAlias = Literal["generate", "embed", "count"]

# How far to go when JSON was asked for: see ``json_answers``.
JsonAnswers: TypeAlias = Literal["off", "check", "repair", "retry"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: an API key and what its owner may do. Never holds the key itself.

    ``limits`` are those of its user, organisation, network, models and of the service; ``budgets`` all that its
    calls count against, its tier's too.
    """

    key_id: str
    name: str = ""
    org: str | None = None
    user: str | None = None
    tier: str = "default"
    rpm: int | None = None
    models: tuple[str, ...] = ()  # empty: all
    tpm: int | None = None
    parallel: int | None = None
    limits: tuple[Limits, ...] = ()
    budgets: tuple[Budget, ...] = ()
    json_answers: JsonAnswers = "off"  # unless the request says otherwise
    storage: bool | None = None  # whether the vendor may keep content when asked to; None: as the provider's row says


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model, as the edge read it.

    ``created`` is Unix seconds, ``arrived`` monotonic ones; ``body_bytes`` the size
    of the request as received.

    ``body`` is the client's JSON object in the wire format named ``format``; a provider that
    speaks the same format sends it on verbatim. ``headers`` holds only the
    client headers that may travel upstream (lower-case names).
    """

    id: str
    request_id: str
    route: str
    format: str
    model: str
    stream: bool
    body: Mapping[str, Any]
    caller: Caller
    created: int = 0
    arrived: float | None = None
    body_bytes: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    client_ip: str = ""
    kind: Kind = "generate"
    json_answers: JsonAnswers = "off"
