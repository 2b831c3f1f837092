"""What the vendor saw and what it would put on the bill."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Bill:
    """Tokens the vendor would charge for. ``input_tokens`` is the whole prompt, cached and cache-write
    tokens included, and ``output_tokens`` includes reasoning: on both vendors, whatever their wire says."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass
class Seen:
    """One request. Times are ``time.monotonic()``, which processes of one machine share.

    ``outcome``: ``open`` while it is being answered, then ``answered``, ``refused`` (an HTTP error),
    ``client_gone`` (the client left first), or the fault that ended it: ``hang``, ``reset``, ``close``,
    ``end``, ``error``. ``billed`` is None when nothing would be charged.
    """

    id: int
    connection: int
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any
    arrived: float
    raw: bytes = field(default=b"", repr=False)
    request_id: str = ""
    answer_id: str = ""
    status: int | None = None
    outcome: str = "open"
    first_event_at: float | None = None
    ended_at: float | None = None
    gone_at: float | None = None
    events_sent: int = 0
    bytes_sent: int = 0
    text_sent: str = ""
    billed: Bill | None = None

    @property
    def model(self) -> str | None:
        model = self.body.get("model") if isinstance(self.body, dict) else None
        return model if isinstance(model, str) else None

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        document["raw"] = len(self.raw)
        return document


class Ledger:
    """Every request, in order of arrival; thread-safe. ``limit`` forgets the oldest."""

    def __init__(self, limit: int | None = None) -> None:
        self._changed = threading.Condition()
        self._seen: deque[Seen] = deque(maxlen=limit)
        self._count = 0

    def open(self, seen: Callable[[int], Seen]) -> Seen:
        with self._changed:
            self._count += 1
            entry = seen(self._count)
            self._seen.append(entry)
            self._changed.notify_all()
            return entry

    def end(self, seen: Seen, outcome: str) -> None:
        """The answer is over; the first outcome stays."""
        with self._changed:
            if seen.outcome == "open":
                seen.outcome = outcome
                seen.ended_at = time.monotonic()
                if outcome == "client_gone":
                    seen.gone_at = seen.ended_at
            self._changed.notify_all()

    def all(self) -> list[Seen]:
        with self._changed:
            return list(self._seen)

    def clear(self) -> None:
        with self._changed:
            self._seen.clear()

    def wait(self, ready: Callable[[list[Seen]], list[Seen]], count: int, timeout: float, what: str) -> list[Seen]:
        """Wait until ``ready`` picks at least ``count`` requests; returns them.

        Raises:
            TimeoutError: saying what was seen instead.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(picked := ready(list(self._seen))) < count:
                left = deadline - time.monotonic()
                if left <= 0:
                    seen = [f"{entry.path} {entry.outcome} {entry.events_sent} events" for entry in self._seen]
                    raise TimeoutError(f"after {timeout} s: wanted {count} {what}, saw {seen}")
                self._changed.wait(left)
            return picked
