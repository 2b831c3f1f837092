"""A vendor that is slow, faulty or hostile: wrong answers, time-outs, retries and fallback."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import MakeService, settings_for
from tests.support.server import Server
from tests.support.valkey import Valkey
from tests.upstream import Step, Upstream, redirect

OPENAI, ANTHROPIC = "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"
ROUTES = ["/v1/complete", "/v1/chat/completions", "/v1/messages"]

CATALOGUE = """
[defaults]
attempts = 2
retry_after_cap = 1
[defaults.timeouts]
connect = 1
first_byte = 0.5
idle = 0.5
total = 1.5
[tiers.default]
[providers.openai]
kind = "openai"
key_env = "OPENAI_API_KEY"
base_url_env = "OPENAI_BASE_URL"
prices = "openai"
[providers.anthropic]
kind = "anthropic"
key_env = "ANTHROPIC_API_KEY"
base_url_env = "ANTHROPIC_BASE_URL"
prices = "anthropic"
[providers.dead]
kind = "openai"
keyless = true
base_url = "http://127.0.0.1:1/v1"
[providers.local]
kind = "openai"
keyless = true
base_url = "{local}"
max_tokens_field = "max_tokens"
[aliases.fast]
targets = ["openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"]
[aliases.last]
targets = ["dead/anything", "anthropic/claude-haiku-4-5"]
[models."openai/gpt-4o"]
timeouts = {{ first_byte = 5, total = 6 }}
"""


def body(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100, **more}


@pytest.fixture(scope="module")
def short_timeouts(
    upstream_server: Upstream, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service with time-outs of half a second, two attempts, and aliases with a fallback."""
    folder = tmp_path_factory.mktemp("short_timeouts")
    catalogue = folder / "models.toml"
    catalogue.write_text(CATALOGUE.format(local=upstream_server.compatible_url))
    environ = settings_for(upstream_server, valkey, WEB_CONCURRENCY="1", LLM_SERVICE_MODELS=str(catalogue))
    with Server(folder, environ) as server:
        yield server


def message_of(reply: Any) -> str:
    error = reply.get("error", reply)
    return str(error.get("message") or error.get("detail"))


@pytest.mark.parametrize(
    ("step", "status"),
    [
        (Step(body="<html>It works!</html>", content_type="text/html"), 502),
        (Step(body="[1, 2]"), 502),
        (Step(body='{"object": "surprise"}'), 502),
        (Step(fault="end", after=20), 502),
        (Step(fault="close", after=20), 502),
        (Step(duplicate_length=True), 502),
        (redirect("http://127.0.0.1:9/"), 502),
    ],
    ids=["html", "a list", "another object", "cut json", "cut body", "two lengths", "redirect"],
)
def test_an_answer_that_is_not_valid_is_a_502_and_never_half_an_answer(
    service: Server, upstream: Upstream, step: Step, status: int
) -> None:
    upstream.always(step)
    client, pairs = service.http(), list(itertools.product(ROUTES, [OPENAI, ANTHROPIC]))
    with ThreadPoolExecutor(len(pairs)) as pool:  # All at once, because each call waits between its attempts.
        responses = list(pool.map(lambda pair: client.post(pair[0], json=body(pair[1])), pairs))
    for pair, response in zip(pairs, responses, strict=True):
        assert response.status_code == status, pair
        assert "http" not in message_of(response.json()) and "127.0.0.1" not in response.text, pair
        assert service.row(response.headers["x-request-id"])["outcome"] == "upstream_error", pair


@pytest.mark.parametrize("route", ROUTES)
def test_a_compressed_answer_is_read_even_if_it_was_not_asked_for(
    service: Server, upstream: Upstream, route: str
) -> None:
    upstream.script(Step(text="small", gzip=True), Step(text="small", gzip=True))
    assert "small" in service.http().post(route, json=body(OPENAI)).text
    stream = service.http().post("/v1/stream", json=body(OPENAI)).text
    assert "small" in stream and "[DONE]" in stream


@pytest.mark.parametrize(
    ("usage", "exact"),
    [
        (None, False),
        ({"prompt_tokens": -5}, False),
        ({"completion_tokens": 2**70}, False),
        ({"completion_tokens": 1.5}, False),
        ({"prompt_tokens": "12"}, False),
        ({}, True),
    ],
)
def test_usage_that_cannot_be_true_is_estimated_and_marked_as_not_exact(
    service: Server, upstream: Upstream, usage: dict[str, Any] | None, exact: bool
) -> None:
    upstream.script(Step(text="one two three", usage=usage), Step(text="one two three", usage=usage))
    for route in ("/v1/chat/completions", "/v1/complete"):
        response = service.http().post(route, json=body(OPENAI))
        assert response.status_code == 200
        row = service.row(response.headers["x-request-id"])
        assert row["usage_exact"] is exact
        assert 0 <= row["input_tokens"] < 10**6 and 0 < row["output_tokens"] < 10**6
        assert row["cost_nanousd"] > 0


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Step(fault="hang", after=-1), "upstream_first_byte_timeout"),
        (Step(fault="hang", after=20), "upstream_idle_timeout"),
        (Step(words=60, between=0.4), "upstream_total_timeout"),
    ],
)
def test_every_wait_for_the_vendor_has_a_time_out(
    short_timeouts: Server, upstream: Upstream, step: Step, code: str
) -> None:
    upstream.always(step)
    started = time.monotonic()
    response = short_timeouts.http().post("/v1/complete", json=body(OPENAI))
    assert response.status_code == 504
    assert time.monotonic() - started < 6
    row = short_timeouts.row(response.headers["x-request-id"])
    assert (row["outcome"], row["error_type"], row["attempts"]) == ("timeout", code, 2)
    if step.fault == "hang":
        assert len(upstream.wait_closed(2, timeout=3)) == 2


