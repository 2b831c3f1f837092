"""What is recorded of a call: one row of the request log. No field of it could hold content.

The columns are named here and nowhere else. A ``Record`` is made of a call that was answered or failed (``of_call``),
of a request that was rejected before it became a call (``of_rejection``) and of a call of a dead worker
(``of_lost_call``, from the columns that its hold kept: ``known_before``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any

import orjson

from llm_service.core.call import Call, RequestInfo
from llm_service.core.errors import ServiceError
from llm_service.core.identifiers import loggable
from llm_service.core.usage import Usage

# Token counts and costs are a vendor's claim. This is the largest value of a signed 64-bit column.
_MAX_COUNT = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The columns of table ``requests``, in their order. ``call_recorder`` says how each is decided.

    ``created_at`` is aware and in UTC. ``cost_nanousd`` None means that the price is unknown. The HMACs are 32
    hexadecimal digits. Identifiers that came from a caller or a vendor have passed ``identifiers.loggable``.
    """

    id: str
    created_at: datetime
    key_id: str | None = None
    org: str | None = None
    user: str | None = None
    route: str
    dialect: str
    stream: bool | None = None
    model_asked: str | None = None
    provider: str | None = None
    model_served: str | None = None
    attempts: int | None = 0
    status: int
    outcome: str
    error_type: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    usage_exact: bool = True
    cost_nanousd: int | None
    latency_ms: int | None = None
    ttft_ms: int | None = None
    prompt_hmac: str | None = None
    request_id: str | None = None
    upstream_request_id: str | None = None
    client_ip_hmac: str | None = None
    usage_lost: bool = False  # for the settlement only: no column

    @classmethod
    def of_call(
        cls,
        call: Call,
        *,
        created_at: datetime,
        provider: str | None,
        model_served: str | None,
        attempts: int,
        status: int,
        outcome: str,
        error_type: str | None,
        usage: Usage,
        cost_nanousd: int | None,
        latency_ms: int,
        ttft_ms: int | None,
        prompt_hmac: str | None,
        upstream_request_id: str | None,
        client_ip_hmac: str | None,
    ) -> Record:
        """The record of a call that has ended."""
        return cls(
            id=call.id,
            **known_before(call, created_at),
            provider=provider,
            model_served=loggable(model_served),
            attempts=attempts,
            status=status,
            outcome=outcome,
            error_type=loggable(error_type),
            **_counts(usage),
            cost_nanousd=None if cost_nanousd is None else _count(cost_nanousd),
            latency_ms=latency_ms,
            ttft_ms=ttft_ms,
            prompt_hmac=prompt_hmac,
            upstream_request_id=loggable(upstream_request_id),
            client_ip_hmac=client_ip_hmac,
            usage_lost=usage.lost,
        )

    @classmethod
    def of_rejection(
        cls,
        info: RequestInfo,
        error: ServiceError,
        *,
        created_at: datetime,
        status: int,
        latency_ms: int,
        prompt_hmac: str | None,
        client_ip_hmac: str | None,
    ) -> Record:
        """The record of a request that was rejected before it became a call."""
        return cls(
            id=info.id,
            **known_before(info, created_at),
            status=status,
            outcome=error.outcome,
            error_type=loggable(error.code),
            cost_nanousd=0,
            latency_ms=latency_ms,
            prompt_hmac=prompt_hmac,
            client_ip_hmac=client_ip_hmac,
        )

    @classmethod
    def of_lost_call(
        cls, call_id: str, known: Mapping[str, Any], target: str, usage: Usage, cost_nanousd: int | None
    ) -> Record:
        """The record of a call of a dead worker: what was ``known_before``, and an estimate of its usage.

        How many attempts it made and how long it took is not known.
        """
        provider, _, model = target.partition("/")
        return cls(
            id=call_id,
            **known,
            provider=provider,
            model_served=model,
            attempts=None,
            status=500,
            outcome="aborted",
            error_type="worker_lost",
            **_counts(usage),
            cost_nanousd=cost_nanousd,
        )

    def row(self) -> dict[str, Any]:
        """Column names and values, for the database (``dataclasses.asdict`` takes 20 times as long)."""
        return dict(zip(COLUMNS, _VALUES(self), strict=True))

    def line(self) -> dict[str, Any]:
        """The fields of the call's log line."""
        return dict(zip(_LINE, _LINE_VALUES(self), strict=True))


def known_before(asked: Call | RequestInfo, created_at: datetime) -> dict[str, Any]:
    """The columns that are known before an upstream is asked, without the id."""
    caller = asked.caller
    return {
        "created_at": created_at,
        "key_id": caller.key_id if caller else None,
        "org": caller.org if caller else None,
        "user": caller.user if caller else None,
        "route": asked.route,
        "dialect": asked.format,
        "stream": asked.stream,
        "model_asked": loggable(asked.model),
        "request_id": loggable(asked.request_id),
    }


def _counts(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": _count(usage.input_tokens),
        "output_tokens": _count(usage.output_tokens),
        "cached_tokens": _count(usage.cached_tokens),
        "cache_write_tokens": _count(usage.cache_write_tokens),
        "reasoning_tokens": _count(usage.reasoning_tokens),
        "usage_exact": usage.exact,
    }


def _count(number: int) -> int:
    return min(max(0, number), _MAX_COUNT)


def milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


COLUMNS: tuple[str, ...] = tuple(item.name for item in fields(Record) if item.name != "usage_lost")
_VALUES = attrgetter(*COLUMNS)
# The line has a time of its own and is for people and alerts. Hashes and details can be looked up in the row.
_NOT_IN_LINE = (
    "created_at",
    "user",
    "dialect",
    "cache_write_tokens",
    "reasoning_tokens",
    "prompt_hmac",
    "upstream_request_id",
    "client_ip_hmac",
)
_IN_LINE = tuple(name for name in COLUMNS if name not in _NOT_IN_LINE)
_LINE = tuple("model" if name == "model_asked" else name for name in _IN_LINE)
_LINE_VALUES = attrgetter(*_IN_LINE)


def canonical(value: Any) -> bytes:
    """``value`` as JSON that does not depend on the order of keys."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # lone surrogates, integers beyond 64 bits
        return json.dumps(value, sort_keys=True).encode()
