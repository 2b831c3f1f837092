"""How a call ended, and what its row says of it.

The tests are named after the rows of this table.

| the call ended with | outcome | status | tokens | exact | cost |
|---|---|---|---|---|---|
| Finished, whatever came after it | ok | 200 | the answer's | as counted | the answer's |
| a failure before any upstream was asked | the error's | the error's | 0 | yes | 0 |
| an error status of the vendor, or no connection | upstream_error, timeout | the error's | 0 | yes | 0: not billed |
| a time-out | timeout | 504 | estimated | no | of the estimate |
| an answer that was cut or malformed | upstream_error | 502 | estimated | no | of the estimate |
| any failure after a stream has begun | the error's | 200: was sent | estimated | no | of the estimate |
| the client disconnected (GeneratorExit, ClientClosed) | client_closed | 499 | estimated | no | of the estimate |
| JSON that could not be repaired | upstream_error | 502 | of all its answers | as counted | of all |
| any other exception, or no Finished | aborted | 500, 200 in a stream | estimated | no | of the estimate |
| a rejection before it was a call | refused, mostly | the error's | 0 | yes | 0 |

What the vendor had reported of a failed answer (``ServiceError.usage``) is billed, even after an error of the vendor.
An estimate counts the output at four characters per token. The input is what the vendor's stream reported at its
start, otherwise four bytes of the request per token, without data such as images. The estimate is zero, exact and
free if no upstream was asked, or if the call only counts tokens. A cost whose price is unknown is None, never 0.

The last attempt decides. Attempts before it are counted in ``attempts`` only, because it is not known what a vendor
bills for an answer that it never gave. A whole answer that was discarded (``DiscardedAnswer``) is known and is added.
If no provider answered, ``provider`` and ``model_served`` are those of the last attempt.
"""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType

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
from llm_service.core.events import (
    Answer,
    Attempt,
    DiscardedAnswer,
    Event,
    Finished,
    HeldBack,
    Started,
    TargetRefused,
    characters_in,
)
from llm_service.core.target import Price
from llm_service.core.usage import Usage
from llm_service.observability import scrub
from llm_service.observability.journal import Journal
from llm_service.observability.record import Record, milliseconds

CHARACTERS_PER_TOKEN = 4


