"""One ``Record`` per call: a row of the request log, a log line and the metrics.

``with journal.entry(call) as entry`` (``entry``) stands around the events of a call; however
they end, it is decided once what is kept. Nothing here raises into the call: a
defect is logged by its type, counted, and costs the least possible.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from llm_service.core.call import Call, Caller
from llm_service.core.errors import ServiceError
from llm_service.core.identifiers import loggable
from llm_service.observability import scrub
from llm_service.observability.call_recorder import Entry, milliseconds
from llm_service.observability.metrics import Metrics
from llm_service.observability.record import Record, canonical

log = logging.getLogger(__name__)
calls_log = logging.getLogger("llm_service.calls")


class Writer(Protocol):
    """What the journal needs of ``store.writer.Writer``: ``put`` neither blocks nor raises."""

    @property
    def dropped(self) -> int: ...

    def put(self, row: Mapping[str, Any]) -> bool: ...


@dataclass(slots=True)
class RequestInfo:
    """A request on its way to become a call; the edge fills it in as it reads.

    ``started`` is of the journal's clock. ``caller`` stays None without a valid
    key; ``journaled`` is the edge's note that this request has its record.
    """

    id: str
    request_id: str
    route: str
    format: str
    client_ip: str = ""
    started: float | None = None
    stream: bool | None = None
    model_asked: str | None = None
    caller: Caller | None = None
    journaled: bool = False


class Journal:
    """``prompt_of(call)`` gives the JSON values that hold the prompt, for their keyed hash;
    ``status_of(dialect, error)`` the HTTP status its clients get; ``clock`` is monotonic
    seconds, ``now`` an aware UTC time."""

    def __init__(
        self,
        writer: Writer,
        telemetry: Metrics,
        hmac_key: bytes,
        prompt_of: Callable[[Call], Any],
        status_of: Callable[[str, ServiceError], int] = lambda _dialect, error: error.status,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.telemetry, self.clock, self.now = telemetry, clock, now
        self._writer, self._hmac_key = writer, hmac_key
        self._prompt_of, self.status_of = prompt_of, status_of
        self._dropped = 0

    def entry(self, call: Call, started: float | None = None) -> Entry:
        """The record of ``call`` while it lasts. ``started``: when its request arrived, else now."""
        return Entry(self, call, self.clock() if started is None else started)

    def refused(self, arrival: RequestInfo, error: ServiceError) -> None:
        """Record a request of a known caller that did not become a call."""
        self._refused(arrival, error, keep=arrival.caller is not None)

    def anonymous(self, arrival: RequestInfo, error: ServiceError) -> None:
        """Log and count a request without an identified key; no row, or anybody could fill the database."""
        self._refused(arrival, error, keep=False)

    def _refused(self, arrival: RequestInfo, error: ServiceError, *, keep: bool) -> None:
        try:
            caller = arrival.caller
            started = self.clock() if arrival.started is None else arrival.started
            record = Record(
                id=arrival.id,
                created_at=self.now(),
                key_id=caller.key_id if caller else None,
                org=caller.org if caller else None,
                user=caller.user if caller else None,
                route=arrival.route,
                dialect=arrival.format,
                stream=arrival.stream,
                model_asked=loggable(arrival.model_asked),
                status=self.status_of(arrival.format, error),
                outcome=error.outcome,
                error_type=loggable(error.code),
                cost_nanousd=0,
                latency_ms=milliseconds(self.clock() - started),
                request_id=loggable(arrival.request_id),
                client_ip_hmac=self.ip_hmac(arrival.client_ip),
            )
        except Exception as failure:  # noqa: BLE001 - the caller gets the refusal, not our defect
            self.failed(failure)
        else:
            self.keep(record, error, row=keep)

    def keep(self, record: Record, error: BaseException | None, *, row: bool = True) -> None:
        """Hand ``record`` on. Each part on its own: a defect in one must not cost the others."""
        if row:
            self.guarded(self._put, record)
        self.guarded(self.telemetry.record, record)
        if calls_log.isEnabledFor(logging.INFO):
            self.guarded(_log_call, record, error)

    def guarded(self, do: Callable[..., None], *args: Any) -> None:
        try:
            do(*args)
        except Exception as failure:  # noqa: BLE001 - the call goes on, or is answered
            self.failed(failure)

    def _put(self, record: Record) -> None:
        self._writer.put(record.row())
        # The writer counts by itself, rows given up later too.
        dropped = self._writer.dropped
        if dropped > self._dropped:
            self.telemetry.rows_dropped(dropped - self._dropped)
        self._dropped = dropped

    def failed(self, failure: BaseException) -> None:
        """A defect of ours while recording."""
        log.error("a call could not be recorded in full", extra={"fields": scrub.safe_exception(failure)})
        with suppress(Exception):  # it may be the metrics that fail: their files are on a disk
            self.telemetry.journal_failed()

    def prompt_hmac(self, call: Call) -> str | None:
        try:
            return self._hmac(canonical(self._prompt_of(call)))
        except Exception as failure:  # noqa: BLE001 - the row is worth more than this column
            self.failed(failure)
            return None

    def ip_hmac(self, client_ip: str) -> str | None:
        return self._hmac(client_ip.encode("utf-8", "surrogatepass")) if client_ip else None

    def _hmac(self, data: bytes) -> str:
        return hmac.digest(self._hmac_key, data, "sha256").hex()[:32]


def _log_call(record: Record, error: BaseException | None) -> None:
    fields = record.line()
    if isinstance(error, ServiceError) and error.limit is not None:
        fields["limit"] = f"{error.limit.name}/{error.limit.scope}"
    elif error is not None and record.outcome == "aborted":
        fields["exception"] = scrub.safe_exception(error)
    calls_log.info("call", extra={"fields": fields})
