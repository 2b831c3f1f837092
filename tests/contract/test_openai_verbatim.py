"""The official OpenAI client with an OpenAI model: requests and answers are passed on unchanged."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.contract.cases import (
    AWKWARD,
    CALLERS_HEADERS,
    GPT,
    HELLO,
    PIXEL,
    assert_no_header_of_the_caller_was_sent,
    blocks,
    fixture,
    frames,
    recordings,
)
from tests.support.server import Server
from tests.support.sse import read_sse
from tests.upstream import OPENAI_KEY, Step, Upstream

RICH: dict[str, Any] = {
    "messages": [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief.", "shiny": AWKWARD}]},
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                {"type": "kind_of_tomorrow", "anything": [1, None]},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"q": "\\u00e9"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "a pixel"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": True}},
        {"type": "custom", "custom": {"name": "free"}},
    ],
    "tool_choice": {"type": "function", "function": {"name": "look"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    "max_completion_tokens": 77,
    "temperature": 0.30000000000000004,
    "n": 2,
    "logprobs": True,
    "logit_bias": {"50256": -100},
    "metadata": {"a": "b"},
    "reasoning_effort": None,
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
    body = RICH if not stream else {**RICH, "stream": True, "stream_options": {"include_obfuscation": False}}
    client.post("/chat/completions", body={**body, "model": model}, cast_to=object)
    options = {"stream_options": {"include_obfuscation": False, "include_usage": True}} if stream else {}
    assert upstream.last.body == {**body, "model": "gpt-4o", "store": False, **options}
    assert list(upstream.last.body) == [*body, "model", "store"]
    assert upstream.last.headers["authorization"] == f"Bearer {OPENAI_KEY}"
    assert_no_header_of_the_caller_was_sent(upstream.last, service.key)


@pytest.mark.parametrize("name", recordings("openai/chat_json", ".json"))
def test_an_answer_reaches_the_client_unchanged_but_with_its_cost(
    openai_client: openai.OpenAI, upstream: Upstream, name: str
) -> None:
    sent = json.loads(fixture(name)) | {"field_of_tomorrow": AWKWARD}
    upstream.script(Step(body=json.dumps(sent)))
    raw = openai_client.chat.completions.with_raw_response.create(model=GPT, messages=HELLO)
    got = json.loads(raw.text)
    cost = got["usage"].pop("cost_usd")
    assert cost is None or cost > 0
    assert got == sent
    assert raw.parse().choices[0].finish_reason == sent["choices"][0]["finish_reason"]
    assert raw.headers["x-upstream-request-id"] == upstream.last.request_id


@pytest.mark.parametrize("name", recordings("openai/chat_stream", ".sse"))
def test_a_stream_reaches_the_client_unchanged_but_with_its_cost(
    service: Server, upstream: Upstream, name: str
) -> None:
    upstream.script(Step(replay=name))
    body = {"model": GPT, "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    got = [frame.raw for frame in frames(service, "/v1/chat/completions", body)]
    sent = blocks(fixture(name))
    usage_at = [index for index, block in enumerate(sent) if b'"choices":[]' in block.replace(b" ", b"")]
    assert got[-1] == sent[-1] == b"data: [DONE]"
    for index, (received, recorded) in enumerate(zip(got, sent, strict=bool(usage_at))):
        if index in usage_at:
            chunk = json.loads(received[6:])
            assert chunk["usage"].pop("cost_usd", 0) is not None
            assert chunk == json.loads(recorded[6:])
        elif index < len(sent) - 1:
            assert received == recorded


def test_the_stream_helper_reads_openai_s_tool_calls(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(replay="openai/chat_stream/parallel_tool_calls.sse"))
    with openai_client.chat.completions.stream(model=GPT, messages=HELLO) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    names = [call.function.name for call in calls if call.type == "function"]
    assert names == ["GetWeatherArgs", "get_stock_price"]
    assert final.choices[0].finish_reason == "tool_calls"


def test_an_unknown_event_is_passed_through(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(text="one two", fault="unknown", after=2))
    got = frames(service, "/v1/chat/completions", {"model": GPT, "messages": HELLO, "stream": True})
    assert [frame.json["shiny"] for frame in got if frame.data and "shiny" in frame.data] == [True]
    assert got[-1].done


def test_comments_between_events_do_not_disturb_the_client(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(text="one two", fault="inject", after=2, data=": a vendor's own keep-alive\n\n"))
    body = {"model": GPT, "messages": HELLO, "stream": True}
    with service.http().stream("POST", "/v1/chat/completions", json=body) as response:
        got = list(read_sse(response))
    assert any(frame.comment is not None for frame in got)
    upstream.script(Step(text="one two", fault="inject", after=2, data="event: ping\n\n"))
    chunks = list(service.openai().chat.completions.create(model=GPT, messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two"
