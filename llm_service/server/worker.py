"""gunicorn's gevent worker with an orderly end.

It overrides ``init_signals``, ``run``, ``notify``, ``handle``, ``handle_request`` and ``handle_error``.
These are the differences from the worker of gunicorn 26.2:

* gunicorn waits for idle keep-alive connections, up to ``keepalive`` seconds each. This worker
  closes them at once.
* gunicorn's worker would end its handlers only at ``graceful_timeout``, but then the arbiter sends
  SIGKILL, so the ``finally`` of a long stream never runs. This worker ends a stream in-band before
  that (``Service.drain``) and waits for its handler to end.
* With SIGINT, or if the arbiter is killed, gunicorn's worker ends in the middle of calls. Here the
  calls have a second to end.
* gunicorn's worker notices a signal within a second, this one at once.
* A client that always has the next request ready blocks all other connections of gunicorn's worker.
  Here the connections take turns.
* gunicorn writes parts of a malformed request to the log and into the reply. They may contain a key,
  so this worker does not.

Only gunicorn imports this module, after ``gunicorn.conf.py`` has applied gevent's monkey-patches.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import time
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.http import errors
from gunicorn.sock import ssl_context
from gunicorn.workers.base import Worker as BaseWorker
from gunicorn.workers.ggevent import GeventWorker

from llm_service.core import ids
from llm_service.server import embedded_redis
from llm_service.server.embedded_redis import Embedded, EmbeddedRedisError
from llm_service.settings import MEBIBYTE, Settings

log = logging.getLogger(__name__)

# Seconds. On Ctrl-C after SIGTERM gunicorn grants 2.0, so the sum of both must stay below that.
QUICK_CALLS, QUICK_CLOSE = 1.2, 0.6
# Seconds before gunicorn's SIGKILL: calls are ended at 5, the worker waits for them until 3, and the log is written
# until 1.
DRAIN_MARGIN, CALLS_MARGIN, CLOSE_MARGIN = 5.0, 3.0, 1.0

# Seconds. Measured on /health with 16 connections and one worker: p99 is 8-19 ms with it and 47-124 ms without, at the
# same requests/s.
MAX_ROUND = 0.002
# Limits of an unread body: a little more than twice the largest body that is accepted by default.
DISCARD_BYTES, DISCARD_SECONDS = 80 * MEBIBYTE, 10.0

STATUS = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}


class Service(Protocol):
    """What the worker uses of ``app.extensions["llm_service"]``."""

    settings: Settings

    def start(self) -> None:
        """Start after the fork, so that calls of dead workers are settled even if no new call comes."""

    def drain(self, seconds: float) -> None:
        """Admit no more calls, wait ``seconds``, then end running calls in-band. May be called again with fewer."""

    def close(self, deadline: float) -> int:
        """Write the log rows within ``deadline`` seconds. Return how many were not written; they are logged."""


class Worker(GeventWorker):  # type: ignore[misc]
    """Serves until a signal comes, then ends its calls within the time that the signal leaves."""

    inherited: Any = None  # the arbiter's signal queue, copied by the fork
    embedded: Embedded | None = None  # the embedded Redis, if this worker had to start it

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: set[socket.socket] = set()
        self._woken = Event()
        self._pools: list[Pool] = []
        self._round, self._round_began = -1, 0.0
        self._watchers: list[Any] = []
        self._calls_until = self.close_by = float("inf")

    @property
    def service(self) -> Service:
        service: Service = self.wsgi.extensions["llm_service"]
        return service

    # Signals

    def init_signals(self) -> None:
        super().init_signals()
        # These are watchers of gevent's loop: a handler of Python's would wait for the loop's next iteration.
        # The list keeps them from being garbage-collected.
        self._watchers = [
            gevent.signal_handler(signal.SIGTERM, self.end),
            gevent.signal_handler(signal.SIGINT, self.end, quick=True),
            gevent.signal_handler(signal.SIGQUIT, self.end, quick=True),
        ]

    def end(self, quick: bool = False) -> None:
        """Begin the end, or make it come sooner. It never delays an end that has begun."""
        now = time.monotonic()
        drain_seconds = 0.0 if quick else self.cfg.graceful_timeout - DRAIN_MARGIN
        if quick:
            calls, close = now + QUICK_CALLS, now + QUICK_CALLS + QUICK_CLOSE
        else:
            calls = now + self.cfg.graceful_timeout - CALLS_MARGIN
            close = now + self.cfg.graceful_timeout - CLOSE_MARGIN
        if calls < self._calls_until:
            self._calls_until, self.close_by = calls, close
            gevent.spawn(self.service.drain, drain_seconds)
        self.alive = False
        self._woken.set()

    def _handle_early_signals(self) -> None:
        """Handle signals from between the fork and ``init_signals``: the copied handler of the arbiter queued them."""
        while self.inherited is not None:
            try:
                number = self.inherited.get_nowait()
            except queue.Empty:
                return
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                self.end(quick=number != signal.SIGTERM)

    # The main greenlet

    def run(self) -> None:
        self.service.start()
        servers = [self._serve(listener) for listener in self.sockets]
        self._handle_early_signals()
        while self.alive:
            self.notify()
            self._woken.wait(1.0)
        for server in servers:
            server.close()  # closes the listening socket; connections stay open
        for connection in tuple(self._idle):
            _end_of_input(connection)
        while self._busy() and time.monotonic() < self._calls_until:
            self.notify()
            gevent.sleep(0.02)
        if self._busy():
            log.warning("%d busy connections were closed when the worker ended", self._busy())

    def finish(self) -> None:
        """Clean up at the end of the process, after ``run`` or after an error in it."""
        for watcher in self._watchers:
            watcher.cancel()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # another signal would interrupt what follows
        if self.booted:
            self.service.close(max(QUICK_CLOSE, min(self.close_by - time.monotonic(), CALLS_MARGIN)))
        if self.embedded is not None:
            self.embedded.stop()

    def _serve(self, listener: socket.socket) -> StreamServer:
        listener.setblocking(True)
        pool = Pool(self.worker_connections)
        tls = {"ssl_context": ssl_context(self.cfg)} if self.cfg.is_ssl else {}
        server = StreamServer(listener, handle=partial(self.handle, listener), spawn=pool, **tls)
        if self.cfg.workers > 1:
            server.max_accept = 1  # otherwise one worker accepts connections that another could serve now
        server.start()
        self._pools.append(pool)
        return server

    def _busy(self) -> int:
        return sum(pool.size - pool.free_count() for pool in self._pools)

    def notify(self) -> None:
        """Send the heartbeat. It is called once a second."""
        BaseWorker.notify(self)
        if self.ppid != os.getppid():
            if self.alive:
                log.error("The arbiter has ended, so this worker ends too")
            self.end(quick=True)
        elif self.alive and self.service.settings.redis_url is None:
            self._restart_redis_if_down()

    def _restart_redis_if_down(self) -> None:
        """Restart the embedded server if it died, or ended with the arbiter of another service."""
        try:
            started = embedded_redis.tend(self.service.settings.instance_path)
        except EmbeddedRedisError as error:
            log.error("%s", error)
            return
        if started is not None:
            self.embedded = started
            log.warning("Embedded Redis was down and has been restarted")

    # Connections

    def handle(self, listener: socket.socket, client: socket.socket, addr: Any) -> None:
        self._idle.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self._idle.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> None:
        self._idle.discard(sock)
        # This limits one read of the body or one write of the reply. `keepalive` limits the wait for the next request.
        sock.settimeout(self.service.settings.send_timeout)
        try:
            super().handle_request(listener_name, req, sock, addr)
            _discard_body(req)
            self._yield_if_due()
        except TimeoutError:
            raise StopIteration from None  # the client neither reads nor disconnects; gunicorn would log a traceback
        finally:
            sock.settimeout(None)
            if self.alive:
                self._idle.add(sock)
            else:
                _end_of_input(sock)

    def _yield_if_due(self) -> None:
        """Let gevent's loop run if requests have kept it from running for longer than ``MAX_ROUND``.

        A socket that always has the next request ready is read without returning to the loop. The other connections,
        the heartbeat and the signals would wait for that client.
        """
        current, now = gevent.get_hub().loop.iteration, time.monotonic()
        if current != self._round:
            self._round, self._round_began = current, now
        elif now - self._round_began > MAX_ROUND:
            gevent.sleep(0)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer after malformed HTTP or a defect. Neither the log nor the reply contains parts of the request."""
        if isinstance(exc, errors.ParseException):
            status = next((STATUS[kind] for kind in STATUS if isinstance(exc, kind)), HTTPStatus.BAD_REQUEST)
            log.info("Malformed HTTP request rejected: %s", type(exc).__name__)
        else:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            log.error("Request failed outside the application: %s%s", type(exc).__name__, _location(exc))
        with suppress(OSError):  # the client has disconnected
            client.settimeout(1.0)
            client.sendall(_problem(status))


