"""Metrics: what is counted, closed label sets, and the sum over worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llm_service.formats import registry
from llm_service.observability.metrics import Metrics
from llm_service.observability.record import Record

RECORD = Record(
    id="01jd0000000000000000000000",
    created_at=datetime(2026, 11, 21, tzinfo=UTC),
    key_id="k1234567",
    route="/v1/messages",
    dialect="messages",
    stream=True,
    provider="anthropic",
    model_served="claude-sonnet-4-6",
    attempts=1,
    status=200,
    outcome="ok",
    input_tokens=100,
    output_tokens=20,
    cached_tokens=5,
    cost_nanousd=1_500_000_000,
    latency_ms=1500,
    ttft_ms=40,
)


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def samples(telemetry: Metrics) -> dict[tuple[str, ...], float]:
    """``(name, label value, ...)`` in the order of the labels' names -> value."""
    families = text_string_to_metric_families(telemetry.render()[0].decode())
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_an_answered_call_is_counted_once_in_every_metric() -> None:
    telemetry = Metrics(["anthropic"], registry.NAMES)
    telemetry.attempt("anthropic")
    telemetry.record(RECORD)
    values = samples(telemetry)
    assert values["llm_requests_total", "messages", "ok", "anthropic"] == 1
    assert values["llm_request_seconds_sum", "messages"] == 1.5
    assert values["llm_request_seconds_bucket", "messages", "1.0"] == 0
    assert values["llm_request_seconds_bucket", "messages", "2.5"] == 1
    assert values["llm_first_token_seconds_sum", "messages"] == 0.04
    assert values["llm_tokens_total", "input", "anthropic"] == 100
    assert values["llm_tokens_total", "output", "anthropic"] == 20
    assert values["llm_tokens_total", "cached", "anthropic"] == 5
    assert ("llm_tokens_total", "reasoning", "anthropic") not in values
    assert values["llm_cost_usd_total", "anthropic"] == 1.5
    assert values["llm_upstream_attempts_total", "anthropic"] == 1


def test_a_rejected_call_has_no_provider_and_no_first_token() -> None:
    telemetry = Metrics(["anthropic"], registry.NAMES)
    telemetry.record(replace(RECORD, provider=None, outcome="refused", status=429, ttft_ms=None))
    values = samples(telemetry)
    assert values["llm_requests_total", "messages", "refused", "none"] == 1
    assert not [name for name in values if name[0].startswith(("llm_tokens_total", "llm_cost", "llm_first_token"))]


def test_label_values_come_from_closed_sets_only() -> None:
    telemetry = Metrics(["anthropic"], registry.NAMES)
    telemetry.record(replace(RECORD, provider="MARKER", dialect="MARKER", outcome="MARKER"))
    telemetry.attempt("MARKER")
    text = telemetry.render()[0].decode()
    assert "MARKER" not in text
    assert 'llm_requests_total{dialect="other",outcome="other",provider="other"} 1.0' in text


def test_no_metric_is_labelled_by_key_model_or_caller() -> None:
    telemetry = Metrics(["anthropic"], registry.NAMES)
    telemetry.record(replace(RECORD, org="Acme", user="ann"))
    text = telemetry.render()[0].decode()
    for name in ("k1234567", "claude-sonnet-4-6", "Acme", "ann"):
        assert f'"{name}"' not in text


def test_streams_dropped_rows_and_defects_are_counted() -> None:
    telemetry = Metrics([], registry.NAMES)
    telemetry.stream_opened()
    telemetry.stream_opened()
    telemetry.stream_closed()
    telemetry.rows_dropped(3)
    telemetry.journal_failed()
    values = samples(telemetry)
    assert values["llm_streams_open",] == 1
    assert values["llm_log_rows_dropped_total",] == 3
    assert values["llm_journal_failures_total",] == 1


def test_two_applications_in_one_process_count_apart() -> None:
    first, second = Metrics(["anthropic"], registry.NAMES), Metrics(["anthropic"], registry.NAMES)
    first.record(RECORD)
    assert ("llm_requests_total", "messages", "ok", "anthropic") not in samples(second)


def test_the_content_type_is_prometheus_text() -> None:
    assert Metrics([], registry.NAMES).render()[1].startswith("text/plain; version=")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({}, "reachable"),
        ({"outcome": "upstream_error", "error_type": "upstream_rate_limited"}, "reachable"),
        ({"outcome": "upstream_error", "error_type": "upstream_unreachable"}, "unreachable"),
        ({"outcome": "timeout", "error_type": "upstream_timeout"}, "unreachable"),
        ({"outcome": "client_closed"}, "reachable"),
        ({"outcome": "client_closed", "ttft_ms": None}, "unknown"),
        ({"outcome": "refused", "provider": None}, "unknown"),
    ],
)
def test_reachability_is_taken_from_the_last_call(seen: dict[str, str | None], expected: str) -> None:
    telemetry = Metrics(["anthropic"], registry.NAMES)
    telemetry.record(replace(RECORD, **seen))  # type: ignore[arg-type]
    assert telemetry.reachability("anthropic") == expected


def test_reachability_is_forgotten_after_five_minutes() -> None:
    clock = Clock()
    telemetry = Metrics(["anthropic"], registry.NAMES, clock)
    telemetry.record(RECORD)
    clock.seconds += 299
    assert telemetry.reachability("anthropic") == "reachable"
    clock.seconds += 2
    assert telemetry.reachability("anthropic") == "unknown"


# The metrics are made before the fork, as with preload_app. Then each child counts.
WORKERS = """
import os, sys
from tests.observability.test_metrics import RECORD
from llm_service.observability.metrics import Metrics
telemetry = Metrics(["anthropic"], ["messages"])
children = []
for number in range(3):
    pid = os.fork()
    if not pid:
        telemetry.stream_opened()
        for _ in range(number + 1):
            telemetry.record(RECORD)
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
from prometheus_client import multiprocess
multiprocess.mark_process_dead(children[0])
sys.stdout.buffer.write(telemetry.render()[0])
"""


def test_the_numbers_of_all_workers_are_added_up(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WORKERS],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert 'llm_requests_total{dialect="messages",outcome="ok",provider="anthropic"} 6.0' in result.stdout
    assert 'llm_request_seconds_bucket{dialect="messages",le="2.5"} 6.0' in result.stdout
    # The first worker was marked as dead: its open stream does not count any more.
    assert "llm_streams_open 2.0" in result.stdout
