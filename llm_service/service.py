"""The parts of one running service, and how it ends.

``create_app`` builds a ``Service`` and stores it at ``app.extensions["llm_service"]``. Blueprints and commands read it
with ``current()``.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

from flask import current_app

from llm_service.billing.alerts import Alerts
from llm_service.billing.reconciler import Reconciler
from llm_service.catalog.catalog import Catalog
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import Stopping
from llm_service.gateway import Gateway
from llm_service.observability.journal import Journal
from llm_service.observability.metrics import Metrics
from llm_service.settings import Settings
from llm_service.store.writer import Writer

log = logging.getLogger(__name__)


@dataclass
class Service:
    settings: Settings
    catalog: Catalog
    gateway: Gateway
    journal: Journal
    telemetry: Metrics
    writer: Writer
    reconciler: Reconciler
    alerts: Alerts
    draining: bool = False
    _live: set[Cancel] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Start the background work of this process, before its first call. In a worker: after the fork."""
        self.reconciler.start()
        self.alerts.noticed([])  # delivers messages that another process left

    def enter(self, cancel: Cancel) -> None:
        """A call is live until ``leave``: a drain that runs out of time ends it."""
        with self._lock:
            self._live.add(cancel)

    def leave(self, cancel: Cancel) -> None:
        with self._lock:
            self._live.discard(cancel)

    def drain(self, seconds: float) -> None:
        """Fail readiness and wait for live calls. After ``seconds`` end those that are left, with an error in-band."""
        self.draining = True
        deadline = time.monotonic() + seconds
        while self._live and time.monotonic() < deadline:
            time.sleep(0.05)
        with self._lock:
            left = list(self._live)
        if left:
            log.warning("the drain deadline was reached: %d calls are ended", len(left))
        for cancel in left:
            cancel.set(Stopping("The service is restarting; send the request again.", retry_after=1))

    def close(self, deadline: float) -> int:
        """Write the rows that are still queued, within ``deadline`` seconds. Return how many rows were not written."""
        ends_at = time.monotonic() + deadline
        self.reconciler.close()
        left = self.writer.close(deadline)
        self.alerts.close(max(0.0, min(1.0, ends_at - time.monotonic())))
        return left


def current() -> Service:
    """The service of the current application."""
    service: Service = current_app.extensions["llm_service"]
    return service