def test_time_outs_can_be_set_per_model(short_timeouts: Server, upstream: Upstream) -> None:
    upstream.script(Step(before_headers=1, text="late but welcome"))
    assert "late but welcome" in short_timeouts.http().post("/v1/complete", json=body("openai/gpt-4o")).text


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_a_temporary_failure_is_tried_again(short_timeouts: Server, upstream: Upstream, status: int) -> None:
    upstream.script(Step(status=status), Step(text="at last"))
    response = short_timeouts.http().post("/v1/complete", json=body(OPENAI))
    assert response.json()["text"] == "at last"
    assert short_timeouts.row(response.headers["x-request-id"])["attempts"] == 2


@pytest.mark.parametrize("fault", [Step(fault="reset", after=-1), Step(fault="close", after=-1)])
def test_a_connection_that_fails_before_an_answer_is_tried_again(
    short_timeouts: Server, upstream: Upstream, fault: Step
) -> None:
    upstream.script(fault, Step(text="at last"))
    assert short_timeouts.http().post("/v1/complete", json=body(OPENAI)).json()["text"] == "at last"


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_rejection_is_not_retried_and_keeps_its_status(
    short_timeouts: Server, upstream: Upstream, status: int
) -> None:
    upstream.script(Step(status=status), Step(text="never"))
    response = short_timeouts.http().post("/v1/complete", json=body("fast"))
    assert response.status_code == status
    assert len(upstream.requests) == 1


def test_a_retry_after_within_the_cap_is_obeyed(short_timeouts: Server, upstream: Upstream) -> None:
    upstream.script(Step(status=429, headers={"retry-after": "1"}), Step(text="thanks for waiting"))
    assert short_timeouts.http().post("/v1/complete", json=body(OPENAI)).status_code == 200
    first, second = upstream.requests
    assert second.arrived - first.arrived >= 1


def test_a_retry_after_above_the_cap_is_passed_on(short_timeouts: Server, upstream: Upstream) -> None:
    upstream.script(Step(status=429, headers={"retry-after": "30"}))
    response = short_timeouts.http().post("/v1/chat/completions", json=body(OPENAI))
    assert (response.status_code, response.headers["retry-after"]) == (429, "30")
    assert response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1


def test_an_alias_falls_back_to_the_next_target(short_timeouts: Server, upstream: Upstream) -> None:
    upstream.script(Step(status=500, model="gpt*", times=2), Step(text="from the other", model="claude*"))
    for path in ("/v1/complete", "/v1/stream"):
        response = short_timeouts.http().post(path, json=body("fast"))
        row = short_timeouts.row(response.headers["x-request-id"])
        assert (row["provider"], row["model_asked"], row["attempts"]) == ("anthropic", "fast", 3)
        assert row["model_served"].startswith("claude-haiku-4-5")
        upstream.script(Step(status=500, model="gpt*", times=2), Step(text="from the other", model="claude*"))


def test_an_unreachable_provider_is_replaced_by_the_next_target(short_timeouts: Server, upstream: Upstream) -> None:
    upstream.script(Step(text="here"))
    assert short_timeouts.http().post("/v1/complete", json=body("last")).json()["text"] == "here"
    response = short_timeouts.http().post("/v1/complete", json=body("dead/anything"))
    assert response.status_code == 502
    ready = short_timeouts.http(key="").get("/ready").json()
    assert ready["providers"]["dead"] == "unreachable"
    assert ready["providers"]["anthropic"] == "reachable"


def test_there_is_no_fallback_after_the_first_word(short_timeouts: Server, upstream: Upstream) -> None:
    upstream.script(Step(words=20, fault="reset", after=6, model="gpt*"), Step(text="never", model="claude*"))
    text = short_timeouts.http().post("/v1/stream", json=body("fast")).text
    assert "error" in text and "[DONE]" not in text and "never" not in text
    assert len(upstream.requests) == 1


def test_an_openai_compatible_server_needs_one_row_of_the_catalogue(short_timeouts: Server, upstream: Upstream) -> None:
    upstream.serve("mistral-7b")
    upstream.script(Step(text="bonjour", lenient=True))
    response = short_timeouts.http().post("/v1/messages", json=body("local/mistral-7b"))
    assert response.json()["content"] == [{"type": "text", "text": "bonjour"}]
    assert upstream.last.body["max_tokens"] == 100
    row = short_timeouts.row(response.headers["x-request-id"])
    assert (row["provider"], row["cost_nanousd"]) == ("local", None)


def test_a_connection_that_the_vendor_closed_while_idle_causes_no_failure(service: Server, upstream: Upstream) -> None:
    for _ in range(4):
        upstream.script(Step(text="fine", then="close_on_next"))
        response = service.http().post("/v1/complete", json=body(OPENAI))
        assert response.status_code == 200


def test_connections_to_the_vendor_are_reused_after_streams(make_service: MakeService, upstream: Upstream) -> None:
    service = make_service()
    for _ in range(6):
        assert "[DONE]" in service.http().post("/v1/stream", json=body(OPENAI)).text
        assert "[DONE]" in service.http().post("/v1/stream", json=body(ANTHROPIC)).text
    assert len({seen.connection for seen in upstream.requests}) <= 2
