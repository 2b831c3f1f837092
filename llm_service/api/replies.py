"""From a call's events to an HTTP reply: one path for every format, plain or streamed.

The first event is taken before the response is built, so a refusal and an
upstream failure still have their status; after it a failure is an event in the
caller's format and the stream ends without its terminal mark.

A stream whose first event does not come within the keep-alive time is committed
to (200 and a comment), or proxies in front would give the connection up. From
then on a failure is in-band, though routing may still change the target.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import orjson
from flask import Response, g, request

from llm_service.api import limits
from llm_service.api.disconnect import Watch, _hub
from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import (
    BudgetExceeded,
    ClientClosed,
    InternalError,
    Limit,
    RateLimited,
    ServiceError,
    Unavailable,
)
from llm_service.core.events import (
    IDLE,
    Admitted,
    Answer,
    Attempt,
    DiscardedAnswer,
    Event,
    Finished,
    HeldBack,
    Idle,
    Started,
)
from llm_service.core.headers import STOPPED
from llm_service.formats import registry
from llm_service.observability import scrub
from llm_service.service import Service, current

log = logging.getLogger(__name__)

# Nothing is sent for these, so a stream has not begun with them.
_UNSEEN = frozenset({Attempt, DiscardedAnswer, Idle, HeldBack})

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


def respond(call: Call) -> Response:
    """Answer ``call``. Raises ``ServiceError`` before anything is sent."""
    limits.count_model(call)
    service = current()
    cancel = Cancel()
    exchange = _Exchange(service, cancel, Watch(request, cancel, service.settings.send_timeout))
    g.request_info.journaled = True  # from here on the call's recorder writes its row
    try:
        events = service.gateway.answer(call, cancel)
        if call.stream:
            return _streamed(call, events, exchange)
        answer, tightest = _plain(events)
    except BaseException as error:
        exchange.end()
        if isinstance(error, (BudgetExceeded, RateLimited, Unavailable)):  # the ledger's: it was no request then
            limits.give_back()
        raise
    exchange.end()
    body = registry.format_of(call).write_answer(call, answer)
    return Response(
        orjson.dumps(body),
        content_type="application/json",
        headers=_headers(answer, tightest),
    )


class _Exchange:
    """What lasts as long as the reply: the watch on the client and the place among the live calls."""

    __slots__ = ("_cancel", "_service", "_watch")

    def __init__(self, service: Service, cancel: Cancel, watch: Watch) -> None:
        self._service, self._cancel, self._watch = service, cancel, watch
        service.enter(cancel)

    def end(self) -> None:
        self._watch.stop()
        self._service.leave(self._cancel)


def _plain(events: Iterator[Event]) -> tuple[Answer, Limit | None]:
    answer, tightest = None, None
    for event in events:  # to the end: the call's recorder closes after the last event
        if type(event) is Finished:
            answer = event.answer
        elif type(event) is Admitted:
            tightest = event.tightest
    assert answer is not None, "every answer ends with Finished"
    return answer, tightest


def _headers(told: Answer | Started | None, tightest: Limit | None = None) -> dict[str, str]:
    smallest = limits.tightest(g.get("tightest"), tightest)
    headers = {} if smallest is None else limits.headers(smallest)
    if told is None:
        return headers
    headers |= told.headers
    dropped = (*told.dropped, *(name for name in STOPPED if name in request.headers))
    if dropped:
        headers["X-Dropped-Parameters"] = ", ".join(dropped)
    if told.upstream_request_id:
        headers["X-Upstream-Request-Id"] = told.upstream_request_id
    return headers


def _streamed(call: Call, events: Iterator[Event], exchange: _Exchange) -> Response:
    first = _First(events)
    keep_alive = current().settings.keep_alive
    if first.wait(keep_alive):
        event = first.result()
        headers = _headers(event if type(event) is Started else None, first.tightest)
    else:
        headers = _headers(None, first.tightest)
    body = _frames(call, first, events, keep_alive)
    return Response(
        _Body(body, events, exchange, first), headers={**STREAM_HEADERS, **headers}, direct_passthrough=True
    )


def _frames(call: Call, first: _First, events: Iterator[Event], keep_alive: float) -> Iterator[bytes]:
    """The stream's bytes. Runs outside the application's context: everything it needs is given."""
    format = registry.format_of(call)
    frames, silence = format.StreamEncoder(call), format.KEEP_ALIVE
    try:
        while not first.wait(keep_alive):
            yield silence
        event: Event | None = first.result()
        while event is not None:
            data = silence if event is IDLE else frames.feed(event)
            if data:
                yield data
            event = next(events, None)
    except ClientClosed:
        return
    except ServiceError as error:
        yield frames.error(error, call.request_id)
    except Exception as error:  # noqa: BLE001 - told in-band; an exception of WSGI would cut the stream
        log.error("stream failed", extra={"fields": {"request_id": call.request_id, **scrub.safe_exception(error)}})
        yield frames.error(InternalError("The service failed."), call.request_id)


class _Body:
    """What WSGI gets. ``close`` ends the call, also when no byte was ever asked for."""

    def __init__(self, body: Iterator[bytes], events: Iterator[Event], exchange: _Exchange, first: _First) -> None:
        self._body, self._events, self._exchange, self._first = body, events, exchange, first

    def __iter__(self) -> Iterator[bytes]:
        return self._body

    def close(self) -> None:
        self._first.abandon(self._exchange._cancel)
        self._body.close()  # type: ignore[attr-defined]
        self._events.close()  # type: ignore[attr-defined]
        self._exchange.end()


class _First:
    """The first event of a stream, fetched beside the request's greenlet so that it can be waited for in turns.

    Only the waiting needs this: after the first event the request's own greenlet runs the iterator.
    """

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._event: Event | None = None
        self._error: BaseException | None = None
        self.tightest: Limit | None = None
        self._done = threading.Event()
        _spawn(self._fetch)

    def _fetch(self) -> None:
        try:
            for event in self._events:
                if type(event) is Admitted:
                    self.tightest = event.tightest
                elif type(event) not in _UNSEEN:
                    self._event = event
                    break
        except BaseException as error:  # noqa: BLE001 - raised again where the first event is taken
            self._error = error
        finally:
            self._done.set()

    def wait(self, seconds: float) -> bool:
        return self._done.wait(seconds)

    def result(self) -> Event | None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._event

    def abandon(self, cancel: Cancel) -> None:
        """The reply is over; if the fetching is not, end it and wait, as one iterator has one runner."""
        if not self._done.is_set():
            cancel.set(ClientClosed("The client closed the connection."))
            self._done.wait(30)


def _spawn(run: Callable[[], None]) -> None:
    if _hub() is not None:
        import gevent

        gevent.spawn(run)
    else:
        threading.Thread(target=run, daemon=True).start()
