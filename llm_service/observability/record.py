"""What is kept of a call: one row of the request log. There is no field that could hold content."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The columns of table ``requests``, in their order. How each is decided: ``journal``.

    ``created_at`` is aware and in UTC; ``cost_nanousd`` None means that the price is
    unknown; the HMACs are 32 hexadecimal digits; ids that came from a caller or a
    vendor have passed ``scrub.identifier``.
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
    attempts: int = 0
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
    latency_ms: int
    ttft_ms: int | None = None
    prompt_hmac: str | None = None
    request_id: str | None = None
    upstream_request_id: str | None = None
    client_ip_hmac: str | None = None

    def row(self) -> dict[str, Any]:
        """Column names and values, for the database (``dataclasses.asdict`` takes 20 times as long)."""
        return dict(zip(COLUMNS, _VALUES(self), strict=True))

    def line(self) -> dict[str, Any]:
        """The fields of the call's log line."""
        return dict(zip(_LINE, _LINE_VALUES(self), strict=True))


COLUMNS: tuple[str, ...] = tuple(item.name for item in fields(Record))
_VALUES = attrgetter(*COLUMNS)
# The line has its own time, and is for people and alerts; hashes and details are looked up in the row.
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
