"""API keys: ``lsk_<id of 8 characters>_<secret of 43 characters>``.

Only a digest is stored: the HMAC-SHA-256 of the whole key under the service's
secret, in hex. ``new_key``, ``parse_key``, ``digest`` and ``verify`` do no I/O. The
other functions need an application context for ``db.engine`` and hold no connection
after they return.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, Table, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from llm_service.core.call import Caller, JsonAnswers
from llm_service.extensions import db
from llm_service.store import engine
from llm_service.store.tables import ApiKey

# Base 32 without 0, 1, l and o, because people read ids aloud and type them.
_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyz"
# Matched by position, because the secret itself may contain "_" and "-".
_KEY = re.compile(rf"lsk_([{_ALPHABET}]{{8}})_[A-Za-z0-9_-]{{43}}")
_LENGTH = 56
_TABLE: Table = ApiKey.metadata.tables[ApiKey.__tablename__]

_CHANGEABLE = {
    "name",
    "org",
    "user",
    "tier",
    "rpm",
    "tpm",
    "parallel",
    "models",
    "networks",
    "json_answers",
    "storage",
    "expires_at",
}

Verdict: TypeAlias = Literal["ok", "revoked", "expired", "wrong"]
Status: TypeAlias = Literal["active", "revoked", "expired"]


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A row of ``api_keys``. Digests stay out of repr."""

    caller: Caller
    created_at: datetime
    digest: str = field(repr=False)
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    previous_digest: str | None = field(default=None, repr=False)
    previous_until: datetime | None = None
    networks: tuple[str, ...] = ()  # CIDR; empty: the key may be used from anywhere

    @property
    def id(self) -> str:
        return self.caller.key_id

    def status(self, now: datetime) -> Status:
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "active"


@dataclass(frozen=True, slots=True)
class Issued:
    """A new key with the only copy of its text."""

    stored: StoredKey
    text: str = field(repr=False)


class KeyUnknown(LookupError):
    """There is no key with this id."""


class KeyRevoked(ValueError):
    """The key is revoked, which is final."""


def new_key(key_id: str | None = None) -> tuple[str, str]:
    """Return (id, text) of a new key. Its secret has 256 random bits."""
    key_id = key_id or "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return key_id, f"lsk_{key_id}_{secrets.token_urlsafe(32)}"


def parse_key(text: str) -> str | None:
    """Return the key's id if ``text`` has the form of a key, else None. The secret is not checked."""
    if len(text) != _LENGTH:
        return None
    match = _KEY.fullmatch(text)
    return match[1] if match else None


