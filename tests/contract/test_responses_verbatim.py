"""Responses: the official OpenAI client with an OpenAI model, where requests and answers are passed on unchanged."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.contract.cases import (
    AWKWARD,
    CALLERS_HEADERS,
    GPT,
    assert_no_header_of_the_caller_was_sent,
    blocks,
    fixture,
    frames,
    recordings,
)
from tests.support.server import Server
from tests.upstream import OPENAI_KEY, Step, Upstream

RICH: dict[str, Any] = {
    "input": [
        {"role": "developer", "content": [{"type": "input_text", "text": "Be brief.", "shiny": AWKWARD}]},
        {"type": "item_of_tomorrow", "anything": [1, None]},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"q": "\\u00e9"}'},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "file_id": "file-1"}]},
    ],
    "tools": [{"type": "web_search"}, {"type": "custom", "name": "free"}],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []},
    "text": {"verbosity": "low", "format": {"type": "text"}},
    "include": ["web_search_call.results"],
    "max_output_tokens": 77,
    "temperature": 0.30000000000000004,
    "metadata": {"a": "b"},
    "truncation": "auto",
    "service_tier": "flex",
    "field_of_tomorrow": AWKWARD,
}


@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-4o"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_reaches_openai_unchanged_but_is_not_stored(
    service: Server, upstream: Upstream, model: str, stream: bool
) -> None:
    upstream.script(Step(lenient=True))
    client = service.openai(default_headers=CALLERS_HEADERS)
    body = {**RICH, "stream": True} if stream else RICH
    client.post("/responses", body={**body, "model": model}, cast_to=object)
    assert upstream.last.path == "/v1/responses"
    assert upstream.last.body == {**body, "model": "gpt-4o", "store": False}
    assert upstream.last.headers["authorization"] == f"Bearer {OPENAI_KEY}"
    assert_no_header_of_the_caller_was_sent(upstream.last, service.key)


@pytest.mark.parametrize("name", recordings("openai/responses_json", ".json"))
def test_an_answer_reaches_the_client_unchanged_but_with_its_cost(
    openai_client: openai.OpenAI, upstream: Upstream, name: str
) -> None:
    sent = json.loads(fixture(name)) | {"field_of_tomorrow": AWKWARD}
    upstream.script(Step(body=json.dumps(sent)))
    raw = openai_client.responses.with_raw_response.create(model=GPT, input="Hi")
    got = json.loads(raw.text)
    cost = got["usage"].pop("cost_usd")
    assert cost is None or cost > 0
    assert got == sent
    assert raw.headers["x-upstream-request-id"] == upstream.last.request_id


def test_a_stream_reaches_the_client_unchanged_but_with_its_cost(service: Server, upstream: Upstream) -> None:
    name = "openai/responses/streaming_L17343.sse"
    upstream.script(Step(replay=name))
    got = [frame.raw for frame in frames(service, "/v1/responses", {"model": GPT, "input": "Hi", "stream": True})]
    sent = blocks(fixture(name))
    got = [frame for frame in got if not frame.startswith(b":")]
    sent = [block for block in sent if block.startswith(b"event")]
    assert got[:-1] == sent[:-1]
    last = json.loads(got[-1].partition(b"data: ")[2])
    assert last["response"]["usage"].pop("cost_usd") > 0
    assert last == json.loads(sent[-1].partition(b"data: ")[2])


def test_an_unknown_event_is_passed_through(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(text="one two", fault="unknown", after=3))
    got = list(frames(service, "/v1/responses", {"model": GPT, "input": "Hi", "stream": True}))
    assert any(frame.event == "shiny_new_event" for frame in got)
    assert got[-1].event == "response.completed"
