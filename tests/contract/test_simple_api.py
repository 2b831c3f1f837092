"""The simple API for callers without an SDK: its aliases, shapes and streams."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from itertools import pairwise
from typing import Any

import pytest

from llm_service.api import schemas
from tests.contract.cases import CLAUDE, ECHO, GPT, failing, frames
from tests.support.server import Server
from tests.upstream import Step, Upstream

PLAIN = ["/v1/complete", "/complete", "/v1/chat"]
STREAMED = ["/v1/stream", "/stream", "/complete/stream"]
MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "one two three"}]
ANSWER = ["id", "model", "provider", "stop_reason", "text", "usage"]


# ---- shapes


@pytest.mark.parametrize("path", PLAIN)
@pytest.mark.parametrize("asked", [{"prompt": "one two three"}, {"messages": MESSAGES}], ids=["prompt", "messages"])
def test_a_plain_answer_has_its_shape_and_row(service: Server, path: str, asked: dict[str, Any]) -> None:
    response = service.http().post(path, json={"model": ECHO, **asked})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    reply = response.json()
    assert sorted(reply) == ANSWER
    loaded = schemas.Completion().load(reply)
    assert (loaded["text"], loaded["model"], loaded["provider"]) == ("one two three", "echo", "echo")
    assert loaded["stop_reason"] == "end_turn"
    usage = {"input_tokens": 3 + 2 * ("messages" in asked), "output_tokens": 3, "cached_tokens": 0}
    assert reply["usage"] == {**usage, "cost_usd": 0, "exact": True}
    row = service.row(response.headers["x-request-id"])
    assert (row["id"], row["route"], row["dialect"], row["stream"]) == (reply["id"], path, "simple", False)


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize("asked", [{"prompt": "one two three"}, {"messages": MESSAGES}], ids=["prompt", "messages"])
def test_a_streamed_answer_has_its_shape(service: Server, path: str, asked: dict[str, Any]) -> None:
    got = frames(service, path, {"model": ECHO, **asked})
    assert_a_whole_stream(got, ["one", " two", " three"])


@pytest.mark.parametrize("path", PLAIN)
def test_a_plain_route_streams_if_the_body_says_so(service: Server, path: str) -> None:
    got = frames(service, path, {"model": ECHO, "prompt": "one two", "stream": True})
    assert_a_whole_stream(got, ["one", " two"])


@pytest.mark.parametrize("path", STREAMED)
def test_a_streaming_route_streams_whatever_the_body_says(service: Server, path: str) -> None:
    got = frames(service, path, {"model": ECHO, "prompt": "one two", "stream": False})
    assert_a_whole_stream(got, ["one", " two"])


def assert_a_whole_stream(got: list[Any], words: list[str]) -> None:
    """Check that the stream has the deltas, one done event and one [DONE] mark."""
    assert all(frame.event is None and frame.raw.startswith(b"data: ") for frame in got)
    *deltas, done, mark = got
    assert [frame.json for frame in deltas] == [{"delta": word} for word in words]
    assert mark.done
    final = done.json
    assert final.pop("done") is True
    assert sorted([*final, "text"]) == ANSWER
    schemas.Completion(exclude=["text"]).load(final)
    assert final["usage"]["output_tokens"] == len(words)


# ---- both vendors


@pytest.mark.parametrize(("model", "path"), [(GPT, "/v1/chat/completions"), (CLAUDE, "/v1/messages")])
def test_every_parameter_is_translated_for_both_vendors(
    service: Server, upstream: Upstream, model: str, path: str
) -> None:
    upstream.script(Step(text="well said END or not", input_tokens=100, cached_tokens=60, output_tokens=3))
    reply = service.http().post(
        "/v1/complete",
        json={
            "model": model,
            "prompt": "Hi",
            "system": "Be kind.",
            "max_tokens": 20,
            "temperature": 0.5,
            "stop": ["END"],
        },
    )
    assert reply.status_code == 200, reply.text
    seen = upstream.last
    assert seen.path == path
    if model == GPT:
        assert seen.body == {
            "model": "gpt-4o-mini",
            "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
            "max_completion_tokens": 20,
            "temperature": 0.5,
            "stop": ["END"],
            "store": False,
        }
    else:
        assert seen.body == {
            "model": "claude-haiku-4-5",
            "system": [{"type": "text", "text": "Be kind."}],
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 20,
            "temperature": 0.5,
            "stop_sequences": ["END"],
        }
    answer = schemas.Completion().load(reply.json())
    assert answer["text"] == "well said "
    assert answer["provider"] == model.partition("/")[0]
    assert answer["stop_reason"] == ("end_turn" if model == GPT else "stop_sequence")  # OpenAI has one reason for both
    usage = answer["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["cached_tokens"]) == (100, 3, 60)
    assert usage["cost_usd"] > 0 and usage["exact"]


@pytest.mark.parametrize("asked", [{"top_p": 0.5}, {"temperature": 2, "top_p": 0.5}])
def test_a_field_that_the_target_does_not_support_is_dropped_by_name(
    service: Server, upstream: Upstream, asked: dict[str, Any]
) -> None:
    reply = service.http().post("/v1/complete", json={"model": CLAUDE, "prompt": "Hi", **asked})
    assert reply.status_code == 200
    assert reply.headers.get("x-dropped-parameters") == ("top_p" if "temperature" in asked else None)
    service.http().post("/v1/complete", json={"model": "openai/gpt-5", "prompt": "Hi", **asked})
    assert not {"top_p", "temperature"} & set(upstream.last.body)


def test_without_a_model_the_catalogue_s_default_answers(service: Server, upstream: Upstream) -> None:
    reply = service.http().post("/v1/complete", json={"prompt": "Hi"})
    assert reply.status_code == 200
    assert upstream.last.body["model"] == "claude-haiku-4-5"  # the first target of "fast"
    assert service.row(reply.headers["x-request-id"])["model_asked"] == "fast"


def test_an_unknown_price_is_null_and_estimated_usage_is_marked(service: Server, upstream: Upstream) -> None:
    upstream.serve("mystery")
    upstream.script(Step(text="four five", usage=None))
    usage = service.http().post("/v1/complete", json={"model": "openai/mystery", "prompt": "Hi"}).json()["usage"]
    assert usage["cost_usd"] is None
    assert usage["exact"] is False
    assert usage["output_tokens"] > 0


# ---- failures


@pytest.mark.parametrize(
    ("step", "status", "code"),
    [
        (failing(400), 400, "upstream_rejected"),
        (failing(401), 502, "upstream_authentication"),
        (failing(402), 429, "upstream_quota_exhausted"),
        (failing(403), 502, "upstream_authentication"),
        (failing(404), 404, "upstream_rejected"),
        (failing(408), 504, "upstream_timeout"),
        (failing(429), 429, "upstream_rate_limited"),
        (failing(429, error_code="insufficient_quota"), 429, "upstream_quota_exhausted"),
        (failing(500), 500, "upstream_failed"),
        (failing(529), 503, "upstream_overloaded"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/complete", "/v1/stream"])
def test_a_vendor_s_failure_is_a_problem_document(
    service: Server, upstream: Upstream, path: str, step: Step, status: int, code: str
) -> None:
    upstream.script(step)
    reply = service.http().post(path, json={"model": GPT, "prompt": "Hi"})
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    problem = schemas.Problem().load(reply.json())
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"] == f"urn:llm-service:error:{code}"
    assert problem["request_id"] == reply.headers["x-request-id"]
    assert reply.headers["retry-after"] == "30"


def test_a_failure_inside_a_stream_is_an_error_event_without_a_done_mark(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(text="one two three", fault="reset", after=3))
    *deltas, last = frames(service, "/v1/stream", {"model": GPT, "prompt": "Hi"})
    assert deltas and all("delta" in frame.json for frame in deltas)
    assert list(last.json) == ["error"]
    assert sorted(last.json["error"]) == ["message", "type"]
    assert last.json["error"]["type"] == "upstream_broken"


# ---- at a terminal


def test_words_arrive_one_by_one_at_a_terminal(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(pieces=["one", " two", " three"], between=0.15))
    body = json.dumps({"model": GPT, "prompt": "Hi"})
    arrived: list[tuple[float, str]] = []
    for line in lines_of(service, "/v1/stream", body):
        if line.startswith('data: {"delta"'):
            arrived.append((time.monotonic(), json.loads(line[6:])["delta"]))
    assert [word for _, word in arrived] == ["one", " two", " three"]
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(arrived)]
    assert all(0.08 < gap < 0.5 for gap in gaps), gaps


def lines_of(service: Server, path: str, body: str) -> Any:
    """The lines that ``curl -N`` prints, at the time it prints them. Without curl, the lines from the socket."""
    if shutil.which("curl") is None:
        with service.raw() as raw:
            raw.request("POST", path, body.encode(), service.key)
            assert raw.read_head()[0] == 200
            for chunk in raw.iter_body():
                yield from chunk.decode().splitlines()
        return
    # -d without a content type, as people use it.
    words = ["curl", "-sN", f"{service.url}{path}", "-H", f"Authorization: Bearer {service.key}", "-d", body]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, bufsize=1) as curl:
        assert curl.stdout is not None
        yield from curl.stdout
    assert curl.returncode == 0


def test_the_same_request_gives_the_same_stream(service: Server) -> None:
    body = {"model": ECHO, "prompt": "naïve 日本語 🦓 \u2028 end"}
    first, second = (frames(service, "/v1/stream", body) for _ in range(2))
    assert [frame.raw for frame in first[:-2]] == [frame.raw for frame in second[:-2]]
    assert "".join(frame.json["delta"] for frame in first[:-2]) == body["prompt"]
