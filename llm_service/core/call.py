"""One request to a model as the edge read it, and its caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from llm_service.core.limits import Budget, Limits
from llm_service.core.target import Target

# What is asked for: an answer, vectors (no output tokens), or only a count of tokens (which no vendor bills).
Kind: TypeAlias = Literal["generate", "embed", "count"]

# How an answer is checked if JSON was asked for: see ``json_answers``.
JsonAnswers: TypeAlias = Literal["off", "check", "repair", "retry"]


@dataclass(frozen=True, slots=True)
class Caller:
    """An API key and what its owner may do. It never holds the key itself.

    ``limits`` are those of the key's user and organisation, of networks, of models and of the service. ``budgets``
    are all budgets that its calls count against, its tier's included.
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
    storage: bool | None = None  # whether the vendor may store content if a call asks for it; None: the provider's row


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model, as the edge read it.

    ``created`` is in Unix seconds, ``arrived`` in monotonic seconds. ``body_bytes`` is the size of the request as
    received.

    ``body`` is the client's JSON object in the wire format named ``format``; a provider that speaks the same format
    sends it on verbatim. ``headers`` holds only the client headers that may travel upstream (lower-case names).
    ``targets`` are the models that may answer, best first, as the catalogue resolved ``model`` for this caller.
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
    targets: tuple[Target, ...] = ()


@dataclass(slots=True)
class RequestInfo:
    """What is known of a request before it is a call; the edge fills it in as it reads.

    ``started`` is in monotonic seconds. ``caller`` is None without a valid key. ``call``, without targets, is set if
    the catalogue rejected it. ``journaled`` is the edge's note that the request has its record.
    """

    id: str
    request_id: str
    route: str
    format: str
    client_ip: str = ""
    started: float | None = None
    stream: bool | None = None
    model: str | None = None
    caller: Caller | None = None
    call: Call | None = None
    journaled: bool = False
