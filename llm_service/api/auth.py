"""Who calls. Keys arrive as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``.

A looked-up key is remembered for ``TTL`` seconds per worker, so a revoked key is
refused everywhere within that time; while the database is down a remembered key
is good for ``STALE`` seconds more, as nobody can be revoking then. What is
remembered is found by the digest: the key itself is not kept.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from flask import Request, current_app, g
from sqlalchemy.exc import SQLAlchemyError

from llm_service.conversation import Caller
from llm_service.errors import ServiceError, Unauthenticated, Unavailable
from llm_service.store import keys

log = logging.getLogger(__name__)

TTL = 1.0
STALE = 300.0
REMEMBERED = 10_000
MAX_KEY_CHARACTERS = 256

_REASONS = {
    "wrong": Unauthenticated("The API key is not valid."),
    "revoked": Unauthenticated("The API key was revoked.", code="revoked_api_key"),
    "expired": Unauthenticated("The API key has expired.", code="expired_api_key"),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Either a caller with ``error`` None, or the reason there is none.

    A revoked or expired key has both: its holder is known, and refused.
    """

    caller: Caller | None
    error: ServiceError | None = None


class Guard:
    """Resolves keys for one application."""

    def __init__(self, hmac_key: bytes, api_keys: tuple[str, ...]) -> None:
        self._hmac_key = hmac_key
        self._fixed = {self._digest(key): Caller(key_id=f"env-{self._digest(key)[:8]}") for key in api_keys}
        self._remembered: OrderedDict[str, tuple[float, keys.StoredKey | None]] = OrderedDict()
        self._lock = threading.Lock()

    def _digest(self, key: str) -> str:
        return hmac.new(self._hmac_key, key.encode("utf-8", "surrogateescape"), sha256).hexdigest()

    def identify(self, presented: str) -> Identity:
        digest = self._digest(presented)
        fixed = self._fixed.get(digest)  # a digest cannot be guessed byte by byte from timings
        if fixed is not None:
            return Identity(fixed)
        key_id = keys.parse_key(presented)
        if key_id is None:
            return Identity(None, Unauthenticated("The API key is malformed."))
        stored = self._find(digest, key_id)
        if stored is None:
            return Identity(None, _REASONS["wrong"])
        verdict = keys.verify(stored, presented, self._hmac_key, datetime.now(UTC))
        if verdict == "ok":
            return Identity(stored.caller)
        return Identity(None if verdict == "wrong" else stored.caller, _REASONS[verdict])

    def _find(self, digest: str, key_id: str) -> keys.StoredKey | None:
        now = time.monotonic()
        remembered = self._remembered.get(digest)
        if remembered is not None and now - remembered[0] < TTL:
            return remembered[1]
        try:
            stored = keys.find(key_id)
        except SQLAlchemyError as error:
            log.error("key lookup failed: %s", type(error).__name__)
            if remembered is not None and now - remembered[0] < STALE:
                return remembered[1]
            raise Unavailable("API keys cannot be checked right now.", retry_after=5) from None
        with self._lock:
            self._remembered[digest] = (now, stored)
            self._remembered.move_to_end(digest)
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return stored


def identify(request: Request) -> Identity:
    """The caller of ``request``; never raises for a bad key, so that limits can see it first."""
    presented = _presented(request)
    if presented is None:
        return Identity(
            None,
            Unauthenticated(
                "No API key: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.", code="missing_api_key"
            ),
        )
    if len(presented) > MAX_KEY_CHARACTERS:
        return Identity(None, Unauthenticated("The API key is malformed."))
    guard: Guard = current_app.extensions["llm_service_guard"]
    try:
        return guard.identify(presented)
    except Unavailable as error:
        return Identity(None, error)


def _presented(request: Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        presented = token.strip()
    else:
        presented = request.headers.get("X-API-Key", "").strip()
    if not presented.isascii():  # WSGI hands the bytes over as Latin-1; who writes such a key writes UTF-8
        presented = presented.encode("latin-1").decode("utf-8", "surrogateescape")
    return presented or None


def require_key() -> None:
    """The guard of every blueprint that is not open to all.

    Raises:
        Unauthenticated: or Unavailable, when keys cannot be checked.
    """
    identity: Identity | None = g.get("identity")  # None: an OPTIONS request, which reads nothing
    if identity is not None and identity.error is not None:
        raise identity.error


def open_to_all() -> None:
    """The guard of a blueprint that anybody may call. Named, so that no blueprint is open by omission."""


def caller() -> Caller:
    identity: Identity = g.identity
    assert identity.caller is not None, "guarded"
    return identity.caller