def _discard_body(req: Any) -> None:
    """Read the rest of a rejected body, so that its sender can go on to read the reply.

    gunicorn would do that without a limit and, if the sender is fast, without yielding to other calls.

    Raises:
        StopIteration: the rest is too large; the connection is not used again.
    """
    deadline = time.monotonic() + DISCARD_SECONDS
    left = DISCARD_BYTES
    try:
        while data := req.body.reader.read(min(left, 65536)):
            left -= len(data)
            gevent.sleep(0)
            if left <= 0 or time.monotonic() > deadline:
                raise StopIteration
    except (OSError, errors.ParseException):  # ParseException: malformed chunks
        raise StopIteration from None


def _end_of_input(connection: socket.socket) -> None:
    """Stop receiving. What the kernel has already received is still served; then reads see the end of the input."""
    with suppress(OSError):  # it is already closed
        connection.shutdown(socket.SHUT_RD)


def _problem(status: HTTPStatus) -> bytes:
    body = b'{"type":"about:blank","title":"%s","status":%d}' % (status.phrase.encode(), status)
    head = (
        f"HTTP/1.1 {status:d} {status.phrase}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nX-Request-Id: {ids.new_id()}\r\n\r\n"
    )
    return head.encode() + body


def _location(error: BaseException) -> str:
    """Return the file and line where the error was raised, without any values."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" at {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else ""
