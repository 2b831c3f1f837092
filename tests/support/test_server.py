"""The servers and clients that the other tests use work."""

from __future__ import annotations

import time
from collections.abc import Callable

import anthropic
import openai
import pytest

from tests.support.raw import Raw
from tests.support.server import Server, StartFailed
from tests.support.sse import read_sse
from tests.upstream import Step, Upstream


def test_a_service_answers_writes_rows_and_ends_cleanly(make_service: Callable[..., Server]) -> None:
    service = make_service()
    reply = service.http().post("/v1/complete", json={"model": "echo", "prompt": "marker-7f3a"})
    assert reply.status_code == 200
    assert service.row(reply.headers["x-request-id"])["outcome"] == "ok"
    assert len(service.workers()) == 1
    assert service.places_with("marker-7f3a") == []
    assert service.stop() == 0
    assert service.stray_lines() == []
    assert len(service.log_lines(request_id=reply.headers["x-request-id"])) == 1


def test_a_killed_service_starts_again_with_its_keys(make_service: Callable[..., Server]) -> None:
    service = make_service(redis="embedded")
    key = service.create_key(org="acme").text
    service.kill()
    service.start()
    assert service.http(key).get("/v1/key").status_code == 200
    assert "acme" in [row["org"] for row in service.cli_json("keys", "list")]


def test_a_failed_start_reports_its_reason(make_service: Callable[..., Server]) -> None:
    with pytest.raises(StartFailed, match="WEB_CONCURRENCY"):
        make_service(WEB_CONCURRENCY="none")


def test_the_service_works_with_both_databases(any_service: Server, upstream: Upstream) -> None:
    body = {"model": "gpt-4o-mini", "prompt": "Hello"}
    reply = any_service.http().post("/v1/complete", json=body)
    assert reply.status_code == 200, reply.text
    row = any_service.row(reply.headers["x-request-id"])
    billed = upstream.last.billed
    assert billed is not None
    assert (row["input_tokens"], row["output_tokens"]) == (billed.input_tokens, billed.output_tokens)


def test_the_official_clients_reach_the_vendor(
    upstream: Upstream, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    upstream.script(Step(text="From OpenAI"), Step(text="From Anthropic"))
    completion = openai_client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
    message = anthropic_client.messages.create(
        model="claude-haiku-4-5", max_tokens=20, messages=[{"role": "user", "content": "Hi"}]
    )
    assert completion.choices[0].message.content == "From OpenAI"
    assert message.content[0].to_dict()["text"] == "From Anthropic"
    assert [seen.path for seen in upstream.requests] == ["/v1/chat/completions", "/v1/messages"]


def test_frames_have_the_time_of_their_arrival(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(pieces=["a", "b", "c"], between=0.1))
    with service.raw() as raw:
        raw.request("POST", "/v1/stream", {"model": "gpt-4o", "prompt": "Hi"}, service.key)
        assert raw.read_head()[0] == 200
        frames = list(read_sse(raw))
    deltas = [frame for frame in frames if frame.data and not frame.done and "delta" in frame.json]
    assert [frame.json["delta"] for frame in deltas] == ["a", "b", "c"]
    assert frames[-1].done
    assert deltas[2].at - deltas[0].at > 0.15


def test_the_vendor_notices_a_client_that_disconnects(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(fault="hang", after=-1))
    raw = Raw(service.url)
    raw.request("POST", "/v1/stream", {"model": "gpt-4o", "prompt": "Hi"}, service.key)
    upstream.wait_requests(1)
    disconnected_at = time.monotonic()
    raw.close()
    gone = upstream.wait_closed(1, timeout=3)[0].gone_at
    assert gone is not None
    assert gone - disconnected_at < 1
