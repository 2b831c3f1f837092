"""Announces that a budget has passed 50, 80 or 100 %: with one log line each, and with a webhook if one is set.

Invariants, each with its test in tests/billing/test_alerts.py:

* a threshold of a budget is announced once per period and amount, whatever the number of workers and restarts;
* a webhook that was not delivered is sent again for a day, by any worker that is alive;
* neither a call nor the log's writer ever waits for this module.

``noticed`` gets the rows that were committed. The first of them in a process starts a background loop. A second after
the first row, the loop checks the budgets of the callers that the rows name. It spends at most a twentieth of its
time on these checks. If a process is killed before it has checked the budgets, the next loop makes up for it: a loop
begins with all callers of the last day.

If a period ended before its last rows were written, its budgets are not checked any more.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from llm_service.billing.webhook import Webhook
from llm_service.catalog.catalog import Catalog
from llm_service.catalog.load import TierBudget
from llm_service.core.background import Background, Loop
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import Stopping
from llm_service.core.money import NANO_PER_DOLLAR
from llm_service.observability.metrics import Metrics
from llm_service.settings import Settings
from llm_service.store.alerts import Alert, AlertLog, Spender

PAUSE_FACTOR = 20  # a check that took one second is followed by a pause of this many seconds
LAST_RETRY = 3600.0
GIVE_UP = timedelta(hours=24)
# Longer than an attempt may take. A message that a killed worker was sending is sent again after this time.
CLAIM = timedelta(seconds=60)
POLL_EVERY = 30.0  # for messages that another worker left
PRUNE_EVERY = 24 * 3600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: from the first row to the check of its budgets, from a failed message to its first repetition, and from
    a failure of the database to the next try."""

    batch: float = 1.0
    first_retry: float = 1.0
    after_failure: float = 5.0


def _now() -> datetime:
    return datetime.now(UTC)


class Alerts:
    """One per application. It opens nothing before the first row.

    Subscribe ``noticed`` to the writer, and call ``close`` after the writer's ``close``.
    """

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
        self._background = Background(lambda _: _Rounds(self))

    def noticed(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take note of committed rows. Starts the loop, even without rows. Never raises and never waits."""
        try:
            loop = self._background.running()
            if loop is not None:
                # A row that cost nothing cannot pass a threshold.
                loop.touch({_spender(row) for row in rows if row.get("cost_nanousd")})
        except Exception as error:  # noqa: BLE001 - it must not stop the log's writer
            log.error("budget alerts: rows were not noticed (%s)", type(error).__name__)

    def close(self, deadline_seconds: float = 5.0) -> None:
        """Check noticed rows a last time, within ``deadline_seconds``. Messages that are not delivered stay due."""
        self._background.stop(deadline_seconds)

    def open_log(self) -> AlertLog:
        return AlertLog(self._url, self._zone, self._tier_budget)

    def _tier_budget(self, name: str | None) -> TierBudget | None:
        return self._catalog.tier(name or self._catalog.default_tier).budget


class _Rounds(Loop):
    """The callers that one process has noticed, and the rounds that check their budgets and deliver what is due."""

    name = "budget alerts"

    def __init__(self, alerts: Alerts) -> None:
        super().__init__()
        self._alerts = alerts
        self._log: AlertLog | None = None
        self._touched: set[Spender] = set()
        self._lock = threading.Lock()
        self._includes_yesterday = True  # the first check is of all callers of the last day
        now = time.monotonic()
        self._check_at: float | None = now + alerts.pace.batch
        self._not_before = self._deliver_at = now
        # Random, so that not all workers start at once.
        self._prune_at = now + random.uniform(0.01, 0.1) * PRUNE_EVERY
        self._cancel = Cancel()

    def touch(self, spenders: set[Spender]) -> None:
        """Have the budgets of ``spenders`` checked soon."""
        if not spenders:
            return
        with self._lock:
            self._touched |= spenders
            if self._check_at is None:
                self._check_at = max(time.monotonic() + self._alerts.pace.batch, self._not_before)
                self.wake()

    def stop(self, deadline_seconds: float) -> None:
        """A message that is being sent has half of the time to arrive."""
        half = deadline_seconds / 2
        self.stopping.set()
        self.wake()
        self._thread.join(max(0.0, half))
        self._cancel.set(Stopping("The service is stopping."))
        super().stop(half)

    def close(self) -> None:
        try:
            if self.stopping.is_set() and self._check_at is not None:
                self._check()
        except Exception as error:  # noqa: BLE001 - the next process checks again
            self.failed(error)
        finally:
            if self._log is not None:
                self._log.close()

    def round(self) -> None:
        """Do the first thing that is due, or wait for it."""
        now = time.monotonic()
        has_webhook = self._alerts.webhook is not None
        if self._check_at is not None and now >= self._check_at:
            self._check()
        elif has_webhook and now >= self._deliver_at:
            self._deliver_at = now + self._alerts.pace.after_failure
            self._deliver()
        elif now >= self._prune_at:
            self._prune_at = now + PRUNE_EVERY
            self._opened().prune(self._alerts.clock())
        else:
            times = [self._check_at, self._prune_at, self._deliver_at if has_webhook else None]
            self.wait(max(0.0, min(item for item in times if item is not None) - now))

    def _opened(self) -> AlertLog:
        self._log = self._log or self._alerts.open_log()
        return self._log

    def _check(self) -> None:
        """Find and announce the thresholds that the noticed callers' budgets have passed."""
        with self._lock:
            touched, self._touched = self._touched, set()
            self._check_at = None
        began, now = time.monotonic(), self._alerts.clock()
        try:
            alert_log = self._opened()
            if self._includes_yesterday:
                touched |= alert_log.spenders(now - timedelta(days=1))
            passed = alert_log.passed(touched, now, due=self._alerts.webhook is not None)
        except Exception:
            with self._lock:
                self._touched |= touched
                self._check_at = time.monotonic() + self._alerts.pace.after_failure
            raise
        self._includes_yesterday = False
        self._not_before = time.monotonic() + PAUSE_FACTOR * (time.monotonic() - began)
        for alert in passed:
            _announce(alert)
            self._alerts.telemetry.alerted(alert.threshold)
        if passed:
            self._deliver_at = time.monotonic()

    def _deliver(self) -> None:
        """Send the first message that is due. Only one, because rows may have been noticed meanwhile."""
        webhook, now, alert_log = self._alerts.webhook, self._alerts.clock(), self._opened()
        assert webhook is not None
        alert = alert_log.claim(now, now + CLAIM)
        if alert is None:
            due = alert_log.next_due()
            wait = POLL_EVERY if due is None else min(POLL_EVERY, max(0.05, (due - now).total_seconds()))
            self._deliver_at = time.monotonic() + wait
            return
        reason = webhook.send(alert, now, self._cancel)
        if reason is None:
            alert_log.delivered(alert, self._alerts.clock())
        else:
            self._postpone(alert, reason)
        self._deliver_at = time.monotonic()

    def _postpone(self, alert: Alert, reason: str) -> None:
        """The message was not delivered: send it again later, or give it up."""
        if self._cancel.reason is not None:  # cut off by ``stop``: due at once, for the next process
            self._opened().postponed(alert, self._alerts.clock())
            return
        now = self._alerts.clock()
        pause = min(LAST_RETRY, self._alerts.pace.first_retry * 2 ** min(alert.attempts - 1, 30))
        until = now + timedelta(seconds=pause * random.uniform(0.75, 1.25))
        given_up = until > alert.created_at + GIVE_UP
        self._opened().postponed(alert, None if given_up else until)
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
