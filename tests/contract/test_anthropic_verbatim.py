"""The official Anthropic client with an Anthropic model: requests and answers are passed on unchanged."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest

from tests.contract.cases import (
    AWKWARD,
    CALLERS_HEADERS,
    CLAUDE,
    PIXEL,
    assert_no_header_of_the_caller_was_sent,
    blocks,
    fixture,
    frames,
    messages_request,
    recordings,
)
from tests.support.server import Server
from tests.upstream import ANTHROPIC_KEY, Step, Upstream

NEW = "2026-10-21"


RICH: dict[str, Any] = {
    "max_tokens": 2048,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?", "shiny": AWKWARD},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "abc"},
                    "title": "a.txt",
                    "citations": {"enabled": True},
                },
                {"type": "kind_of_tomorrow", "anything": [1, None]},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Let me see \u2028", "signature": "EqQBCg=="},
                {"type": "redacted_thinking", "data": "EmwKAhgB"},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"q": [1.50, {"é": None}]}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "is_error": True,
                    "content": [{"type": "image", "source": {"type": "url", "url": "https://x.invalid/a.png"}}],
                }
            ],
        },
    ],
    "tools": [
        {"name": "look", "input_schema": {"type": "object", "properties": {}}, "cache_control": {"type": "ephemeral"}},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 1},
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"effort": "low"},
    "metadata": {"user_id": "someone"},
    "stop_sequences": ["END"],
    "service_tier": "auto",
    "field_of_tomorrow": AWKWARD,
}


@pytest.mark.parametrize("model", ["claude-haiku-4-5", CLAUDE])
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_reaches_anthropic_unchanged(service: Server, upstream: Upstream, model: str, stream: bool) -> None:
    upstream.script(Step(lenient=True))
    client = service.anthropic(default_headers={**CALLERS_HEADERS, "anthropic-beta": "one-2026-01-01,two-2026-02-02"})
    body = {**RICH, "stream": True} if stream else RICH
    client.post("/v1/messages", body={**body, "model": model}, cast_to=object)
    assert upstream.last.body == {**body, "model": "claude-haiku-4-5"}
    assert list(upstream.last.body) == [*body, "model"]
    headers = upstream.last.headers
    assert headers["authorization"] == f"Bearer {ANTHROPIC_KEY}"
    assert headers["anthropic-version"] == NEW
    assert headers["anthropic-beta"] == "one-2026-01-01,two-2026-02-02"
    assert_no_header_of_the_caller_was_sent(upstream.last, service.key)


def test_the_beta_resource_is_served_too(anthropic_client: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.script(Step(text="Done"))
    message = anthropic_client.beta.messages.create(
        **messages_request(), betas=["one-2026-01-01"], extra_query={"beta": "true"}
    )
    assert message.content[0].to_dict()["text"] == "Done"
    assert upstream.last.headers["anthropic-beta"] == "one-2026-01-01"


def plain_recordings() -> list[str]:
    """All recorded plain answers as FILE#NUMBER."""
    names = []
    for name in recordings("anthropic/recorded", ".json"):
        for number, pair in enumerate(json.loads(fixture(name))):
            response = pair["response"]
            if response["status_code"] == 200 and isinstance(response["body"], dict) and "content" in response["body"]:
                names.append(f"{name}#{number}")
    assert len(names) > 5
    return names


@pytest.mark.parametrize("name", plain_recordings())
def test_an_answer_reaches_the_client_unchanged(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, name: str
) -> None:
    path, _, number = name.partition("#")
    sent = json.loads(fixture(path))[int(number)]["response"]["body"] | {"field_of_tomorrow": AWKWARD}
    upstream.script(Step(body=json.dumps(sent)))
    raw = anthropic_client.messages.with_raw_response.create(**messages_request())
    assert json.loads(raw.text()) == sent
    assert raw.parse().stop_reason == sent["stop_reason"]
    assert raw.headers["x-upstream-request-id"] == upstream.last.request_id
    assert raw.headers["request-id"] == raw.headers["x-request-id"] == raw.request_id


STREAMS = [*recordings("anthropic/streaming", ".sse"), *recordings("anthropic/fable-fallback", ".sse")]
# In this file, blocks end before the message starts. The service takes that for a lost part.
STREAMS.remove("anthropic/streaming/unknown_events_response.sse")


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_reaches_the_client_unchanged(service: Server, upstream: Upstream, name: str) -> None:
    upstream.script(Step(replay=name))
    got = [frame.raw for frame in frames(service, "/v1/messages", messages_request(stream=True))]
    assert got == blocks(fixture(name))


def test_an_unknown_event_is_passed_through(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(text="one two", fault="unknown", after=2))
    got = frames(service, "/v1/messages", messages_request(stream=True))
    assert [frame.json["shiny"] for frame in got if frame.event == "shiny_new_event"] == [True]
    assert got[-1].event == "message_stop"


def test_thinking_and_tool_calls_reach_the_stream_helper(
    anthropic_client: anthropic.Anthropic, upstream: Upstream
) -> None:
    upstream.script(Step(thinking="Let me think", text="Done", tools=[{"name": "look", "input": {"q": "é"}}]))
    tools: Any = [{"name": "look", "input_schema": {"type": "object"}}]
    with anthropic_client.messages.stream(
        **messages_request(max_tokens=2000, tools=tools, thinking={"type": "enabled", "budget_tokens": 1024})
    ) as stream:
        final = stream.get_final_message()
    thinking, text, call = (block.to_dict() for block in final.content)
    assert thinking["thinking"] == "Let me think" and thinking["signature"]
    assert text["text"] == "Done"
    assert (call["name"], call["input"]) == ("look", {"q": "é"})
    assert final.stop_reason == "tool_use"
