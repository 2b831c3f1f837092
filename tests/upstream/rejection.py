"""The vendor's own rejection of a request, before a model is asked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.upstream.http1 import Request


class Rejected(Exception):
    """``kind`` is the vendor's error type. ``param`` and ``code`` are the fields of OpenAI's errors."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message
        self.param, self.code = param, code


@dataclass
class Account:
    """What the caller's account at this vendor allows.

    ``keys`` are the accepted keys; any key is accepted if it is empty. ``fields`` are body fields that are accepted in
    addition to the known ones, as a vendor adds them with a release. ``models`` are additional models. ``kept`` are
    the ids of the answers that the vendor has kept, because their requests did not say ``"store": false``.
    """

    keys: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)

    def admits(self, key: str) -> bool:
        return bool(key) and (not self.keys or key in self.keys)


def bearer(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def parse(body: bytes) -> Any:
    """The JSON value, or None for a malformed body. Each vendor rejects a malformed body with its own message."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
