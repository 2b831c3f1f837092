"""From the events of a call to an HTTP reply: one path for every format, streamed or not.

The first event is taken before the response is built, so a rejection and an upstream
failure still have their HTTP status. After it a failure is an event in the caller's
format, and the stream ends without its terminal event.

If the first event does not come within the keep-alive time, the stream begins without
it (status 200 and a comment), because proxies in front would close an idle connection.
From then on a failure is an event of the stream, but routing may still change the
target.
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
    TargetRefused,
)
from llm_service.core.headers import STOPPED
from llm_service.formats import registry
from llm_service.observability import scrub
from llm_service.service import Service, current

log = logging.getLogger(__name__)

# Nothing is sent for these events, so a stream does not begin with them.
_UNSEEN = frozenset({Attempt, TargetRefused, DiscardedAnswer, Idle, HeldBack})

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
        if isinstance(error, (BudgetExceeded, RateLimited, Unavailable)):  # the ledger did not admit the call
            limits.undo()
        raise
    exchange.end()
    body = registry.format_of(call).write_answer(call, answer)
    return Response(
        orjson.dumps(body),
        content_type="application/json",
        headers=_headers(answer, tightest),
    )


class _Exchange:
    """What lasts as long as the reply: the watch on the client's connection and the entry among the live calls."""

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


def _headers(answer: Answer | Started | None, tightest: Limit | None = None) -> dict[str, str]:
    smallest = limits.tightest(g.get("tightest"), tightest)
    headers = {} if smallest is None else limits.headers(smallest)
    if answer is None:
        return headers
    headers |= answer.headers
    dropped = (*answer.dropped, *(name for name in STOPPED if name in request.headers))
    if dropped:
        headers["X-Dropped-Parameters"] = ", ".join(dropped)
    if answer.upstream_request_id:
        headers["X-Upstream-Request-Id"] = answer.upstream_request_id
    return headers


def _streamed(call: Call, events: Iterator[Event], exchange: _Exchange) -> Response:
    first = _First(events)
    keep_alive = current().settings.keep_alive
    if first.wait(keep_alive):
        event = first.result()
        headers = _headers(event if type(event) is Started else None, first.tightest)
    else:
        headers = _headers(None, first.tightest)
    body = _stream_bytes(call, first, events, keep_alive)
    return Response(
        _Body(body, events, exchange, first), headers={**STREAM_HEADERS, **headers}, direct_passthrough=True
    )


def _stream_bytes(call: Call, first: _First, events: Iterator[Event], keep_alive: float) -> Iterator[bytes]:
    """The bytes of a stream. It runs outside the application's context, so all that it needs are arguments."""
    format = registry.format_of(call)
    encoder, idle = format.StreamEncoder(call), format.KEEP_ALIVE
    try:
        while not first.wait(keep_alive):
            yield idle
        event: Event | None = first.result()
        while event is not None:
            data = idle if event is IDLE else encoder.feed(event)
            if data:
                yield data
            event = next(events, None)
    except ClientClosed:
        return
    except ServiceError as error:
        yield encoder.error(error, call.request_id)
    except Exception as error:  # noqa: BLE001 - it becomes an event of the stream; WSGI would only cut the stream off
        log.error("stream failed", extra={"fields": {"request_id": call.request_id, **scrub.safe_exception(error)}})
        yield encoder.error(InternalError("The service failed."), call.request_id)


class _Body:
    """The body that WSGI gets. ``close`` ends the call, even if WSGI never asked for a byte."""

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
    """The first event of a stream, fetched in a greenlet of its own, so that the request's can wait and stop waiting.

    Only the first event needs this. After it the request's own greenlet runs the iterator.
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
        """Called when the reply ends. If the event is still being fetched, cancel that and wait for its end.

        Otherwise two greenlets would run one iterator.
        """
        if not self._done.is_set():
            cancel.set(ClientClosed("The client closed the connection."))
            self._done.wait(30)


def _spawn(run: Callable[[], None]) -> None:
    if _hub() is not None:
        import gevent

        gevent.spawn(run)
    else:
        threading.Thread(target=run, daemon=True).start()
