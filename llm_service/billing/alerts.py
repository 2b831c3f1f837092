"""Announcing that a budget has passed 50, 80 or 100 %: one log line each, and a webhook where one is set.

Invariants, each with its test in tests/billing/test_alerts.py:

* a threshold of a budget is announced once per period and amount, whatever the
  number of workers and restarts;
* a webhook that was not taken is sent again, by whichever worker lives, for a day;
* nothing here is waited for: not by a call, and not by the log's writer.

``noticed`` is told which rows were committed. The loop behind it starts with the
first of these in a process (a worker forked later starts its own) and is a greenlet
where gevent has replaced threads. It looks at the budgets of whom the rows name, a
second after the first of them, and spends no more than a twentieth of its time on
it. What a killed process had noticed and not looked at is made up for by the next
loop, which begins with everybody who has called since yesterday.

A period that ended before its last rows were written is not looked at any more.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from llm_service.billing.webhook import Webhook
from llm_service.catalog.catalog import Catalog, TierBudget
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import Stopping
from llm_service.core.money import NANO_PER_DOLLAR
from llm_service.observability.metrics import Metrics
from llm_service.settings import Settings
from llm_service.store.alerts import Alert, AlertLog, Spender

SHARE = 20  # times what one look took, before the next
LAST_RETRY = 3600.0
GIVE_UP = timedelta(hours=24)
# Longer than an attempt may take; how soon a message of a killed worker is sent again.
CLAIM = timedelta(seconds=60)
LOOK_EVERY = 30.0  # for messages that another worker left
PRUNE_EVERY = 24 * 3600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: from the first row to the look at its budgets, to the first repetition of a message, and to that of
    what the database did not answer."""

    gather: float = 1.0
    first_retry: float = 1.0
    after_failure: float = 5.0


def _now() -> datetime:
    return datetime.now(UTC)


