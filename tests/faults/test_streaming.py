"""Streams: words are relayed at once, a failure never looks like an end, and a disconnected caller is noticed."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import MakeService
from tests.support.server import Server
from tests.support.sse import Frame, read_sse
from tests.upstream import Step, Upstream

OPENAI, ANTHROPIC = "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"
ROUTES = ["/v1/stream", "/v1/chat/completions", "/v1/messages"]
PAIRS = list(itertools.product(ROUTES, [OPENAI, ANTHROPIC]))


def body(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}


def ask(service: Server, route: str, model: str) -> dict[str, Any]:
    return body(model) | ({} if route == "/v1/stream" else {"stream": True})


def words(frames: list[Frame]) -> list[str]:
    """The texts in the frames, in any format."""
    texts = []
    for frame in frames:
        if frame.data is None or frame.done:
            continue
        event = frame.json
        choices = event.get("choices") or [{}]
        delta = event.get("delta")
        text = choices[0].get("delta", {}).get("content") if "choices" in event else None
        text = text or (delta if isinstance(delta, str) else (delta or {}).get("text"))
        if text:
            texts.append(text)
    return texts


def failed(frames: list[Frame]) -> bool:
    return any(frame.data and not frame.done and "error" in frame.json for frame in frames)


def ended(frames: list[Frame]) -> bool:
    """Whether the stream has its terminal event."""
    return any(frame.done or frame.event == "message_stop" for frame in frames)


@pytest.mark.parametrize(("route", "model"), PAIRS)
def test_words_are_relayed_as_they_arrive(service: Server, upstream: Upstream, route: str, model: str) -> None:
    upstream.script(Step(pieces=["one ", "two ", "three ", "four"], between=0.15))
    with service.http().stream("POST", route, json=ask(service, route, model)) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        frames = list(read_sse(response))
    assert "".join(words(frames)) == "one two three four"
    assert ended(frames) and not failed(frames)
    times = [frame.at for frame in frames if words([frame])]
    assert len(times) == 4
    assert all(later - earlier > 0.05 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize(("route", "model"), PAIRS)
@pytest.mark.parametrize("fault", ["reset", "close", "end", "error", "malformed"])
def test_a_failed_stream_ends_with_an_error_and_without_a_terminal_event(
    service: Server, upstream: Upstream, route: str, model: str, fault: str
) -> None:
    upstream.script(Step(words=20, fault=fault, after=8))
    with service.http().stream("POST", route, json=ask(service, route, model)) as response:
        assert response.status_code == 200
        frames = list(read_sse(response))
    assert failed(frames) and not ended(frames)
    row = service.row(response.headers["x-request-id"])
    assert (row["outcome"], row["status"]) == ("upstream_error", 200)
    assert row["usage_exact"] is False
    assert row["output_tokens"] > 0 or not words(frames)


@pytest.mark.parametrize(("route", "model"), PAIRS)
def test_a_stream_without_its_terminal_event_has_failed(
    service: Server, upstream: Upstream, route: str, model: str
) -> None:
    # A chat stream with a finish_reason is whole without [DONE] too, if its body ends properly.
    upstream.script(Step(words=3, done=False, finish=model == ANTHROPIC))
    with service.http().stream("POST", route, json=ask(service, route, model)) as response:
        frames = list(read_sse(response))
    assert failed(frames) and not ended(frames)


@pytest.mark.parametrize(("route", "model"), PAIRS)
def test_a_failure_before_the_first_event_has_its_status(
    service: Server, upstream: Upstream, route: str, model: str
) -> None:
    upstream.script(Step(status=400, message="max_tokens: too many"))
    response = service.http().post(route, json=ask(service, route, model))
    assert response.status_code == 400
    assert response.headers["content-type"] in ("application/json", "application/problem+json")
    assert service.row(response.headers["x-request-id"])["outcome"] == "upstream_error"


def test_a_stream_that_is_split_at_every_byte_is_relayed_correctly(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(text="grüße an alle 🎉", split=1), Step(text="grüße an alle 🎉", split=1))
    for route, model in (("/v1/chat/completions", OPENAI), ("/v1/stream", ANTHROPIC)):
        with service.http().stream("POST", route, json=ask(service, route, model)) as response:
            frames = list(read_sse(response))
        assert "".join(words(frames)) == "grüße an alle 🎉"


@pytest.mark.parametrize(
    "step", [Step(before_headers=0.7), Step(before_first=0.7), Step(words=4, fault="stall", after=5, pause=0.7)]
)
def test_silence_gets_comments_before_and_after_the_first_event(
    shared_service: MakeService, upstream: Upstream, step: Step
) -> None:
    service = shared_service(LLM_SERVICE_KEEP_ALIVE="0.2")
    upstream.always(step)
    client = service.http()

    def frames_of(route: str, model: str) -> list[Frame]:
        with client.stream("POST", route, json=ask(service, route, model)) as response:
            return list(read_sse(response))

    routes = {"/v1/stream": OPENAI, "/v1/chat/completions": OPENAI, "/v1/messages": ANTHROPIC}
    with ThreadPoolExecutor(len(routes)) as pool:
        for route, frames in zip(routes, pool.map(frames_of, routes, routes.values()), strict=True):
            quiet = [frame for frame in frames if frame.data is None or frame.event == "ping"]
            assert len(quiet) >= 2, route
            assert ended(frames), route


def test_after_keep_alives_a_failure_is_in_band_and_fallback_still_works(
    shared_service: MakeService, upstream: Upstream
) -> None:
    service = shared_service(LLM_SERVICE_KEEP_ALIVE="0.2")
    upstream.script(Step(before_headers=0.6, status=400))
    with service.http().stream("POST", "/v1/stream", json=body(OPENAI)) as response:
        frames = list(read_sse(response))
    assert response.status_code == 200 and failed(frames) and not ended(frames)
    upstream.script(Step(before_headers=0.6, status=500), Step(text="second try"))
    with service.http().stream("POST", "/v1/stream", json=body(OPENAI)) as response:
        frames = list(read_sse(response))
    assert "".join(words(frames)) == "second try" and ended(frames)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "step",
    [Step(fault="hang", after=-1), Step(fault="hang", after=0), Step(words=50, between=0.02, fault="hang", after=10)],
    ids=["before the headers", "before the first token", "after some words"],
)
def test_a_caller_that_disconnects_ends_the_upstream_call_within_a_second(
    service: Server, upstream: Upstream, route: str, step: Step
) -> None:
    upstream.script(step)
    model = ANTHROPIC if route == "/v1/messages" else OPENAI
    with service.raw() as raw:
        raw.request("POST", route, ask(service, route, model), service.key, {"X-Request-Id": request_id()})
        upstream.wait_requests(1)
        if step.words:
            raw.read_until(b"delta")
        time.sleep(0.3)
        disconnected_at = time.monotonic()
    (seen,) = upstream.wait_closed(1, timeout=3)
    assert seen.gone_at is not None and seen.gone_at - disconnected_at < 1
    row = service.row(last_id())
    assert (row["outcome"], row["status"], row["usage_exact"]) == ("client_closed", 499, False)
    assert row["input_tokens"] > 0
    assert (row["output_tokens"] > 0) == bool(step.words)
    assert row["cost_nanousd"] > 0


@pytest.mark.parametrize("route", ["/v1/complete", "/v1/chat/completions", "/v1/messages"])
def test_a_caller_that_disconnects_ends_a_plain_upstream_call_too(
    service: Server, upstream: Upstream, route: str
) -> None:
    upstream.script(Step(fault="hang", after=-1))
    with service.raw() as raw:
        raw.request("POST", route, body(OPENAI), service.key, {"X-Request-Id": request_id()})
        upstream.wait_requests(1)
        time.sleep(0.1)
        disconnected_at = time.monotonic()
    (seen,) = upstream.wait_closed(1, timeout=3)
    assert seen.gone_at is not None and seen.gone_at - disconnected_at < 1
    assert service.row(last_id())["outcome"] == "client_closed"


def test_no_retry_is_made_for_a_caller_that_disconnects_between_two_attempts(
    service: Server, upstream: Upstream
) -> None:
    upstream.script(Step(status=500), Step(text="never sent"))
    with service.raw() as raw:
        raw.request("POST", "/v1/complete", body(OPENAI), service.key, {"X-Request-Id": request_id()})
        upstream.wait_requests(1)
        time.sleep(0.1)
    assert service.row(last_id())["outcome"] == "client_closed"
    time.sleep(0.8)
    assert len(upstream.requests) == 1


def test_a_caller_that_stops_reading_does_not_keep_the_call_open_forever(
    make_service: MakeService, upstream: Upstream
) -> None:
    service = make_service(LLM_SERVICE_SEND_TIMEOUT="1")
    upstream.script(Step(fault="huge", after=3, size=16 << 20, words=5))
    with service.raw(receive_buffer=4096) as raw:
        raw.request("POST", "/v1/stream", body(OPENAI), service.key, {"X-Request-Id": request_id()})
        row = service.wait_rows(1, timeout=15, request_id=last_id())[0]
    assert row["outcome"] == "client_closed"


_ids = itertools.count()
_last = ""


def request_id() -> str:
    global _last
    _last = f"faults-{time.monotonic_ns()}-{next(_ids)}"
    return _last


def last_id() -> str:
    return _last
