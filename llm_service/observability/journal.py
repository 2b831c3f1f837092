"""Records calls and rejected requests: a row of the request log, a log line and the metrics of each.

``CallRecorder`` stands around the events of a call; a request that did not become a call is recorded by ``rejected``.
Nothing here raises into the call: a defect is logged by its type and counted, and costs as little of the record as
possible.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from llm_service.core.call import Call, RequestInfo
from llm_service.core.errors import ServiceError
from llm_service.observability import scrub
from llm_service.observability.metrics import Metrics
from llm_service.observability.record import Record, canonical, milliseconds

log = logging.getLogger(__name__)
calls_log = logging.getLogger("llm_service.calls")


class Writer(Protocol):
    """What the journal needs of ``store.writer.Writer``: ``put`` neither blocks nor raises."""

    @property
    def dropped(self) -> int: ...

    def put(self, row: Mapping[str, Any]) -> bool: ...


class Journal:
    """One per application.

    ``prompt_of(call)`` returns the JSON values that hold the prompt, for their keyed hash. ``status_of(format, error)``
    returns the HTTP status that clients of the format get. ``clock`` returns monotonic seconds, ``now`` an aware time
    in UTC.
    """

    def __init__(
        self,
        writer: Writer,
        telemetry: Metrics,
        hmac_key: bytes,
        prompt_of: Callable[[Call], Any],
        status_of: Callable[[str, ServiceError], int] = lambda _format, error: error.status,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.telemetry, self.clock, self.now = telemetry, clock, now
        self._writer, self._hmac_key = writer, hmac_key
        self._prompt_of, self.status_of = prompt_of, status_of
        self._dropped = 0

    def rejected(self, info: RequestInfo, error: ServiceError) -> None:
        """Record a request of a known caller that did not become a call."""
        self._reject(info, error, row=info.caller is not None)

    def anonymous(self, info: RequestInfo, error: ServiceError) -> None:
        """Log and count a request without an identified key. It has no row, or anybody could fill the database."""
        self._reject(info, error, row=False)

    def _reject(self, info: RequestInfo, error: ServiceError, *, row: bool) -> None:
        try:
            started = self.clock() if info.started is None else info.started
            record = Record.of_rejection(
                info,
                error,
                created_at=self.now(),
                status=self.status_of(info.format, error),
                latency_ms=milliseconds(self.clock() - started),
                prompt_hmac=None if info.call is None else self.prompt_hmac(info.call),
                client_ip_hmac=self.ip_hmac(info.client_ip),
            )
        except Exception as failure:  # noqa: BLE001 - the caller gets the rejection, not our defect
            self.failed(failure)
        else:
            self.keep(record, error, row=row)

    def keep(self, record: Record, error: BaseException | None, *, row: bool = True) -> None:
        """Hand ``record`` on. Each part is guarded by itself: a defect in one must not cost the others."""
        if row:
            self.guarded(self._put, record)
        self.guarded(self.telemetry.record, record)
        if calls_log.isEnabledFor(logging.INFO):
            self.guarded(_log_call, record, error)

    def guarded(self, do: Callable[..., None], *args: Any) -> None:
        """Call ``do``; if it raises, report that and go on."""
        try:
            do(*args)
        except Exception as failure:  # noqa: BLE001 - it must not end the call
            self.failed(failure)

    def _put(self, record: Record) -> None:
        self._writer.put(record.row())
        # The writer counts rows that it gave up later, too.
        dropped = self._writer.dropped
        if dropped > self._dropped:
            self.telemetry.rows_dropped(dropped - self._dropped)
        self._dropped = dropped

    def failed(self, failure: BaseException) -> None:
        """Report a defect of ours while recording."""
        log.error("a call could not be recorded in full", extra={"fields": scrub.safe_exception(failure)})
        with suppress(Exception):  # the metrics may be what fails: their files are on a disk
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