class CallRecorder:
    """Watches the events of one call and writes its record. Used by one greenlet at a time.

    ``with CallRecorder(...)`` stands around the call: whatever its end, the record is written once. Nothing here
    raises into the call.
    """

    __slots__ = (
        "_answer",
        "_attempt",
        "_attempts",
        "_call",
        "_characters",
        "_discarded",
        "_error",
        "_first_text_at",
        "_has_ended",
        "_held_back",
        "_is_ours",
        "_is_written",
        "_journal",
        "_record",
        "_start",
        "_started",
        "created_at",
    )

    def __init__(self, journal: Journal, call: Call) -> None:
        self._journal, self._call = journal, call
        self._started = journal.clock() if call.arrived is None else call.arrived
        self.created_at = journal.now()
        self._attempts = 0
        self._attempt: Attempt | None = None
        self._start: Started | None = None
        self._first_text_at: float | None = None
        self._characters = 0
        self._held_back = 0
        self._answer: Answer | None = None
        self._discarded = DiscardedAnswer(Usage(), 0)
        self._has_ended = self._is_written = False
        self._is_ours = True
        self._error: BaseException | None = None
        self._record: Record | None = None

    def __enter__(self) -> CallRecorder:
        if self._call.stream:
            self._journal.guarded(self._journal.telemetry.stream_opened)
        return self

    def see(self, event: Event) -> None:
        """Take note of ``event``. Every chunk of a stream passes here, so the frequent events come first."""
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
            if self._attempt is not None:
                self._journal.guarded(
                    self._journal.telemetry.target_answered, self._attempt.provider, self._attempt.model
                )
        elif isinstance(event, TargetRefused):
            self._journal.guarded(self._journal.telemetry.target_refused, event.provider, event.model, event.reason)
        elif isinstance(event, HeldBack):
            self._held_back += event.characters
        elif isinstance(event, DiscardedAnswer):
            self._discarded = self._discarded.plus(event.usage, event.cost_nanousd)
            self._held_back = 0  # the usage includes it

    def output_tokens_seen(self) -> int:
        """An estimate from what has been generated so far. Text that was held back may have been sent since."""
        return -(-max(self._characters, self._held_back) // CHARACTERS_PER_TOKEN)

    def end(self, error: BaseException | None = None) -> Record | None:
        """The call has ended, with ``error`` or without. Return its record; None if a defect prevents it.

        The first call decides the record.
        """
        if not self._has_ended:
            self._has_ended, self._error = True, error
            try:
                self._record = self._decide(error)
            except Exception as failure:  # noqa: BLE001 - the call's own end must not change
                self.failed(failure)
        return self._record

    def settled(self, record: Record | None) -> None:
        """Take over the record as the settlement returned it. None: the row of this call is not ours to write."""
        self._is_ours = record is not None
        self._record = record or self._record

    def failed(self, failure: BaseException) -> None:
        """Report a defect of ours that must not change the call's end."""
        self._journal.failed(failure)

    def write(self) -> None:
        """Hand the record on, once, to the row, the log line and the metrics."""
        if self._is_written:
            return
        self._is_written = True
        record = self.end()
        if record is not None:
            self._journal.keep(record, self._error, row=self._is_ours)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._call.stream:
            self._journal.guarded(self._journal.telemetry.stream_closed)
        self.end(error)
        self.write()

    def _decide(self, error: BaseException | None) -> Record:
        call, journal = self._call, self._journal
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
        return Record.of_call(
            call,
            created_at=self.created_at,
            provider=provider or (attempt.provider if attempt else None),
            model_served=model or (attempt.model if attempt else None),
            attempts=self._attempts,
            status=status,
            outcome=outcome,
            error_type=error_type,
            usage=usage,
            cost_nanousd=cost,
            latency_ms=milliseconds(ended_at - self._started),
            ttft_ms=None if first_text_at is None else milliseconds(first_text_at - self._started),
            prompt_hmac=journal.prompt_hmac(call),
            upstream_request_id=request_id,
            client_ip_hmac=journal.ip_hmac(call.client_ip),
        )

    def _has_begun(self) -> bool:
        """Whether a stream's status, 200, was sent already."""
        return self._call.stream and (self._start is not None or self._characters > 0)

    def _ending(self, error: BaseException | None) -> tuple[str, int, str | None]:
        """Outcome, status and error type."""
        if self._answer is not None:
            return "ok", 200, None
        if isinstance(error, (GeneratorExit, ClientClosed)):
            return ClientClosed.outcome, ClientClosed.status, ClientClosed.code
        known = error if isinstance(error, ServiceError) else InternalError("")
        status = 200 if self._has_begun() else self._journal.status_of(self._call.format, known)
        return known.outcome, status, known.code

    def _spent(self, error: BaseException | None) -> tuple[Usage, int | None]:
        """Usage and cost in nano-dollars."""
        if self._answer is not None:
            return self._answer.usage, self._answer.cost_nanousd
        reported = error.usage if isinstance(error, ServiceError) else None
        is_free = reported is None and not self._has_begun() and _was_not_billed(error)
        if self._attempt is None or self._call.kind == "count" or is_free:
            spent = self._discarded
        else:
            usage = self._estimate(reported)
            spent = self._discarded.plus(usage, self._cost(self._attempt.price, usage))
        return spent.usage, spent.cost_nanousd

    def _estimate(self, reported: Usage | None) -> Usage:
        output = self.output_tokens_seen()
        if reported is None and self._start:
            reported = self._start.usage
        if reported is None or not reported.input_tokens:  # some servers report zero at first
            text = self._call.body_bytes - scrub.data_characters(self._call.body)
            reported = replace(reported or Usage(), input_tokens=max(0, -(-text // CHARACTERS_PER_TOKEN)))
        return replace(reported, output_tokens=max(output, reported.output_tokens), exact=False, lost=False)

    def _cost(self, price: Price | None, usage: Usage) -> int | None:
        try:
            return None if price is None else price.cost(usage, at=self._call.created or None)
        except Exception as failure:  # noqa: BLE001 - an unknown cost is better than a lost row
            self.failed(failure)
            return None


def _was_not_billed(error: BaseException | None) -> bool:
    """Whether the vendor rejected the call or was never reached. After a time-out or a cut answer it is not known."""
    if isinstance(error, UpstreamTimeout):
        return error.vendor.get("status") is not None
    if isinstance(error, UpstreamError):
        return not isinstance(error, UpstreamBroken)
    return isinstance(error, Rejected) and error.outcome == Rejected.outcome
