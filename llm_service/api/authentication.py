"""The caller of a request. Keys arrive as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``.

Each worker remembers a key that it looked up for ``TTL`` seconds. So within that time
a revoked key is rejected everywhere, and new limits and budgets apply. While the
database is down, a remembered key is valid for ``STALE`` seconds, because no key can
be revoked then. Keys are remembered by their digests; the key itself is not kept.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256

from flask import Request, current_app, g
from sqlalchemy.exc import SQLAlchemyError

from llm_service.catalog.catalog import Catalog
from llm_service.core.call import Caller
from llm_service.core.errors import Forbidden, ServiceError, Unauthenticated, Unavailable
from llm_service.core.limits import within
from llm_service.store import budgets, keys, limits

log = logging.getLogger(__name__)

TTL = 1.0
STALE = 300.0
MAX_REMEMBERED = 10_000
MAX_KEY_CHARACTERS = 256

_REASONS = {
    "wrong": Unauthenticated("The API key is not valid."),
    "revoked": Unauthenticated("The API key was revoked.", code="revoked_api_key"),
    "expired": Unauthenticated("The API key has expired.", code="expired_api_key"),
}
_WRONG_NETWORK = Forbidden("The API key may not be used from this address.", code="network_not_allowed")


@dataclass(frozen=True, slots=True)
class Identity:
    """Either a caller, or the reason why there is none in ``error``.

    A revoked or expired key has both: its holder is known, and is rejected.
    """

    caller: Caller | None
    error: ServiceError | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """A key in the database and its caller with limits and budgets. Both are None if there is no such key."""

    stored: keys.StoredKey | None
    caller: Caller | None


class Authenticator:
    """Finds the callers of keys, for one application."""

    def __init__(self, hmac_key: bytes, api_keys: tuple[str, ...], catalog: Catalog) -> None:
        self._hmac_key, self._catalog = hmac_key, catalog
        self._fixed = {self._digest(key): Caller(key_id=f"env-{self._digest(key)[:8]}") for key in api_keys}
        self._remembered: OrderedDict[str, tuple[float, _Known]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def fixed(self) -> tuple[Caller, ...]:
        """The callers whose keys are in the setting API_KEYS."""
        return tuple(self._fixed.values())

    def _digest(self, key: str) -> str:
        return hmac.new(self._hmac_key, key.encode("utf-8", "surrogateescape"), sha256).hexdigest()

    def identify(self, presented: str, client_ip: str = "") -> Identity:
        digest = self._digest(presented)
        fixed = self._fixed.get(digest)  # a digest cannot be guessed byte by byte from timings
        if fixed is not None:
            return Identity(self._known(digest, lambda: _Known(None, self._complete(fixed))).caller)
        key_id = keys.parse_key(presented)
        if key_id is None:
            return Identity(None, Unauthenticated("The API key is malformed."))
        known = self._known(digest, lambda: self._load(key_id))
        if known.stored is None or known.caller is None:
            return Identity(None, _REASONS["wrong"])
        verdict = keys.verify(known.stored, presented, self._hmac_key, datetime.now(UTC))
        if verdict != "ok":
            return Identity(None if verdict == "wrong" else known.caller, _REASONS[verdict])
        networks = known.stored.networks
        if networks and not any(within(client_ip, network) for network in networks):
            return Identity(known.caller, _WRONG_NETWORK)
        return Identity(known.caller)

    def _load(self, key_id: str) -> _Known:
        stored = keys.find(key_id)
        return _Known(stored, None if stored is None else self._complete(stored.caller))

    def _complete(self, caller: Caller) -> Caller:
        """``caller`` with the limits and budgets that its calls count against."""
        tier = self._catalog.tier(caller.tier).budget
        rows = budgets.for_caller(caller.key_id, caller.user, caller.org)
        return replace(
            caller,
            limits=tuple(limits.for_caller(caller.user, caller.org)),
            budgets=tuple(budgets.effective(rows, caller.key_id, tier)),
        )

    def _known(self, digest: str, load: Callable[[], _Known]) -> _Known:
        now = time.monotonic()
        remembered = self._remembered.get(digest)
        if remembered is not None and now - remembered[0] < TTL:
            return remembered[1]
        try:
            known = load()
        except SQLAlchemyError as error:
            log.error("key lookup failed: %s", type(error).__name__)
            if remembered is not None and now - remembered[0] < STALE:
                return remembered[1]
            raise Unavailable("API keys cannot be checked right now. Try again in 5 s.", retry_after=5) from None
        with self._lock:
            self._remembered[digest] = (now, known)
            self._remembered.move_to_end(digest)
            while len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        return known


def identify(request: Request) -> Identity:
    """The caller of ``request``. It does not raise for a bad key, so that the rate limits are checked before."""
    presented = _presented(request)
    if presented is None:
        return Identity(
            None,
            Unauthenticated(
                "The request has no API key. Send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.",
                code="missing_api_key",
            ),
        )
    if len(presented) > MAX_KEY_CHARACTERS:
        return Identity(None, Unauthenticated("The API key is malformed."))
    authenticator: Authenticator = current_app.extensions["llm_service_authenticator"]
    try:
        return authenticator.identify(presented, request.remote_addr or "")
    except Unavailable as error:
        return Identity(None, error)


def _presented(request: Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        presented = token.strip()
    else:
        presented = request.headers.get("X-API-Key", "").strip()
    if not presented.isascii():  # WSGI decodes headers as Latin-1, but clients send such a key as UTF-8
        presented = presented.encode("latin-1").decode("utf-8", "surrogateescape")
    return presented or None


def require_key() -> None:
    """The guard of every blueprint that is not open to all.

    Raises:
        Unauthenticated, Forbidden: The request has no valid key, or the key may not be used from its address.
        Unavailable: Keys cannot be checked now.
    """
    identity: Identity | None = g.get("identity")  # None: an OPTIONS request, which gets no data
    if identity is not None and identity.error is not None:
        raise identity.error


def open_to_all() -> None:
    """The guard of a blueprint that anybody may call. It checks nothing, but no blueprint is open by mistake."""


def caller() -> Caller:
    """The caller of the current request; only for routes behind ``require_key``."""
    identity: Identity = g.identity
    assert identity.caller is not None, "require_key lets only known callers through"
    return identity.caller
