"""The service's own identifiers. They sort by time.

An identifier is 48 bits of milliseconds and 80 random bits in Crockford base 32, like a ULID (github.com/ulid/spec).
So rows sort by creation, and indexes stay dense.
"""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id() -> str:
    """26 characters, lower case; sorts by creation time to the millisecond."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
