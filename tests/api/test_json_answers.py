"""``X-JSON-Answer`` over sockets: answers it does not touch, requests it rejects, and that it reports what it did."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.conftest import MakeService
from tests.contract.cases import CLAUDE, ECHO, GPT
from tests.support.server import Server
from tests.upstream import Step, Upstream

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
GOOD, MALFORMED, WRONG = '{"city": "Paris"}', "{'city': 'Paris',", '{"city": 7}'
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
MARKER = "zebra9unicorn"
both = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


def chat(schema: Any = SCHEMA, model: str = GPT, **more: Any) -> dict[str, Any]:
    format = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
    return {"model": model, "messages": [{"role": "user", "content": "Where?"}], "response_format": format, **more}


def ask(service: Server, body: dict[str, Any], mode: str | None = "retry", path: str = CHAT) -> httpx2.Response:
    return service.http().post(path, json=body, headers={} if mode is None else {"X-JSON-Answer": mode})


# ---- without a mode


@both
@pytest.mark.parametrize("mode", [None, "off"])
@pytest.mark.parametrize("text", [GOOD, MALFORMED, WRONG])
def test_without_a_mode_no_answer_is_checked(
    service: Server, upstream: Upstream, stream: bool, mode: str | None, text: str
) -> None:
    upstream.script(Step(text=text))
    reply = ask(service, chat(stream=stream), mode)
    assert reply.status_code == 200 and "x-json-answer" not in reply.headers
    if stream:
        pieces = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
        assert sum(bool(piece["choices"] and piece["choices"][0]["delta"].get("content")) for piece in pieces) > 1
    else:
        assert reply.json()["choices"][0]["message"]["content"] == text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"model": GPT, "messages": [{"role": "user", "content": "Hi"}]}),
        (CHAT, chat() | {"response_format": {"type": "text"}}),
        (MESSAGES, {"model": CLAUDE, "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}),
        (RESPONSES, {"model": GPT, "input": "Hi", "text": {"format": {"type": "text"}}}),
        ("/v1/complete", {"model": ECHO, "prompt": "Hi"}),
        ("/v1/embeddings", {"model": ECHO, "input": "Hi"}),
    ],
)
def test_an_answer_to_a_request_without_json_is_not_checked(
    service: Server, upstream: Upstream, path: str, body: dict[str, Any]
) -> None:
    reply = ask(service, body, "retry", path)
    assert reply.status_code == 200 and "x-json-answer" not in reply.headers


def test_a_valid_stream_is_passed_on_byte_for_byte(service: Server, upstream: Upstream) -> None:
    streams = []
    for mode in ("off", "retry"):
        upstream.script(Step(id="chatcmpl-same", text=GOOD))
        body = chat(stream=True, stream_options={"include_usage": True})
        streams.append(re.sub(rb'"created": ?[0-9]+', b"", ask(service, body, mode).content))
    assert streams[0] == streams[1] and streams[0].count(b"data: ") > 4


# ---- rejected before anything is sent


def test_an_unknown_mode_is_rejected(service: Server, upstream: Upstream) -> None:
    reply = ask(service, chat(), f"please {MARKER}")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "X-JSON-Answer")
    assert "off, check, repair, retry" in reply.text and MARKER not in reply.text
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": MARKER}, "is not a valid JSON schema"),
        ({"$ref": f"http://127.0.0.1:1/{MARKER}"}, "nothing is fetched"),
        ({"description": "x" * 70_000}, "is longer than 65536 bytes"),
    ],
)
def test_a_schema_that_cannot_be_used_is_rejected_by_its_path(
    service: Server, upstream: Upstream, schema: Any, reason: str
) -> None:
    for path, body, schema_path in (
        (CHAT, chat(schema), "response_format.json_schema.schema"),
        (
            RESPONSES,
            {"model": GPT, "input": "Hi", "text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}},
            "text.format.schema",
        ),
        (
            MESSAGES,
            {
                "model": CLAUDE,
                "max_tokens": 9,
                "messages": [{"role": "user", "content": "Hi"}],
                "output_config": {"format": {"type": "json_schema", "schema": schema}},
            },
            "output_config.format.schema",
        ),
    ):
        reply = ask(service, body, "check", path)
        assert reply.status_code == 400, reply.text
        assert reason in reply.text and schema_path in reply.text and MARKER not in reply.text
        row = service.row(reply.headers["x-request-id"])
        assert (row["outcome"], row["error_type"], row["attempts"]) == ("refused", "invalid_request", 0)
    assert upstream.requests == []


# ---- passed on unchecked, and reported as unchecked


@both
@pytest.mark.parametrize(
    ("step", "more"),
    [
        (Step(text=MALFORMED, stop_reason="max_tokens"), {}),
        (Step(refusal="I must not say"), {}),
        (Step(tools=[{"name": "look", "input": {}}]), {"tools": [TOOL]}),
        (Step(text=MALFORMED), {"n": 2}),
        (Step(pieces=["x" * 300_000]), {}),
    ],
    ids=["cut", "refused", "tool", "choices", "long"],
)
def test_an_answer_that_cannot_be_checked_is_passed_on_as_unchecked(
    service: Server, upstream: Upstream, stream: bool, step: Step, more: dict[str, Any]
) -> None:
    upstream.script(step)
    reply = ask(service, chat(stream=stream, **more))
    assert (reply.status_code, reply.headers["x-json-answer"]) == (200, "unchecked")
    assert len(upstream.requests) == 1
    if step.refusal is None and not step.tools:
        assert "city" in reply.text or "xxx" in reply.text


@both
def test_json_whose_check_takes_too_long_is_passed_on_and_delays_no_other_caller(
    shared_service: MakeService, upstream: Upstream, stream: bool
) -> None:
    service = shared_service()
    other_caller, waits = service.http(), []
    other_caller.get("/health")
    upstream.script(Step(pieces=[json.dumps({"city": "a" * 40 + "b"})]))
    hostile = {"properties": {"city": {"pattern": "^(a+)+$"}}}
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(ask, service, chat(hostile, stream=stream))
        while not slow.done():
            began = time.monotonic()
            assert other_caller.get("/health").status_code == 200
            waits.append(time.monotonic() - began)
            time.sleep(0.02)
    assert slow.result().headers["x-json-answer"] == "unchecked"
    assert len(waits) > 20 and sorted(waits)[len(waits) // 2] < 0.2


@both
def test_an_answer_that_cannot_be_repaired_in_time_is_asked_for_again(
    service: Server, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Step(pieces=["{a:b," * 4_000]), Step(text=GOOD))
    assert ask(service, chat(stream=stream)).headers["x-json-answer"] == "retried"


def test_a_second_answer_that_cannot_be_checked_is_passed_on_and_both_are_counted(
    service: Server, upstream: Upstream
) -> None:
    upstream.script(
        Step(text=WRONG, input_tokens=40, output_tokens=9),
        Step(refusal="No more", input_tokens=60, output_tokens=5),
    )
    reply = ask(service, chat())
    assert (reply.status_code, reply.headers["x-json-answer"]) == (200, "retried, unchecked")
    usage = reply.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (100, 14)


# ---- failures


@both
@pytest.mark.parametrize(
    ("mode", "text"), [("check", MALFORMED), ("check", WRONG), ("repair", WRONG), ("repair", "Well")]
)
def test_without_a_retry_a_wrong_answer_is_an_error(
    service: Server, upstream: Upstream, stream: bool, mode: str, text: str
) -> None:
    upstream.script(Step(text=text, input_tokens=40, output_tokens=9))
    reply = ask(service, chat(stream=stream), mode)
    assert reply.status_code == 502 and reply.json()["error"]["code"] == "invalid_json_answer"
    assert len(upstream.requests) == 1
    row = service.row(reply.headers["x-request-id"])
    assert (row["input_tokens"], row["output_tokens"], row["attempts"]) == (40, 9, 1)
    assert row["cost_nanousd"] > 0


@both
def test_a_failed_retry_reports_its_failure_and_the_first_answer_is_charged(
    service: Server, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Step(text=WRONG, input_tokens=40, output_tokens=9), Step(status=429, headers={"retry-after": "99"}))
    reply = ask(service, chat(stream=stream))
    assert reply.status_code == 429
    row = service.row(reply.headers["x-request-id"])
    assert (row["error_type"], row["attempts"]) == ("upstream_rate_limited", 2)
    assert (row["input_tokens"], row["output_tokens"], row["usage_exact"]) == (40, 9, True)


def test_a_caller_that_disconnects_during_the_retry_pays_for_the_first_answer(
    service: Server, upstream: Upstream
) -> None:
    upstream.script(Step(text=WRONG, input_tokens=4000, output_tokens=9), Step(fault="hang", after=-1))
    client = service.http()
    with pytest.raises(httpx2.TimeoutException):
        client.post(
            CHAT,
            json=chat(),
            headers={"X-JSON-Answer": "retry", "X-Request-Id": "disconnected-in-the-second"},
            timeout=2,
        )
    client.close()
    row = service.row("disconnected-in-the-second", timeout=10)
    assert (row["outcome"], row["attempts"], row["usage_exact"]) == ("client_closed", 2, False)
    assert row["input_tokens"] > 4000


def test_a_caller_that_disconnects_from_a_held_stream_pays_for_what_was_produced(
    service: Server, upstream: Upstream
) -> None:
    upstream.script(Step(words=400, fault="hang", after=60))
    client = service.http()
    with pytest.raises(httpx2.TimeoutException):
        client.post(
            CHAT,
            json=chat(stream=True),
            headers={"X-JSON-Answer": "check", "X-Request-Id": "disconnected-held"},
            timeout=1.5,
        )
    client.close()
    row = service.row("disconnected-held", timeout=10)
    sent = upstream.last.text_sent
    assert (row["outcome"], row["usage_exact"]) == ("client_closed", False)
    assert 40 < row["output_tokens"] <= len(sent) // 4 + 1 and row["cost_nanousd"] > 0


def test_a_held_stream_is_kept_alive_and_ends_with_its_answer_or_its_error(
    make_service: MakeService, upstream: Upstream
) -> None:
    service = make_service(LLM_SERVICE_KEEP_ALIVE="0.2")
    for text, ending in ((GOOD, b"data: [DONE]"), (WRONG, b"invalid_json_answer")):
        upstream.script(Step(pieces=list(text), between=0.06))
        reply = ask(service, chat(stream=True), "check")
        assert reply.status_code == 200 and "x-json-answer" not in reply.headers
        comments, data, rest = reply.content.partition(b"data: ")
        assert comments.count(b": keep-alive") >= 2 and ending in data + rest
        assert rest.endswith(b"[DONE]\n\n") is (text == GOOD)


# ---- privacy


def test_no_content_of_an_answer_or_a_schema_is_stored_or_logged(service: Server, upstream: Upstream) -> None:
    schema = {"properties": {MARKER: {"enum": [MARKER]}}, "required": [MARKER], "additionalProperties": False}
    for text in (f"{MARKER} {{", f'{{"{MARKER}": "{MARKER}2"}}', f'{{"other{MARKER}": 1}}'):
        for mode, stream in (("check", False), ("retry", True)):
            upstream.script(Step(text=text), Step(text=text))
            reply = ask(service, chat(schema, stream=stream), mode)
            assert reply.status_code == 502
            assert f"other{MARKER}" not in reply.text and f"{MARKER}2" not in reply.text
            service.row(reply.headers["x-request-id"])
    assert service.places_with(MARKER) == []


def test_a_page_in_a_browser_may_read_the_header(make_service: MakeService, upstream: Upstream) -> None:
    service = make_service(LLM_SERVICE_CORS_ORIGINS="https://app.example")
    upstream.script(Step(text=GOOD))
    reply = service.http().post(CHAT, json=chat(), headers={"X-JSON-Answer": "check", "Origin": "https://app.example"})
    assert "X-JSON-Answer" in reply.headers["access-control-expose-headers"]


# ---- the mode of a key


def test_a_key_may_set_the_mode_of_its_requests_and_a_request_may_change_it(
    service: Server, upstream: Upstream
) -> None:
    key = service.create_key("repairing", rpm=1000, json_answers="repair").text
    upstream.script(*[Step(text=MALFORMED)] * 3)
    outcomes = []
    for headers in ({}, {"X-JSON-Answer": "off"}, {"X-JSON-Answer": "check"}):
        reply = service.http(key).post(CHAT, json=chat(), headers=headers)
        outcomes.append((reply.status_code, reply.headers.get("x-json-answer")))
    assert outcomes == [(200, "repaired"), (200, None), (502, None)]
