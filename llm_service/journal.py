"""One ``Record`` per call: a row of the request log, a log line and the metrics.

``with journal.entry(call) as entry`` stands around the events of a call; however
they end, ``__exit__`` decides once what is kept. Nothing here raises into the
call: a defect is logged by its type, counted, and costs the least possible.

How it ended, and what is kept (the tests are named after the rows):

| ended with | outcome | status | tokens | exact | cost |
|---|---|---|---|---|---|
| Finished, whatever came after it | ok | 200 | the answer's | as counted | the answer's |
| a failure before any upstream was asked | the error's | the error's | 0 | yes | 0 |
| an error status of the vendor, or no connection | upstream_error, timeout | the error's | 0 | yes | 0: not billed |
| a time-out | timeout | 504 | estimated | no | of the estimate |
| an answer that broke off, or was none | upstream_error | 502 | estimated | no | of the estimate |
| any failure after a stream has begun | the error's | 200: was sent | estimated | no | of the estimate |
| the caller left (GeneratorExit, ClientClosed) | client_closed | 499 | estimated | no | of the estimate |
| JSON that nothing could mend | upstream_error | 502 | of all its answers | as counted | of all |
| any other exception, or no Finished | aborted | 500, 200 in a stream | estimated | no | of the estimate |
| refused before it was a call | refused, mostly | the error's | 0 | yes | 0 |

Estimated: the output at four characters a token; the input as the vendor's
stream told it at its start, else at four bytes of the request a token, data such
as images left out. Zero, exact and free if no upstream was asked, or only to count. A cost whose
price is unknown is None, never 0.

The last attempt decides: attempts before it are counted in ``attempts`` only, as
what a vendor bills for an answer it never gave is not known. A whole answer that
was ``Discarded`` is known, and is added. ``provider`` and
``model_served`` are the last attempt's when nobody answered.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol

from llm_service import scrub
from llm_service.conversation import (
    Answer,
    Attempt,
    Call,
    Caller,
    Delta,
    Discarded,
    Event,
    Finished,
    RefusalDelta,
    Relay,
    Started,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from llm_service.errors import (
    ClientClosed,
    InternalError,
    Refusal,
    ServiceError,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
)
from llm_service.prices import Price
from llm_service.record import Record, canonical
from llm_service.telemetry import Telemetry

CHARACTERS_PER_TOKEN = 4
# What fits a signed 64-bit column: token counts are a vendor's claim.
_MAX_COUNT = 2**63 - 1

log = logging.getLogger(__name__)
calls_log = logging.getLogger("llm_service.calls")


class Writer(Protocol):
    """What the journal needs of ``store.writer.Writer``: ``put`` neither blocks nor raises."""

    @property
    def dropped(self) -> int: ...

    def put(self, row: Mapping[str, Any]) -> bool: ...


@dataclass(slots=True)
class Arrival:
    """A request on its way to become a call; the edge fills it in as it reads.

    ``started`` is of the journal's clock. ``caller`` stays None without a valid
    key; ``journaled`` is the edge's note that this request has its record.
    """

    id: str
    request_id: str
    route: str
    dialect: str
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
        telemetry: Telemetry,
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

    def refused(self, arrival: Arrival, error: ServiceError) -> None:
        """Record a request of a known caller that did not become a call."""
        self._refused(arrival, error, keep=arrival.caller is not None)

    def anonymous(self, arrival: Arrival, error: ServiceError) -> None:
        """Log and count a request without an identified key; no row, or anybody could fill the database."""
        self._refused(arrival, error, keep=False)

    def _refused(self, arrival: Arrival, error: ServiceError, *, keep: bool) -> None:
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
                dialect=arrival.dialect,
                stream=arrival.stream,
                model_asked=scrub.identifier(arrival.model_asked),
                status=self.status_of(arrival.dialect, error),
                outcome=error.outcome,
                error_type=scrub.identifier(error.code),
                cost_nanousd=0,
                latency_ms=_milliseconds(self.clock() - started),
                request_id=scrub.identifier(arrival.request_id),
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


class Entry:
    """One call's record in the making. Used by one greenlet at a time."""

    __slots__ = (
        "_answer",
        "_attempt",
        "_attempts",
        "_call",
        "_characters",
        "_created_at",
        "_discarded",
        "_first_text_at",
        "_journal",
        "_start",
        "_started",
    )

    def __init__(self, journal: Journal, call: Call, started: float) -> None:
        self._journal, self._call, self._started = journal, call, started
        self._created_at = journal.now()
        self._attempts = 0
        self._attempt: Attempt | None = None
        self._start: Started | None = None
        self._first_text_at: float | None = None
        self._characters = 0
        self._answer: Answer | None = None
        self._discarded = Discarded(Usage(), 0)

    def __enter__(self) -> Entry:
        if self._call.stream:
            self._journal.guarded(self._journal.telemetry.stream_opened)
        return self

    def see(self, event: Event) -> None:
        """Take note of ``event``. A stream's chunks pass here one by one: the frequent ones come first."""
        if type(event) is Relay:
            characters = event.characters
        elif type(event) is Delta:
            characters = len(event.text)
        elif type(event) is ToolCallDelta:
            characters = len(event.arguments)
        elif type(event) is ThinkingDelta or type(event) is RefusalDelta:
            characters = len(event.text)
        else:
            self._see_rare(event)
            return
        if characters:
            if not self._characters:
                self._first_text_at = self._journal.clock()
            self._characters += characters

    def _see_rare(self, event: Event) -> None:
        if isinstance(event, Attempt):
            self._attempts += 1
            self._attempt = event
            self._journal.guarded(self._journal.telemetry.attempt, event.provider)
        elif isinstance(event, Started):
            self._start = event
        elif isinstance(event, Finished):
            self._answer = event.answer
        elif isinstance(event, Discarded):
            self._discarded = self._discarded.plus(event.usage, event.cost_nanousd)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        journal = self._journal
        if self._call.stream:
            journal.guarded(journal.telemetry.stream_closed)
        try:
            record = self._record(error)
        except Exception as failure:  # noqa: BLE001 - the call's own end must not change
            journal.failed(failure)
        else:
            journal.keep(record, error if self._answer is None else None)

    def _record(self, error: BaseException | None) -> Record:
        call, caller, journal = self._call, self._call.caller, self._journal
        ended_at = journal.clock()
        outcome, status, error_type = self._ending(error)
        usage, cost = self._spent(error)
        answer, attempt, start = self._answer, self._attempt, self._start
        provider = answer.provider if answer else ""
        model = answer.model if answer else start.model if start else ""
        request_id = answer.upstream_request_id if answer else start.upstream_request_id if start else None
        if request_id is None and isinstance(error, ServiceError):
            request_id = error.vendor.get("request_id")
        first_text_at = self._first_text_at
        return Record(
            id=call.id,
            created_at=self._created_at,
            key_id=caller.key_id,
            org=caller.org,
            user=caller.user,
            route=call.route,
            dialect=call.dialect,
            stream=call.stream,
            model_asked=scrub.identifier(call.model),
            provider=provider or (attempt.provider if attempt else None),
            model_served=scrub.identifier(model or (attempt.model if attempt else None)),
            attempts=self._attempts,
            status=status,
            outcome=outcome,
            error_type=error_type,
            input_tokens=_count(usage.input_tokens),
            output_tokens=_count(usage.output_tokens),
            cached_tokens=_count(usage.cached_tokens),
            cache_write_tokens=_count(usage.cache_write_tokens),
            reasoning_tokens=_count(usage.reasoning_tokens),
            usage_exact=usage.exact,
            cost_nanousd=None if cost is None else _count(cost),
            latency_ms=_milliseconds(ended_at - self._started),
            ttft_ms=None if first_text_at is None else _milliseconds(first_text_at - self._started),
            prompt_hmac=journal.prompt_hmac(call),
            request_id=scrub.identifier(call.request_id),
            upstream_request_id=scrub.identifier(request_id),
            client_ip_hmac=journal.ip_hmac(call.client_ip),
        )

    def _has_begun(self) -> bool:
        """Whether a stream's status, 200, had been sent."""
        return self._call.stream and (self._start is not None or self._characters > 0)

    def _ending(self, error: BaseException | None) -> tuple[str, int, str | None]:
        """Outcome, status and error type."""
        if self._answer is not None:
            return "ok", 200, None
        if isinstance(error, (GeneratorExit, ClientClosed)):
            return ClientClosed.outcome, ClientClosed.status, ClientClosed.code
        known = error if isinstance(error, ServiceError) else InternalError("")
        status = 200 if self._has_begun() else self._journal.status_of(self._call.dialect, known)
        return known.outcome, status, scrub.identifier(known.code)

    def _spent(self, error: BaseException | None) -> tuple[Usage, int | None]:
        """Usage and cost in nano-dollars."""
        if self._answer is not None:
            return self._answer.usage, self._answer.cost_nanousd
        if self._attempt is None or self._call.kind == "count" or (not self._has_begun() and _was_not_billed(error)):
            spent = self._discarded
        else:
            usage = self._estimate()
            spent = self._discarded.plus(usage, self._cost(self._attempt.price, usage))
        return spent.usage, spent.cost_nanousd

    def _estimate(self) -> Usage:
        output = -(-self._characters // CHARACTERS_PER_TOKEN)
        told = self._start.usage if self._start else None
        if told is None:
            text = self._call.body_bytes - scrub.data_characters(self._call.body)
            return Usage(max(0, -(-text // CHARACTERS_PER_TOKEN)), output, exact=False)
        return replace(told, output_tokens=max(output, told.output_tokens), exact=False)

    def _cost(self, price: Price | None, usage: Usage) -> int | None:
        try:
            return None if price is None else price.cost(usage, at=self._call.created or None)
        except Exception as failure:  # noqa: BLE001 - an unknown cost, not a lost row
            self._journal.failed(failure)
            return None


def _was_not_billed(error: BaseException | None) -> bool:
    """Whether the vendor refused or was never reached. Of a silence or a broken answer nobody knows."""
    if isinstance(error, UpstreamTimeout):
        return error.vendor.get("status") is not None
    if isinstance(error, UpstreamError):
        return not isinstance(error, UpstreamBroken)
    return isinstance(error, Refusal) and error.outcome == Refusal.outcome


def _log_call(record: Record, error: BaseException | None) -> None:
    fields = record.line()
    if isinstance(error, ServiceError) and error.limit is not None:
        fields["limit"] = f"{error.limit.name}/{error.limit.scope}"
    elif error is not None and record.outcome == "aborted":
        fields["exception"] = scrub.safe_exception(error)
    calls_log.info("call", extra={"fields": fields})


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _count(number: int) -> int:
    return min(max(0, number), _MAX_COUNT)
