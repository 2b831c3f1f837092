"""Prometheus metrics. There are few labels, each with a closed set of values, and none per key, model or caller.

If ``PROMETHEUS_MULTIPROC_DIR`` is set before the first import of ``prometheus_client`` (gunicorn.conf.py does that),
the numbers of all workers are added up from files in that folder. Otherwise they are those of this process. That is
why the import is inside ``Metrics``.

| metric | labels | what |
|---|---|---|
| llm_requests_total | dialect, provider, outcome | calls, including rejected ones |
| llm_request_seconds | dialect | from arrival to the end of the answer |
| llm_first_token_seconds | dialect | from arrival to the first text of a stream |
| llm_tokens_total | provider, kind | input, output; of these: cached, cache_write, reasoning |
| llm_cost_usd_total | provider | known costs only |
| llm_upstream_attempts_total | provider | upstream requests, including retries |
| llm_streams_open | | streams that are being answered now |
| llm_log_rows_dropped_total | | rows of the request log that were given up |
| llm_journal_failures_total | | defects while a call was recorded |
| llm_budget_alerts_total | threshold | budgets that passed 50, 80 or 100 % |
| llm_webhook_failures_total | | webhooks that were not delivered, counted per attempt |
| llm_calls_reaped_total | | calls of workers that died, settled as aborted |
| llm_calls_without_redis_total | decision | calls admitted or rejected while Redis was unavailable |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from llm_service.observability.record import Record

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# The values that a label may have. Any other value is counted as "other", and no provider as "none".
OUTCOMES = ("ok", "refused", "upstream_error", "timeout", "client_closed", "aborted", "cached", "replayed")
KINDS = ("input", "output", "cached", "cache_write", "reasoning")

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
# A call that ended longer ago than this says nothing about its provider now.
_RECENT_SECONDS = 300.0
_NANO = 1_000_000_000
_REFUSALS = ("upstream_authentication", "upstream_quota_exhausted")
_MOST_REFUSED = 100


class Metrics:
    """One per application. Its methods may be called from any greenlet.

    ``providers`` are the configured providers, and ``formats`` the names of the client formats.
    """

    def __init__(
        self, providers: Iterable[str], formats: Iterable[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        import prometheus_client
        from prometheus_client import values

        self._library = prometheus_client
        self._multiprocess = bool(getattr(values.ValueClass, "_multiprocess", False))
        self._clock = clock
        self._providers = frozenset(providers)
        self._formats = frozenset(formats)
        self._seen: dict[str, tuple[float, str]] = {}  # by provider
        self._refused: dict[str, tuple[float, str]] = {}  # by provider/model
        # A registry of our own: an application that mounts the service has its own metrics.
        registry = self._registry = prometheus_client.CollectorRegistry()
        counter, histogram = prometheus_client.Counter, prometheus_client.Histogram
        self._requests = _Children(
            counter("llm_requests", "Calls", ["dialect", "provider", "outcome"], registry=registry)
        )
        self._seconds = _Children(
            histogram("llm_request_seconds", "Seconds per call", ["dialect"], registry=registry, buckets=_SECONDS)
        )
        self._first_token = _Children(
            histogram("llm_first_token_seconds", "To the first text", ["dialect"], registry=registry, buckets=_SECONDS)
        )
        self._tokens = _Children(counter("llm_tokens", "Tokens", ["provider", "kind"], registry=registry))
        self._cost = _Children(counter("llm_cost_usd", "Known costs in dollars", ["provider"], registry=registry))
        self._attempts = _Children(
            counter("llm_upstream_attempts", "Upstream requests", ["provider"], registry=registry)
        )
        self._open: Gauge = prometheus_client.Gauge(
            "llm_streams_open", "Streams being answered", registry=registry, multiprocess_mode="livesum"
        )
        self._dropped: Counter = counter("llm_log_rows_dropped", "Request log rows given up", registry=registry)
        self._without_redis = _Children(
            counter("llm_calls_without_redis", "Calls while Redis was unavailable", ["decision"], registry=registry)
        )
        self._reaped: Counter = counter("llm_calls_reaped", "Calls of workers that died", registry=registry)
        self._failures: Counter = counter("llm_journal_failures", "Defects while recording a call", registry=registry)
        self._alerts = _Children(counter("llm_budget_alerts", "Thresholds passed", ["threshold"], registry=registry))
        self._undelivered: Counter = counter("llm_webhook_failures", "Webhooks not delivered", registry=registry)

    def calls_reaped(self, count: int) -> None:
        self._reaped.inc(count)

    def calls_without_redis(self, admitted: int, refused: int) -> None:
        """Count calls that the ledger admitted without counting them, and calls with a budget that it rejected."""
        self._without_redis.of("admitted").inc(admitted)
        self._without_redis.of("refused").inc(refused)

    def record(self, record: Record) -> None:
        """Count one call that has ended or was rejected."""
        dialect = record.dialect if record.dialect in self._formats else "other"
        provider = self._provider(record.provider)
        outcome = record.outcome if record.outcome in OUTCOMES else "other"
        self._requests.of(dialect, provider, outcome).inc()
        if record.latency_ms is not None:
            self._seconds.of(dialect).observe(record.latency_ms / 1000)
        if record.ttft_ms is not None:
            self._first_token.of(dialect).observe(record.ttft_ms / 1000)
        if record.provider is None:
            return
        counts = (
            record.input_tokens,
            record.output_tokens,
            record.cached_tokens,
            record.cache_write_tokens,
            record.reasoning_tokens,
        )
        for kind, count in zip(KINDS, counts, strict=True):
            if count:
                self._tokens.of(provider, kind).inc(count)
        if record.cost_nanousd:
            self._cost.of(provider).inc(record.cost_nanousd / _NANO)
        self._note_reachability(provider, record)

    def attempt(self, provider: str) -> None:
        """Count a request to an upstream."""
        self._attempts.of(self._provider(provider)).inc()

    def target_refused(self, provider: str, model: str, reason: str) -> None:
        """A vendor refused this service's key, or its account has no credit."""
        if len(self._refused) < _MOST_REFUSED:  # callers choose the models' names
            self._refused[f"{provider}/{model}"] = (self._clock(), reason)
        self._seen[provider] = (self._clock(), "refused")

    def target_answered(self, provider: str, model: str) -> None:
        if self._refused:
            self._refused.pop(f"{provider}/{model}", None)

    def refused_targets(self) -> dict[str, str]:
        """Which targets were refused in the last 5 minutes and have not answered since, with the error's code."""
        now = self._clock()
        self._refused = {name: seen for name, seen in self._refused.items() if now - seen[0] <= _RECENT_SECONDS}
        return {name: reason for name, (_, reason) in self._refused.items()}

    def stream_opened(self) -> None:
        self._open.inc()

    def stream_closed(self) -> None:
        self._open.dec()

    def rows_dropped(self, count: int = 1) -> None:
        self._dropped.inc(count)

    def journal_failed(self) -> None:
        self._failures.inc()

    def alerted(self, threshold: int) -> None:
        """Count a budget that has passed ``threshold`` percent."""
        self._alerts.of(str(threshold)).inc()

    def webhook_failed(self) -> None:
        self._undelivered.inc()

    def reachability(self, provider: str) -> str:
        """``reachable``, ``unreachable``, ``refused``, or ``unknown`` without a call here in the last 5 minutes.

        ``refused``: the vendor refused this service's key, or its account has no credit.
        """
        at, state = self._seen.get(provider, (0.0, ""))
        return "unknown" if not state or self._clock() - at > _RECENT_SECONDS else state

    def render(self) -> tuple[bytes, str]:
        """The metrics in Prometheus' text format, and the content type of the format."""
        registry: CollectorRegistry = self._registry
        if self._multiprocess:
            from prometheus_client.multiprocess import MultiProcessCollector

            registry = self._library.CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return self._library.generate_latest(registry), self._library.CONTENT_TYPE_LATEST

    def _provider(self, name: str | None) -> str:
        if name is None:
            return "none"
        return name if name in self._providers else "other"

    def _note_reachability(self, provider: str, record: Record) -> None:
        """An error status proves that the provider can be reached. A client that disconnected proves nothing."""
        if record.error_type == "upstream_unreachable" or record.outcome == "timeout":
            self._seen[provider] = (self._clock(), "unreachable")
        elif record.error_type in _REFUSALS:
            self._seen[provider] = (self._clock(), "refused")
        elif record.outcome in ("ok", "upstream_error") or record.ttft_ms is not None:
            self._seen[provider] = (self._clock(), "reachable")


class _Children:
    """A metric's children by their label values. The library's ``labels()`` would lock and build strings each time."""

    __slots__ = ("_children", "_metric")

    def __init__(self, metric: Counter | Histogram) -> None:
        self._metric = metric
        self._children: dict[tuple[str, ...], Any] = {}

    def of(self, *labels: str) -> Any:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(*labels)
        return child
