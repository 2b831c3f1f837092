"""A clean stop under load loses no row: every call that the vendor saw or a caller got an answer to is in the log."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter

import httpx2
import pytest

from tests.conftest import MakeService
from tests.support.server import TLS, Server
from tests.upstream import Step, Upstream

OPENAI = "openai/gpt-4o-mini"


def callers(service: Server, stop: threading.Event, request_ids: list[str], count: int) -> list[threading.Thread]:
    """Start callers that make one call after another and record the request id of every reply that starts."""

    def run(number: int) -> None:
        body = {"model": OPENAI, "prompt": "Hi"}
        route = "/v1/stream" if number % 2 else "/v1/complete"
        headers = {"Authorization": f"Bearer {key}"}
        with httpx2.Client(base_url=service.url, headers=headers, timeout=30, verify=TLS) as client:
            while not stop.is_set():
                try:
                    with client.stream("POST", route, json=body) as response:
                        request_ids.append(response.headers["x-request-id"])
                        response.read()
                except httpx2.HTTPError:
                    time.sleep(0.01)

    key = service.key
    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_loses_no_row(make_service: MakeService, upstream: Upstream, number: int) -> None:
    service = make_service(WEB_CONCURRENCY="2", LLM_SERVICE_GRACEFUL_TIMEOUT="10")
    upstream.always(Step(words=10, between=0.01))
    stop = threading.Event()
    request_ids: list[str] = []
    threads = callers(service, stop, request_ids, 16)
    time.sleep(1.5)
    assert service.stop(number) == 0
    stop.set()
    for thread in threads:
        thread.join(30)
    rows = service.rows()
    ids = Counter(row["request_id"] for row in rows)
    assert len(request_ids) > 16, "each caller must have had at least one answer"
    assert [request_id for request_id in request_ids if ids[request_id] != 1] == []
    # A call that is stopped just before it is sent has an attempt in its row, although the vendor has not seen it.
    assert len([row for row in rows if row["attempts"]]) >= len(upstream.requests)


def test_streams_that_are_open_at_the_drain_deadline_end_with_an_error_event(
    make_service: MakeService, upstream: Upstream
) -> None:
    service = make_service(LLM_SERVICE_GRACEFUL_TIMEOUT="6")
    upstream.always(Step(words=400, between=0.05))
    frames: list[str] = []

    def read() -> None:
        with service.http().stream("POST", "/v1/stream", json={"model": OPENAI, "prompt": "Hi"}) as response:
            frames.extend(response.iter_lines())

    assert service.key
    thread = threading.Thread(target=read)
    thread.start()
    upstream.wait_requests(1)
    time.sleep(0.5)
    started = time.monotonic()
    service.send_signal(signal.SIGTERM)
    thread.join(10)
    assert service.wait() == 0
    assert time.monotonic() - started < 6
    assert any("service_stopping" in line for line in frames) and "data: [DONE]" not in frames
    (row,) = service.rows(route="/v1/stream")
    assert (row["outcome"], row["error_type"], row["usage_exact"]) == ("aborted", "service_stopping", False)
    assert row["output_tokens"] > 0
