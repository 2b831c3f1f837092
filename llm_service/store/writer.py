"""The request log's writer: ``put`` never blocks and never raises; a batch loop writes the rows.

Invariants, each with a test in tests/store/test_writer.py:

* every row that was put is counted once, in ``queued``, ``written`` or ``dropped``;
* a row leaves the queue only when it is committed, or when it cannot be written at all;
* while the database is unavailable or locked, no row is lost until ``capacity`` rows wait;
* no row is lost silently: a dropped row is logged with the reason, and with its id if it was
  in the queue, but never with its values.

The loop starts with the first ``put`` of a process (a worker that is forked later starts its
own). It is a greenlet where gevent has replaced threads. A batch is what arrives within 50 ms,
or the first 200 rows, in one transaction; if more rows wait, 1,000. A row's id is inserted only
once, so repeating a batch whose commit was not confirmed is harmless. If rows are kept for a
limited time, the loop also deletes the old ones, soon after its start and then once an hour,
when no row waits.
"""

from __future__ import annotations

import atexit
import logging
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from llm_service.core.background import Background, Loop, class_of
from llm_service.store import retention
from llm_service.store.row_inserts import TABLE, Row, Sink, sink_for

BATCH_ROWS = 200
BACKLOG_ROWS = 1_000
BATCH_SECONDS = 0.05
CAPACITY = 100_000
FIRST_RETRY, LAST_RETRY = 0.05, 5.0
AT_EXIT_SECONDS = 5.0
PRUNE_FIRST, PRUNE_EVERY = 60.0, 3600.0

Listener: TypeAlias = Callable[[Sequence[Row]], None]

log = logging.getLogger(__name__)

_LIMITS = {column.name: getattr(column.type, "length", None) for column in TABLE.columns}
# PostgreSQL accepts neither in text.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class NotARow(ValueError):
    """The message names the field and contains no value."""


