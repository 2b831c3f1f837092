"""gunicorn's gevent worker with an orderly end.

What gunicorn 26.2's own worker does at the end, and this one instead (its ``run``, ``notify``,
``handle`` and ``handle_error`` are overridden, nothing else):

* It waits for idle keep-alive connections, up to ``keepalive`` seconds each. Here they end at once.
* At ``graceful_timeout`` the arbiter sends SIGKILL, and only then would it end its handlers: the
  ``finally`` of a long stream never runs. Here a stream is ended in-band before that
  (``Service.drain``), and the end of its handler is waited for.
* SIGINT, and a killed arbiter, end it in the middle of calls. Here these have a second to end.
* It notices a signal within a second. Here at once.
* A connection that never waits keeps it from all others. Here it takes turns.
* It writes pieces of a malformed request to the log and into the reply: there may be a key in it.

Only gunicorn imports this module, after ``gunicorn.conf.py`` has monkey-patched.
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

# Seconds. What gunicorn grants on Ctrl-C after SIGTERM is 2.0, so both together stay below it.
QUICK_CALLS, QUICK_CLOSE = 1.2, 0.6
# Before gunicorn's SIGKILL: calls are ended 5 s, waited for until 3 s, the log is written until 1 s.
DRAIN_MARGIN, CALLS_MARGIN, CLOSE_MARGIN = 5.0, 3.0, 1.0

# Measured on /health, 16 connections, one worker: p99 8-19 ms with it, 47-124 ms without; no cost in requests/s.
LONGEST_ROUND = 0.002
# Of an unread body: a little over twice the largest that is served by default.
DISCARD_BYTES, DISCARD_SECONDS = 80 * MEBIBYTE, 10.0

STATUS = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}


class Service(Protocol):
    """What the worker needs of ``app.extensions["llm_service"]``."""

    settings: Settings

    def start(self) -> None:
        """After the fork: calls of workers that died are settled even if nobody calls."""

    def drain(self, seconds: float) -> None:
        """Admit nothing more; wait; end what is live after ``seconds`` in-band. May be called again with fewer."""

    def close(self, deadline: float) -> int:
        """Write the log rows, within ``deadline`` seconds; how many were not written (and logged as such)."""


class Worker(GeventWorker):  # type: ignore[misc]
    """Serves until a signal, then ends the calls it has, within the time that signal leaves."""

    inherited: Any = None  # the arbiter's queue of signals, copied by the fork
    embedded: Embedded | None = None  # an embedded Redis that this worker had to start

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
        # The loop's own watchers: a Python-level handler would wait for the loop to come round.
        # Kept, or they would be collected.
        self._watchers = [
            gevent.signal_handler(signal.SIGTERM, self.end),
            gevent.signal_handler(signal.SIGINT, self.end, quick=True),
            gevent.signal_handler(signal.SIGQUIT, self.end, quick=True),
        ]

    def end(self, quick: bool = False) -> None:
        """Begin the end, or hasten it; never delays one that has begun."""
        now = time.monotonic()
        patience = 0.0 if quick else self.cfg.graceful_timeout - DRAIN_MARGIN
        if quick:
            calls, close = now + QUICK_CALLS, now + QUICK_CALLS + QUICK_CLOSE
        else:
            calls = now + self.cfg.graceful_timeout - CALLS_MARGIN
            close = now + self.cfg.graceful_timeout - CLOSE_MARGIN
        if calls < self._calls_until:
            self._calls_until, self.close_by = calls, close
            gevent.spawn(self.service.drain, patience)
        self.alive = False
        self._woken.set()

    def _signals_before_ours(self) -> None:
        """A signal between the fork and ``init_signals`` went to the copy of the arbiter's handler."""
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
        self._signals_before_ours()
        while self.alive:
            self.notify()
            self._woken.wait(1.0)
        for server in servers:
            server.close()  # the listening socket; connections live on
        for connection in tuple(self._idle):
            _end_of_input(connection)
        while self._busy() and time.monotonic() < self._calls_until:
            self.notify()
            gevent.sleep(0.02)
        if self._busy():
            log.warning("%d connections were cut at the end", self._busy())

    def finish(self) -> None:
        """The last act of the process, after ``run`` or after what broke it."""
        for watcher in self._watchers:
            watcher.cancel()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # a second one would interrupt what follows
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
            server.max_accept = 1  # or one worker takes what another could serve now
        server.start()
        self._pools.append(pool)
        return server

    def _busy(self) -> int:
        return sum(pool.size - pool.free_count() for pool in self._pools)

    def notify(self) -> None:
        """The heartbeat, once a second."""
        BaseWorker.notify(self)
        if self.ppid != os.getppid():
            if self.alive:
                log.error("The arbiter is gone: this worker ends")
            self.end(quick=True)
        elif self.alive and self.service.settings.redis_url is None:
            self._tend_redis()

    def _tend_redis(self) -> None:
        """An embedded server that died, or ended with another service's arbiter, is started again."""
        try:
            started = embedded_redis.tend(self.service.settings.instance_path)
        except EmbeddedRedisError as error:
            log.error("%s", error)
            return
        if started is not None:
            self.embedded = started
            log.warning("Embedded Redis was down and has been started again")

    # Connections

    def handle(self, listener: socket.socket, client: socket.socket, addr: Any) -> None:
        self._idle.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self._idle.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> None:
        self._idle.discard(sock)
        # For one read of the body or one write of the reply; the wait for a next request is `keepalive`'s.
        sock.settimeout(self.service.settings.send_timeout)
        try:
            super().handle_request(listener_name, req, sock, addr)
            _discard_body(req)
            self._be_fair()
        except TimeoutError:
            raise StopIteration from None  # a caller that neither reads nor leaves; gunicorn would log a traceback
        finally:
            sock.settimeout(None)
            if self.alive:
                self._idle.add(sock)
            else:
                _end_of_input(sock)

    def _be_fair(self) -> None:
        """Let the loop run if requests that never waited have kept it from running for a while.

        A socket that always has the next request ready is read without once going through the loop: the other
        connections, the heartbeat and the signals would wait for that client.
        """
        current, now = gevent.get_hub().loop.iteration, time.monotonic()
        if current != self._round:
            self._round, self._round_began = current, now
        elif now - self._round_began > LONGEST_ROUND:
            gevent.sleep(0)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """A request that is not HTTP, or a defect. Tells neither the log nor the caller what was in it."""
        if isinstance(exc, errors.ParseException):
            status = next((STATUS[kind] for kind in STATUS if isinstance(exc, kind)), HTTPStatus.BAD_REQUEST)
            log.info("Malformed HTTP request refused: %s", type(exc).__name__)
        else:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            log.error("Request failed outside the application: %s%s", type(exc).__name__, _place(exc))
        with suppress(OSError):  # the caller left
            client.settimeout(1.0)
            client.sendall(_problem(status))