class Alerts:
    """``writer.subscribe(alerts.noticed)``, and ``close`` after the writer's. Opens nothing before the first row."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        catalog: Catalog,
        telemetry: Metrics,
        clock: Callable[[], datetime] = _now,
        pace: Pace = Pace(),
    ) -> None:
        """``url``: ``store.database_url(settings)``.

        Raises:
            SettingsError: naming LLM_SERVICE_WEBHOOK_SECRET.
        """
        key = settings.webhook_key
        self.webhook = None if key is None or settings.webhook_url is None else Webhook(settings.webhook_url, key)
        self.telemetry, self.clock, self.pace = telemetry, clock, pace
        self._url, self._zone, self._catalog = url, settings.time_zone, catalog
        self._loop: _Loop | None = None
        self._starting = threading.Lock()
        self._closed = False

    def noticed(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """``rows`` of the request log were committed. Never raises and never waits; starts the loop, even without
        any row."""
        try:
            if self._closed:
                return
            loop = self._loop
            if loop is None or loop.dead or loop.pid != os.getpid():
                loop = self._start()
            # What cost nothing passes no threshold.
            loop.touch({_spender(row) for row in rows if row.get("cost_nanousd")})
        except Exception as error:  # noqa: BLE001 - the log's writer must go on
            log.error("budget alerts: rows were not noticed (%s)", type(error).__name__)

    def close(self, deadline_seconds: float = 5.0) -> None:
        """Look at what is noticed a last time, for at most ``deadline_seconds``. What is not delivered stays due."""
        self._closed = True
        loop = self._loop
        if loop is not None and loop.pid == os.getpid():
            loop.stop(deadline_seconds)

    def open_log(self) -> AlertLog:
        return AlertLog(self._url, self._zone, self._tier_budget)

    def _tier_budget(self, name: str | None) -> TierBudget | None:
        return self._catalog.tier(name or self._catalog.default_tier).budget

    def _start(self) -> _Loop:
        with self._starting:
            loop = self._loop
            if loop is None or loop.dead or loop.pid != os.getpid():
                self._loop = loop = _Loop(self)
            return loop


class _Loop:
    """One process's notes and the greenlet or thread that looks at them and delivers what is due."""

    def __init__(self, alerts: Alerts) -> None:
        self.pid = os.getpid()
        self.dead = False
        self._alerts = alerts
        self._touched: set[Spender] = set()
        self._lock = threading.Lock()
        self._everybody = True  # has yet to be looked at
        now = time.monotonic()
        self._look_at: float | None = now + alerts.pace.gather
        self._not_before = self._deliver_at = now
        # Not all workers at once.
        self._prune_at = now + random.uniform(0.01, 0.1) * PRUNE_EVERY
        self._wake, self._closing = threading.Event(), threading.Event()
        self._cancel = Cancel()
        self._complaint_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="budget-alerts", daemon=True)
        self._thread.start()

    def touch(self, spenders: set[Spender]) -> None:
        if not spenders:
            return
        with self._lock:
            self._touched |= spenders
            if self._look_at is None:
                self._look_at = max(time.monotonic() + self._alerts.pace.gather, self._not_before)
                self._wake.set()

    def stop(self, deadline_seconds: float) -> None:
        self._closing.set()
        self._wake.set()
        # A message on its way has half of the time to arrive.
        self._thread.join(max(0.0, deadline_seconds / 2))
        self._cancel.set(Stopping("The service is stopping."))
        self._thread.join(max(0.0, deadline_seconds / 2))

    def _run(self) -> None:
        found: AlertLog | None = None
        try:
            found = self._alerts.open_log()
            # gevent copies a running greenlet into a forked child: not there.
            while not self._closing.is_set() and self.pid == os.getpid():
                self._turn(found)
            if self._look_at is not None and self.pid == os.getpid():
                self._guarded(self._look, found)
        except Exception as error:  # noqa: BLE001 - a defect of ours; the next row starts another loop
            log.error("budget alerts: the loop ended (%s)", type(error).__name__)
        finally:
            self.dead = True
            if found is not None and self.pid == os.getpid():
                found.close()

    def _turn(self, found: AlertLog) -> None:
        """Do the first thing that is due, or wait for it."""
        now = time.monotonic()
        if self._look_at is not None and now >= self._look_at:
            self._guarded(self._look, found)
        elif self._alerts.webhook is not None and now >= self._deliver_at:
            self._deliver_at = now + self._alerts.pace.after_failure
            self._guarded(self._deliver, found)
        elif now >= self._prune_at:
            self._prune_at = now + PRUNE_EVERY
            self._guarded(lambda kept: kept.prune(self._alerts.clock()), found)
        else:
            times = [self._look_at, self._prune_at, None if self._alerts.webhook is None else self._deliver_at]
            self._wake.wait(max(0.0, min(item for item in times if item is not None) - now))
            self._wake.clear()

    def _guarded(self, work: Callable[[AlertLog], object], found: AlertLog) -> None:
        """A database that is away is told about twice a minute at most, and asked again."""
        try:
            work(found)
        except Exception as error:  # noqa: BLE001
            now = time.monotonic()
            if self._complaint_at is None or now - self._complaint_at >= 30.0:
                self._complaint_at = now
                log.warning("budget alerts: a step failed and is repeated (%s)", _class_of(error))
        else:
            self._complaint_at = None

    def _look(self, found: AlertLog) -> None:
        """Find and announce what the noticed rows have passed."""
        with self._lock:
            touched, self._touched = self._touched, set()
            self._look_at = None
        began, now = time.monotonic(), self._alerts.clock()
        try:
            if self._everybody:
                touched |= found.spenders(now - timedelta(days=1))
            passed = found.passed(touched, now, due=self._alerts.webhook is not None)
        except Exception:
            with self._lock:
                self._touched |= touched
                self._look_at = time.monotonic() + self._alerts.pace.after_failure
            raise
        self._everybody = False
        self._not_before = time.monotonic() + SHARE * (time.monotonic() - began)
        for alert in passed:
            _announce(alert)
            self._alerts.telemetry.alerted(alert.threshold)
        if passed:
            self._deliver_at = time.monotonic()

    def _deliver(self, found: AlertLog) -> None:
        """Send the first message that is due. One: rows may have been noticed meanwhile."""
        webhook, now = self._alerts.webhook, self._alerts.clock()
        assert webhook is not None
        alert = found.claim(now, now + CLAIM)
        if alert is None:
            due = found.next_due()
            wait = LOOK_EVERY if due is None else min(LOOK_EVERY, max(0.05, (due - now).total_seconds()))
            self._deliver_at = time.monotonic() + wait
            return
        reason = webhook.send(alert, now, self._cancel)
        if reason is None:
            found.delivered(alert, self._alerts.clock())
        else:
            self._failed(found, alert, reason)
        self._deliver_at = time.monotonic()

    def _failed(self, found: AlertLog, alert: Alert, reason: str) -> None:
        if self._cancel.reason is not None:  # cut off by us: due at once, for the next process
            found.postponed(alert, self._alerts.clock())
            return
        now = self._alerts.clock()
        pause = min(LAST_RETRY, self._alerts.pace.first_retry * 2 ** min(alert.attempts - 1, 30))
        until = now + timedelta(seconds=pause * random.uniform(0.75, 1.25))
        given_up = until > alert.created_at + GIVE_UP
        found.postponed(alert, None if given_up else until)
        self._alerts.telemetry.webhook_failed()
        fields = {"id": alert.id, "attempt": alert.attempts, "reason": reason}
        if given_up:
            log.error("a webhook was not delivered and is given up", extra={"fields": fields})
        else:
            log.warning("a webhook was not delivered and is sent again", extra={"fields": fields})


def _spender(row: Mapping[str, Any]) -> Spender:
    return Spender(row.get("key_id") or "", row.get("user") or "", row.get("org") or "")


def _announce(alert: Alert) -> None:
    fields = {
        "id": alert.id,
        "scope": alert.scope,
        "period": alert.period_id,
        "threshold_percent": alert.threshold,
        "amount_usd": alert.amount_nanousd / NANO_PER_DOLLAR,
        "spent_usd": alert.spent_nanousd / NANO_PER_DOLLAR,
    }
    log.warning("a budget reached a threshold", extra={"fields": fields})


def _class_of(error: Exception) -> str:
    return type(getattr(error, "orig", None) or error).__name__