def cleaned(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``row`` in a form that every database accepts.

    NUL and lone surrogates become U+FFFD, and a text that is too long is cut and ends in "…":
    the model name that a caller chose must not make a database reject the row.

    Raises:
        NotARow: it has no id, or a field that is not a column.
    """
    if not row.get("id"):
        raise NotARow("it has no id")
    clean: dict[str, Any] = {}
    for name, value in row.items():
        if name not in _LIMITS:
            raise NotARow(f"{name[:64]} is not a column")
        if isinstance(value, str):
            value = _UNSTORABLE.sub("\ufffd", value)
            limit = _LIMITS[name]
            if limit is not None and len(value) > limit:
                value = value[: limit - 1] + "…"
        clean[name] = value
    return clean


class Writer:
    """Writes rows of the request log in batches, from any greenlet or thread of the process.

    Attributes:
        dropped: number of rows given up: the row could not be written, ``capacity`` rows were waiting, or ``close``
            had been called.
    """

    def __init__(self, url: str, *, capacity: int = CAPACITY, retention_days: int | None = None) -> None:
        """``url``: ``store.database_url(settings)``; no connection is opened yet.

        ``retention_days`` None: rows are never deleted.
        """
        self._listeners: list[Listener] = []
        self._url = url
        self._retention_days = retention_days
        self._capacity = capacity
        self._background = Background(self._make_loop)
        self._rejections = _Rejections()

    @property
    def queued(self) -> int:
        """Number of rows that wait or are being written."""
        loop = self._background.own()
        return loop.waiting if loop else 0

    @property
    def written(self) -> int:
        loop = self._background.own()
        return loop.written if loop else 0

    @property
    def dropped(self) -> int:
        loop = self._background.own()
        return self._rejections.count + (loop.lost if loop else 0)

    def put(self, row: Mapping[str, Any]) -> bool:
        """Queue ``row``. Return whether it was accepted; a row that was not is counted and logged."""
        try:
            loop = self._background.running()
            if loop is None:
                self._rejections.add("the writer is closed")
            elif loop.waiting >= self._capacity:
                self._rejections.add("too many rows wait for the database")
            else:
                loop.add(cleaned(row))
                return True
        except Exception as error:  # noqa: BLE001 - a call must not fail because its row does
            self._rejections.add(str(error) if isinstance(error, NotARow) else type(error).__name__)
        return False

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener`` with the rows of each commit and with each row given up.

        It runs in the writer's loop, so it must be quick.
        """
        self._listeners.append(listener)

    def flush(self, deadline_seconds: float) -> bool:
        """Wait until all rows put so far are committed or given up. Return False if the deadline passes first."""
        loop = self._background.own()
        if loop is None:
            return True
        goal, deadline = loop.taken, time.monotonic() + deadline_seconds
        while loop.done < goal:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def close(self, deadline_seconds: float = AT_EXIT_SECONDS) -> int:
        """Write all waiting rows within ``deadline_seconds``. Return the number of rows that were not written.

        Later rows are not accepted. A row whose commit was not finished at the deadline
        counts as not written.
        """
        atexit.unregister(self.close)
        loop = self._background.stop(deadline_seconds)
        left = 0 if loop is None else loop.waiting
        if left:
            log.error("request log: %d rows were not written before the deadline", left)
        return left

    def _make_loop(self, before: _Loop | None) -> _Loop:
        """Make a loop. ``before`` was killed, and its rows are taken over; None: this process has had no loop yet."""
        if before is None:
            self._rejections = _Rejections()
            atexit.register(self.close)
        return _Loop(self._url, before, _Pruning(self._retention_days), self._listeners)


class _Rejections:
    """Counts rows that were not accepted and logs it at most once a second."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()
        self._logged_at = -1.0

    def add(self, reason: str) -> None:
        with self._lock:
            self.count += 1
            now = time.monotonic()
            if 0 <= now - self._logged_at < 1.0:
                return
            self._logged_at = now
        log.error("request log: a row was not accepted (%s); %d so far", reason, self.count)


class _Loop(Loop):
    """The queue of one process, and the rounds that empty it."""

    name = "request-log"

    def __init__(self, url: str, before: _Loop | None, pruning: _Pruning, listeners: Sequence[Listener] = ()) -> None:
        super().__init__()
        self._listeners = listeners
        self.written: int = before.written if before else 0
        self.lost: int = before.lost if before else 0
        self._queue: deque[Row] = before._queue if before else deque()
        self._batch: list[Row] = before._batch if before else []
        self._url = url
        self._outage = _Outage()
        self._pruning = pruning
        self._many = threading.Event()
        self._sink: Sink | None = None

    @property
    def waiting(self) -> int:
        return len(self._queue) + len(self._batch)

    @property
    def done(self) -> int:
        return self.written + self.lost

    @property
    def taken(self) -> int:
        return self.done + self.waiting

    def add(self, row: Row) -> None:
        self._queue.append(row)
        # ``wake`` checks first, which avoids a lock in the common case, and so does the next line. It is safe because
        # the loop clears both events before it takes rows.
        self.wake()
        if len(self._queue) >= BATCH_ROWS and not self._many.is_set():
            self._many.set()

    def has_work(self) -> bool:
        return self.waiting > 0

    def stop(self, deadline_seconds: float) -> None:
        self.stopping.set()
        self._many.set()
        super().stop(deadline_seconds)

    def round(self) -> None:
        self._sink = self._sink or sink_for(self._url)
        if not self.waiting and not self.wait(self._pruning.due_in()):
            self._pruning.step(self._sink)
        while self.waiting and self.is_working():
            self._fill_batch()
            self._deliver(self._sink)

    def failed(self, error: Exception) -> None:
        """Report a defect in our code. Rows wait, none is lost."""
        log.error("request log: the writer failed and tries again (%s)", type(error).__name__)
        self.abandoned.wait(1.0)

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()

    def _fill_batch(self) -> None:
        if len(self._queue) < BATCH_ROWS and not self._batch:
            self._many.wait(BATCH_SECONDS)
        self._many.clear()
        while self._queue and len(self._batch) < BACKLOG_ROWS:
            self._batch.append(self._queue[0])  # added before it is removed, so that it is always counted
            self._queue.popleft()

    def _deliver(self, sink: Sink) -> None:
        """Write ``_batch``, in smaller and smaller portions to isolate a bad row. Returns early if abandoned."""
        size = BACKLOG_ROWS
        while self._batch and self.is_working():
            portion = self._batch[:size]
            try:
                sink.write(portion)
            except Exception as error:  # noqa: BLE001 - the sink knows the cause
                if not sink.blames_a_row(error):
                    self._pause(error)
                    continue
                if len(portion) > 1:
                    size = max(1, len(portion) // 8)
                    continue
                self.lost += 1
                log.error("request log: row %s cannot be written (%s)", portion[0]["id"], class_of(error))
            else:
                self.written += len(portion)
                size *= 2
                self._outage.over()
            del self._batch[: len(portion)]
            self._notify(portion)

    def _notify(self, rows: Sequence[Row]) -> None:
        for listener in self._listeners:
            try:
                listener(rows)
            except Exception as error:  # noqa: BLE001 - it must not stop the log
                log.error("request log: a listener failed (%s)", type(error).__name__)

    def _pause(self, error: Exception) -> None:
        delay = self._outage.failed(error, self.waiting)
        if self.stopping.is_set():
            self.abandoned.wait(min(delay, 0.25))
        else:
            self.stopping.wait(delay)


class _Pruning:
    """Deletes old rows, one batch per step."""

    def __init__(self, days: int | None) -> None:
        self._days = days
        # Random, so that not all workers start at once.
        self._next_at = time.monotonic() + random.uniform(0.5, 1.0) * PRUNE_FIRST

    def due_in(self) -> float | None:
        """Seconds until the next step; None if rows are never deleted."""
        return None if self._days is None else max(0.0, self._next_at - time.monotonic())

    def step(self, sink: Sink) -> None:
        """Delete one batch. Never raises: if it fails, the rows are deleted later."""
        if self._days is None:
            return
        try:
            more = sink.prune(retention.cutoff(self._days)) >= retention.BATCH
        except Exception as error:  # noqa: BLE001
            log.warning("request log: old rows were not deleted (%s)", class_of(error))
            more = False
        self._next_at = time.monotonic() + (retention.PAUSE_SECONDS if more else PRUNE_EVERY)


class _Outage:
    """An outage of the database: decides the next delay and writes the log lines."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._logged_at: float | None = None
        self._delay = FIRST_RETRY

    def failed(self, error: Exception, waiting: int) -> float:
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        # A short lock is not worth a log line.
        if now - self._since >= 1.0 and (self._logged_at is None or now - self._logged_at >= 30.0):
            self._logged_at = now
            log.warning("request log: the database accepts no rows (%s); %d are waiting", class_of(error), waiting)
        delay, self._delay = self._delay, min(self._delay * 2, LAST_RETRY)
        return delay

    def over(self) -> None:
        if self._logged_at is not None:
            log.info("request log: the database accepts rows again")
        self._since = self._logged_at = None
        self._delay = FIRST_RETRY