def digest(text: str, hmac_key: bytes) -> str:
    # surrogatepass: a header may decode to any text, and the result must be "wrong", not an exception.
    return hmac.new(hmac_key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def verify(stored: StoredKey, presented: str, hmac_key: bytes, now: datetime) -> Verdict:
    """Check in constant time whether ``presented`` is the key ``stored`` and valid at ``now``.

    Only a caller with the right secret learns that the key is revoked or expired.
    """
    actual = digest(presented, hmac_key).encode()
    current = hmac.compare_digest(actual, stored.digest.encode())
    previous = hmac.compare_digest(actual, (stored.previous_digest or "").encode())
    in_grace = previous and stored.previous_until is not None and now < stored.previous_until
    if not (current or in_grace):
        return "wrong"
    status = stored.status(now)
    return "ok" if status == "active" else status


def find(key_id: str) -> StoredKey | None:
    """Return the key with this id, even if it is revoked or expired."""
    with engine.reading(db.engine) as connection:
        return _one(connection, key_id)


def matching(reference: str) -> list[StoredKey]:
    """Return the keys that an operator may mean: the one with this id (or key text), else all with this name."""
    key_id = parse_key(reference) or reference
    found = find(key_id) if len(key_id) == 8 else None
    if found is not None:
        return [found]
    statement = select(_TABLE).where(_TABLE.c.name == reference).order_by(_TABLE.c.created_at, _TABLE.c.id)
    with engine.reading(db.engine) as connection:
        return [_stored(row) for row in connection.execute(statement).mappings()]


def list_all() -> list[StoredKey]:
    """Return every key, oldest first."""
    statement = select(_TABLE).order_by(_TABLE.c.created_at, _TABLE.c.id)
    with engine.reading(db.engine) as connection:
        return [_stored(row) for row in connection.execute(statement).mappings()]


def any_exists() -> bool:
    """Whether any key was ever created."""
    with engine.reading(db.engine) as connection:
        return connection.execute(select(_TABLE.c.id).limit(1)).first() is not None


def issue(
    hmac_key: bytes,
    *,
    name: str,
    org: str | None = None,
    user: str | None = None,
    tier: str = "default",
    rpm: int | None = None,
    tpm: int | None = None,
    parallel: int | None = None,
    models: Sequence[str] = (),
    networks: Sequence[str] = (),
    json_answers: JsonAnswers | None = None,
    storage: bool | None = None,
    expires_at: datetime | None = None,
) -> Issued:
    """Create and store a key. A limit of None means the tier's; empty ``models`` or ``networks`` means all."""
    values: dict[str, Any] = {
        "name": name,
        "org": org,
        "user": user,
        "tier": tier,
        "rpm": rpm,
        "tpm": tpm,
        "parallel": parallel,
        "models": list(models),
        "networks": list(networks) or None,
        "json_answers": json_answers,
        "storage": storage,
        "expires_at": expires_at,
        "created_at": _now(),
    }
    for attempt in range(5):
        key_id, text = new_key()
        try:
            with engine.writing(db.engine) as connection:
                connection.execute(insert(_TABLE).values(id=key_id, digest=digest(text, hmac_key), **values))
                return Issued(_existing(connection, key_id), text)
        except IntegrityError:  # an id has 40 bits, so two equal ids are rare but possible
            if attempt == 4:
                raise
    raise AssertionError("unreachable")


def change(key_id: str, values: Mapping[str, Any]) -> StoredKey:
    """Set any of name, org, user, tier, rpm, tpm, parallel, models, networks, json_answers, storage and expires_at.

    Raises:
        KeyUnknown, KeyRevoked: such a key cannot be changed.
    """
    unknown = set(values) - _CHANGEABLE
    if unknown:
        raise TypeError(f"{sorted(unknown)[0]} is not a field of a key that can be changed")
    with engine.writing(db.engine) as connection:
        return _changed(connection, key_id, dict(values))


def rotate(key_id: str, hmac_key: bytes, grace: timedelta) -> Issued:
    """Give the key a new secret. The previous secret stays valid for ``grace``, older ones do not.

    Raises:
        KeyUnknown, KeyRevoked: such a key cannot be rotated.
    """
    _, text = new_key(key_id)
    kept = grace > timedelta(0)
    values = {
        # The column, not a value that was read before: if two rotations run at once, the later one must keep the
        # secret of the earlier one.
        "previous_digest": _TABLE.c.digest if kept else None,
        "previous_until": _now() + grace if kept else None,
        "digest": digest(text, hmac_key),
    }
    with engine.writing(db.engine) as connection:
        return Issued(_changed(connection, key_id, values), text)


def revoke(key_id: str) -> StoredKey:
    """Reject the key from now on, and its previous secret too. A second call keeps the time of the first.

    Raises:
        KeyUnknown: there is no key with this id.
    """
    revoked = func.coalesce(_TABLE.c.revoked_at, _now())
    with engine.writing(db.engine) as connection:
        connection.execute(update(_TABLE).where(_TABLE.c.id == key_id).values(revoked_at=revoked))
        return _existing(connection, key_id)


def _changed(connection: Connection, key_id: str, values: dict[str, Any]) -> StoredKey:
    allowed = (_TABLE.c.id == key_id) & _TABLE.c.revoked_at.is_(None)
    if values:
        connection.execute(update(_TABLE).where(allowed).values(**values))
    stored = _existing(connection, key_id)
    if stored.revoked_at is not None:
        raise KeyRevoked(key_id)
    return stored


def _existing(connection: Connection, key_id: str) -> StoredKey:
    stored = _one(connection, key_id)
    if stored is None:
        raise KeyUnknown(key_id)
    return stored


def _one(connection: Connection, key_id: str) -> StoredKey | None:
    row = connection.execute(select(_TABLE).where(_TABLE.c.id == key_id)).mappings().first()
    return None if row is None else _stored(row)


def _stored(row: Mapping[Any, Any]) -> StoredKey:
    caller = Caller(
        key_id=row["id"],
        name=row["name"],
        org=row["org"],
        user=row["user"],
        tier=row["tier"],
        rpm=row["rpm"],
        models=tuple(row["models"] or ()),
        tpm=row["tpm"],
        parallel=row["parallel"],
        json_answers=row["json_answers"] or "off",
        storage=row["storage"],
    )
    return StoredKey(
        caller=caller,
        created_at=row["created_at"],
        digest=row["digest"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        previous_digest=row["previous_digest"],
        previous_until=row["previous_until"],
        networks=tuple(row["networks"] or ()),
    )


def _now() -> datetime:
    return datetime.now(UTC)
