"""A vendor's own refusal of a request, before any model is asked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.upstream.http1 import Request


class Refused(Exception):
    """``kind`` is the vendor's error type; ``param`` and ``code`` are OpenAI's."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message
        self.param, self.code = param, code


@dataclass
class House:
    """What this vendor's account looks like. ``keys`` empty: any key will do. ``fields``: body fields
    accepted beside the known ones, as a vendor has them the day after a release."""

    keys: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)

    def admits(self, key: str) -> bool:
        return bool(key) and (not self.keys or key in self.keys)


def bearer(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def parse(body: bytes) -> Any:
    """The JSON value, or None; vendors refuse both in words of their own."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
