"""The requests that the vendor saw, and the tokens that it would bill for each."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Bill:
    """The tokens that the vendor would charge for.

    The counts mean the same for every vendor, whatever its format says: ``input_tokens`` is the whole prompt, which
    includes cached tokens and cache-write tokens, and ``output_tokens`` includes reasoning tokens.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass
class SeenRequest:
    """One request. Times are values of ``time.monotonic()``, which is the same clock in all processes of a machine.

    ``outcome`` is ``open`` while the request is being answered. Afterwards it is ``answered``, ``rejected`` (an HTTP
    error), ``client_gone`` (the client disconnected first), the fault that ended the answer (``hang``, ``reset``,
    ``close``, ``end``, ``error``), or ``defect`` (the scripted vendor itself failed). ``billed`` is None when nothing
    would be charged.
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
    """Every request, in order of arrival. Thread-safe. ``limit`` is the number of newest requests to keep."""

    def __init__(self, limit: int | None = None) -> None:
        self._changed = threading.Condition()
        self._seen: deque[SeenRequest] = deque(maxlen=limit)
        self._count = 0

    def open(self, seen: Callable[[int], SeenRequest]) -> SeenRequest:
        with self._changed:
            self._count += 1
            entry = seen(self._count)
            self._seen.append(entry)
            self._changed.notify_all()
            return entry

    def end(self, seen: SeenRequest, outcome: str) -> None:
        """Record that the answer is over. The first recorded outcome stays."""
        with self._changed:
            if seen.outcome == "open":
                seen.outcome = outcome
                seen.ended_at = time.monotonic()
                if outcome == "client_gone":
                    seen.gone_at = seen.ended_at
            self._changed.notify_all()

    def all(self) -> list[SeenRequest]:
        with self._changed:
            return list(self._seen)

    def clear(self) -> None:
        with self._changed:
            self._seen.clear()

    def wait(
        self, ready: Callable[[list[SeenRequest]], list[SeenRequest]], count: int, timeout: float, what: str
    ) -> list[SeenRequest]:
        """Wait until ``ready`` returns at least ``count`` of the requests, and return these.

        Raises:
            TimeoutError: with what was seen instead.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(picked := ready(list(self._seen))) < count:
                left = deadline - time.monotonic()
                if left <= 0:
                    seen = [f"{entry.path} {entry.outcome} {entry.events_sent} events" for entry in self._seen]
                    raise TimeoutError(f"expected {count} {what} within {timeout} s, saw {seen}")
                self._changed.wait(left)
            return picked