def _discard_body(req: Any) -> None:
    """Read what the application left unread of a refused body, so that its sender gets to the reply.

    gunicorn would do it without a bound and, while the sender is fast, without once yielding to other calls.

    Raises:
        StopIteration: it is too much; the connection is not used again.
    """
    deadline = time.monotonic() + DISCARD_SECONDS
    left = DISCARD_BYTES
    try:
        while data := req.body.reader.read(min(left, 65536)):
            left -= len(data)
            gevent.sleep(0)
            if left <= 0 or time.monotonic() > deadline:
                raise StopIteration
    except (OSError, errors.ParseException):  # ParseException: broken chunks
        raise StopIteration from None


def _end_of_input(connection: socket.socket) -> None:
    """What the kernel has received is still read and served; then reads see the end of the connection."""
    with suppress(OSError):  # closed already
        connection.shutdown(socket.SHUT_RD)


def _problem(status: HTTPStatus) -> bytes:
    body = b'{"type":"about:blank","title":"%s","status":%d}' % (status.phrase.encode(), status)
    head = (
        f"HTTP/1.1 {status:d} {status.phrase}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nX-Request-Id: {ids.new_id()}\r\n\r\n"
    )
    return head.encode() + body


def _place(error: BaseException) -> str:
    """Where it was raised: file and line, without values."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" at {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else ""
