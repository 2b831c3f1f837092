"""One call's record in the making: how the call ended, and what its row says of it.

The tests are named after the lines of this table.

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
was ``DiscardedAnswer`` is known, and is added. ``provider`` and
``model_served`` are the last attempt's when nobody answered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from llm_service.core.call import Call
from llm_service.core.errors import (
    ClientClosed,
    InternalError,
    Rejected,
    ServiceError,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
)
from llm_service.core.events import Answer, Attempt, DiscardedAnswer, Event, Finished, HeldBack, Started, characters_in
from llm_service.core.identifiers import loggable
from llm_service.core.target import Price
from llm_service.core.usage import Usage
from llm_service.observability import scrub
from llm_service.observability.record import Record

if TYPE_CHECKING:
    from llm_service.observability.journal import Journal

CHARACTERS_PER_TOKEN = 4
# What fits a signed 64-bit column: token counts are a vendor's claim.
_MAX_COUNT = 2**63 - 1


class Entry:
    """One call's record in the making. Used by one greenlet at a time."""

    __slots__ = (
        "_answer",
        "_attempt",
        "_attempts",
        "_call",
        "_characters",
        "_discarded",
        "_ended",
        "_first_text_at",
        "_journal",
        "_settle",
        "_start",
        "_started",
        "_withheld",
        "created_at",
    )

    def __init__(self, journal: Journal, call: Call, started: float) -> None:
        self._journal, self._call, self._started = journal, call, started
        self.created_at = journal.now()
        self._settle: Callable[[Record], Record | None] | None = None
        self._ended = False
        self._attempts = 0
        self._attempt: Attempt | None = None
        self._start: Started | None = None
        self._first_text_at: float | None = None
        self._characters = 0
        self._withheld = 0
        self._answer: Answer | None = None
        self._discarded = DiscardedAnswer(Usage(), 0)

    def __enter__(self) -> Entry:
        if self._call.stream:
            self._journal.guarded(self._journal.telemetry.stream_opened)
        return self

    def see(self, event: Event) -> None:
        """Take note of ``event``. A stream's chunks pass here one by one: the frequent ones come first."""
        characters = characters_in(event)
        if characters is None:
            self._see_rare(event)
        elif characters:
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
            self._end(None)
        elif isinstance(event, HeldBack):
            self._withheld += event.characters
        elif isinstance(event, DiscardedAnswer):
            self._discarded = self._discarded.plus(event.usage, event.cost_nanousd)
            self._withheld = 0  # it is in the usage

    def settle_with(self, settle: Callable[[Record], Record | None]) -> None:
        """The call is held. ``settle`` gives the record as its row must say it, None if the row is not ours."""
        self._settle = settle

    def output_tokens_seen(self) -> int:
        """Estimated from what has been generated so far; what was withheld may have been sent since."""
        return -(-max(self._characters, self._withheld) // CHARACTERS_PER_TOKEN)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._call.stream:
            self._journal.guarded(self._journal.telemetry.stream_closed)
        if not self._ended:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """At ``Finished``, before it is passed on: who has the whole answer may make the next call at once, and what
        this one held must be free by then."""
        self._ended, journal = True, self._journal
        try:
            record = self._record(error)
        except Exception as failure:  # noqa: BLE001 - the call's own end must not change
            journal.failed(failure)
            return
        ours: Record | None = record
        if self._settle is not None:
            try:
                ours = self._settle(record)
            except Exception as failure:  # noqa: BLE001 - the row is kept, and the lease ends by itself
                journal.failed(failure)
        journal.keep(ours or record, error, row=ours is not None)

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
            created_at=self.created_at,
            key_id=caller.key_id,
            org=caller.org,
            user=caller.user,
            route=call.route,
            dialect=call.format,
            stream=call.stream,
            model_asked=loggable(call.model),
            provider=provider or (attempt.provider if attempt else None),
            model_served=loggable(model or (attempt.model if attempt else None)),
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
            latency_ms=milliseconds(ended_at - self._started),
            ttft_ms=None if first_text_at is None else milliseconds(first_text_at - self._started),
            prompt_hmac=journal.prompt_hmac(call),
            request_id=loggable(call.request_id),
            upstream_request_id=loggable(request_id),
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
        status = 200 if self._has_begun() else self._journal.status_of(self._call.format, known)
        return known.outcome, status, loggable(known.code)

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
        output = self.output_tokens_seen()
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
    return isinstance(error, Rejected) and error.outcome == Rejected.outcome


def milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _count(number: int) -> int:
    return min(max(0, number), _MAX_COUNT)
