"""The official Anthropic client against every model behind the service."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest

from tests.contract.cases import (
    AWKWARD,
    CALLERS_HEADERS,
    CLAUDE,
    ECHO,
    GPT,
    PIXEL,
    assert_no_header_of_the_caller_travelled,
    blocks,
    failing,
    fixture,
    frames,
    recordings,
)
from tests.support.server import Server
from tests.upstream import ANTHROPIC_KEY, Step, Upstream

VENDORS = [CLAUDE, GPT]
HELLO: Any = [{"role": "user", "content": "Hi"}]
OLD, NEW = "2023-06-01", "2026-10-21"


def ask(**more: Any) -> dict[str, Any]:
    return {"model": CLAUDE, "max_tokens": 100, "messages": HELLO, **more}


def named(error: anthropic.APIStatusError) -> Any:
    """The field that an error names."""
    body: Any = error.body
    return body["error"]["details"]["param"]


# ---- ordinary answers and streams


@pytest.mark.parametrize("model", VENDORS)
def test_a_plain_answer(anthropic_client: anthropic.Anthropic, upstream: Upstream, model: str) -> None:
    upstream.script(Step(text="Good morning to you", input_tokens=100, cached_tokens=60, cache_write_tokens=10))
    message = anthropic_client.messages.create(**ask(model=model, system="Be kind."))
    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    assert [(block.type, block.to_dict()["text"]) for block in message.content] == [("text", "Good morning to you")]
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (30, 60, 10)
    assert usage.output_tokens == 4


def test_echo_answers_both_ways(anthropic_client: anthropic.Anthropic) -> None:
    say: Any = [{"role": "user", "content": [{"type": "text", "text": "one two three four"}]}]
    message = anthropic_client.messages.create(**ask(model=ECHO, messages=say, max_tokens=3))
    assert (message.content[0].to_dict()["text"], message.stop_reason) == ("one two three", "max_tokens")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (4, 3)
    with anthropic_client.messages.stream(**ask(model=ECHO, messages=say, stop_sequences=["three"])) as stream:
        assert "".join(stream.text_stream) == "one two"
        final = stream.get_final_message()
    assert (final.stop_reason, final.stop_sequence) == ("stop_sequence", "three")


@pytest.mark.parametrize("model", VENDORS)
def test_a_stream_has_anthropic_s_events_in_their_order(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, model: str
) -> None:
    upstream.script(Step(text="one two", input_tokens=50, cached_tokens=20, output_tokens=2))
    events = list(anthropic_client.messages.create(**ask(model=model, stream=True)))
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    deltas = [event.delta.to_dict() for event in events if event.type == "content_block_delta"]
    assert deltas == [{"type": "text_delta", "text": "one"}, {"type": "text_delta", "text": " two"}]
    assert {event.index for event in events if event.type.startswith("content_block")} == {0}
    start, end = events[0], events[-2]
    assert start.type == "message_start" and start.message.content == [] and start.message.stop_reason is None
    assert end.type == "message_delta" and end.delta.stop_reason == "end_turn"
    assert end.usage.output_tokens == 2


@pytest.mark.parametrize("model", [*VENDORS, ECHO])
def test_every_event_has_its_event_line_and_a_ping_comes_after_the_first_block_starts(
    service: Server, upstream: Upstream, model: str
) -> None:
    got = frames(service, "/v1/messages", ask(model=model, stream=True))
    assert all(frame.event == frame.json["type"] for frame in got if frame.comment is None)
    assert [frame.event for frame in got][:3] == ["message_start", "content_block_start", "ping"]
    assert got[-1].event == "message_stop"


@pytest.mark.parametrize("model", VENDORS)
def test_the_stream_helper_puts_an_answer_together(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, model: str
) -> None:
    upstream.script(Step(text="one two three", input_tokens=50, cached_tokens=20, output_tokens=3))
    with anthropic_client.messages.stream(**ask(model=model)) as stream:
        assert list(stream.text_stream) == ["one", " two", " three"]
        final = stream.get_final_message()
    assert (final.content[0].to_dict()["text"], final.stop_reason) == ("one two three", "end_turn")
    assert (final.usage.input_tokens, final.usage.cache_read_input_tokens) == (30, 20)
    assert final.usage.output_tokens == 3


# ---- the same dialect on both sides: verbatim


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
def test_a_request_reaches_anthropic_as_it_was_sent(
    service: Server, upstream: Upstream, model: str, stream: bool
) -> None:
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
    assert_no_header_of_the_caller_travelled(upstream.last, service.key)


def test_the_beta_resource_is_served_too(anthropic_client: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.script(Step(text="Done"))
    message = anthropic_client.beta.messages.create(**ask(), betas=["one-2026-01-01"], extra_query={"beta": "true"})
    assert message.content[0].to_dict()["text"] == "Done"
    assert upstream.last.headers["anthropic-beta"] == "one-2026-01-01"


def plain_recordings() -> list[str]:
    """Every recorded answer in one body, as FILE#NUMBER."""
    found = []
    for name in recordings("anthropic/recorded", ".json"):
        for number, pair in enumerate(json.loads(fixture(name))):
            response = pair["response"]
            if response["status_code"] == 200 and isinstance(response["body"], dict) and "content" in response["body"]:
                found.append(f"{name}#{number}")
    assert len(found) > 5
    return found


@pytest.mark.parametrize("name", plain_recordings())
def test_an_answer_reaches_the_client_as_anthropic_sent_it(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, name: str
) -> None:
    path, _, number = name.partition("#")
    sent = json.loads(fixture(path))[int(number)]["response"]["body"] | {"field_of_tomorrow": AWKWARD}
    upstream.script(Step(body=json.dumps(sent)))
    raw = anthropic_client.messages.with_raw_response.create(**ask())
    assert json.loads(raw.text()) == sent
    assert raw.parse().stop_reason == sent["stop_reason"]
    assert raw.headers["x-upstream-request-id"] == upstream.last.request_id
    assert raw.headers["request-id"] == raw.headers["x-request-id"] == raw.request_id


STREAMS = [*recordings("anthropic/streaming", ".sse"), *recordings("anthropic/fable-fallback", ".sse")]
# Its blocks end before the message starts, which is taken for a lost part.
STREAMS.remove("anthropic/streaming/unknown_events_response.sse")


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_reaches_the_client_as_anthropic_sent_it(service: Server, upstream: Upstream, name: str) -> None:
    upstream.script(Step(replay=name))
    got = [frame.raw for frame in frames(service, "/v1/messages", ask(stream=True))]
    assert got == blocks(fixture(name))


def test_an_event_of_tomorrow_passes_through(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(text="one two", fault="unknown", after=2))
    got = frames(service, "/v1/messages", ask(stream=True))
    assert [frame.json["shiny"] for frame in got if frame.event == "shiny_new_event"] == [True]
    assert got[-1].event == "message_stop"


def test_thinking_and_tools_reach_the_stream_helper(anthropic_client: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.script(Step(thinking="Let me think", text="Done", tools=[{"name": "look", "input": {"q": "é"}}]))
    tools: Any = [{"name": "look", "input_schema": {"type": "object"}}]
    with anthropic_client.messages.stream(
        **ask(max_tokens=2000, tools=tools, thinking={"type": "enabled", "budget_tokens": 1024})
    ) as stream:
        final = stream.get_final_message()
    thinking, text, call = (block.to_dict() for block in final.content)
    assert thinking["thinking"] == "Let me think" and thinking["signature"]
    assert text["text"] == "Done"
    assert (call["name"], call["input"]) == ("look", {"q": "é"})
    assert final.stop_reason == "tool_use"


# ---- the two API versions and their sampling rules


def with_version(version: str | None) -> dict[str, Any]:
    return {"extra_headers": {"anthropic-version": version or anthropic.Omit()}}


@pytest.mark.parametrize("model", VENDORS)
def test_the_old_version_takes_a_temperature(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, model: str
) -> None:
    anthropic_client.messages.create(**ask(model=model), extra_body={"temperature": 0.3}, **with_version(OLD))
    assert upstream.last.body["temperature"] == 0.3
    assert upstream.last.headers.get("anthropic-version") == (OLD if model == CLAUDE else None)


@pytest.mark.parametrize("field", ["temperature", "top_p", "top_k"])
@pytest.mark.parametrize("model", [*VENDORS, ECHO])
def test_the_new_version_refuses_sampling_by_name(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, model: str, field: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropic_client.messages.create(**ask(model=model), extra_body={field: 1})
    assert caught.value.api_message == f"{field}: Extra inputs are not permitted"
    assert caught.value.type == "invalid_request_error"
    assert len(upstream.requests) == (model == CLAUDE)  # Anthropic says it itself


def test_a_version_nobody_knows_is_anthropic_s_to_refuse(
    anthropic_client: anthropic.Anthropic, upstream: Upstream
) -> None:
    with pytest.raises(anthropic.BadRequestError, match="anthropic-version"):
        anthropic_client.messages.create(**ask(), **with_version("2024-02-30"))


def test_without_a_version_the_long_standing_one_is_meant(service: Server, upstream: Upstream) -> None:
    reply = service.http().post("/v1/messages", json=ask(temperature=0.5))
    assert reply.status_code == 200, reply.text
    assert upstream.last.headers["anthropic-version"] == OLD


# ---- crossing


def test_a_text_conversation_crosses_to_openai(anthropic_client: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.script(Step(text="Bonjour", input_tokens=30, cached_tokens=10, reasoning_tokens=0))
    raw = anthropic_client.messages.with_raw_response.create(
        **ask(
            model=GPT,
            system=[{"type": "text", "text": "Be kind."}, {"type": "text", "text": "Be brief."}],
            messages=[
                {"role": "user", "content": "Hi"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "x"},
                        {"type": "text", "text": "Hello"},
                    ],
                },
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "Say bonjour", "cache_control": {"type": "ephemeral"}}],
                },
            ],
            max_tokens=40,
            stop_sequences=["STOP"],
            metadata={"user_id": "someone"},
            service_tier="standard_only",
        ),
        extra_headers={"anthropic-beta": "one-2026-01-01"},
    )
    assert upstream.last.body == {
        "model": "gpt-4o-mini",
        "messages": [
            {
                "role": "system",
                "content": [{"type": "text", "text": "Be kind."}, {"type": "text", "text": "Be brief."}],
            },
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Say bonjour"},
        ],
        "max_completion_tokens": 40,
        "stop": ["STOP"],
        "service_tier": "default",
        "safety_identifier": "someone",
        "store": False,
    }
    assert not [name for name in upstream.last.headers if name.startswith("anthropic")]
    assert sorted(raw.headers["x-dropped-parameters"].split(", ")) == [
        "anthropic-beta",
        "cache_control",
        "messages[].thinking",
    ]
    message = raw.parse()
    assert (message.content[0].to_dict()["text"], message.stop_reason) == ("Bonjour", "end_turn")
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (20, 10)


def test_a_stream_names_what_was_dropped_too(anthropic_client: anthropic.Anthropic, upstream: Upstream) -> None:
    raw = anthropic_client.messages.with_raw_response.create(
        **ask(model=GPT, stream=True, cache_control={"type": "ephemeral"})
    )
    assert raw.headers["x-dropped-parameters"] == "cache_control"
    assert len(list(raw.parse())) > 4


@pytest.mark.parametrize(
    ("step", "model", "reason"),
    [
        (Step(stop_reason="stop"), GPT, "end_turn"),
        (Step(stop_reason="length"), GPT, "max_tokens"),
        (Step(stop_reason="content_filter"), GPT, "refusal"),
        (Step(refusal="I will not"), GPT, "refusal"),
        (Step(stop_reason="reason_of_tomorrow"), GPT, "end_turn"),
        (Step(stop_reason="pause_turn"), CLAUDE, "pause_turn"),
        (Step(stop_reason="refusal"), CLAUDE, "refusal"),
        (Step(stop_reason="reason_of_tomorrow"), CLAUDE, "reason_of_tomorrow"),
    ],
    ids=lambda value: value.stop_reason or "said" if isinstance(value, Step) else None,
)
@pytest.mark.parametrize("stream", [False, True])
def test_stop_reasons(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, step: Step, model: str, reason: str, stream: bool
) -> None:
    upstream.script(step)
    if stream:
        with anthropic_client.messages.stream(**ask(model=model)) as streamed:
            message: Any = streamed.get_final_message()
    else:
        message = anthropic_client.messages.create(**ask(model=model))
    assert message.stop_reason == reason
    assert (message.stop_details is not None) == (reason == "refusal")


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"output_config": {"task_budget": {}}}, "output_config.task_budget"),
        ({"container": "c"}, "container"),
        ({"metadata": {"user_id": "a", "more": 1}}, "metadata.more"),
        ({"field_of_tomorrow": 1}, "field_of_tomorrow"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop_sequences": ["a", "b", "c", "d", "e"]}, "stop_sequences"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "And"}]}, "messages[1].role"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "x"}}]}
                ]
            },
            "messages[0].content[0].source",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "search_result", "source": "x"}]}]},
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "citations": [{}]}]}]},
            "messages[0].content[0].citations",
        ),
        ({"system": [{"type": "image", "source": {}}]}, "system[0]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_cross_is_refused_by_its_name(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, extra: dict[str, Any], param: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropic_client.messages.create(
            **ask(model=GPT) | {"messages": extra.get("messages", HELLO)}, extra_body=extra
        )
    error = caught.value
    assert error.type == "invalid_request_error"
    assert (error.error_code, named(error)) == ("unsupported_parameter", param)
    assert param in (error.api_message or "")
    assert upstream.requests == []


# ---- errors


@pytest.fixture(scope="module")
def retrying(service: Server) -> anthropic.Anthropic:
    """As applications have it: a client that tries again unless told not to."""
    return service.anthropic(max_retries=2)


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (408, anthropic.GatewayTimeoutError, "timeout_error"),
        (409, anthropic.ConflictError, "conflict_error"),
        (413, anthropic.ContentTooLargeError, "request_too_large"),
        (422, anthropic.UnprocessableEntityError, "invalid_request_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (503, anthropic.OverloadedError, "overloaded_error"),
        (504, anthropic.GatewayTimeoutError, "timeout_error"),
        (529, anthropic.OverloadedError, "overloaded_error"),
    ],
)
def test_a_vendor_s_refusal_raises_the_client_s_own_class(
    retrying: anthropic.Anthropic, upstream: Upstream, model: str, status: int, kind: type[Exception], told: str
) -> None:
    upstream.script(failing(status, times=0))
    with pytest.raises(anthropic.APIStatusError) as caught:
        retrying.messages.create(**ask(model=model, stream=status in (400, 429, 529)))
    error = caught.value
    assert type(error) is kind
    assert error.type == told
    assert error.api_message
    body: Any = error.body
    assert body["type"] == "error" and body["request_id"] == error.request_id
    assert error.response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1
    assert error.response.headers["retry-after"] == "30"


def test_the_row_has_the_status_that_was_sent(service: Server, upstream: Upstream) -> None:
    upstream.script(failing(529))
    reply = service.http().post("/v1/messages", json=ask())
    row = service.row(reply.headers["x-request-id"])
    assert (reply.status_code, row["status"], row["outcome"]) == (529, 529, "upstream_error")
    assert row["error_type"] == "upstream_overloaded"


def test_a_spend_limit_keeps_its_code(anthropic_client: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.script(Step(status=429, error_code="enforced_spend_limit_reached"))
    asked: Any = [{"role": "user", "content": "Was the limit that is enforced reached?"}]
    with pytest.raises(anthropic.RateLimitError) as caught:
        anthropic_client.messages.create(**ask(messages=asked))
    assert caught.value.error_code == "enforced_spend_limit_reached"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(("model", "status"), [(CLAUDE, 529), (GPT, 503)])
def test_an_error_inside_a_stream_is_raised(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, model: str, status: int
) -> None:
    upstream.script(Step(text="one two three", fault="error", after=5, status=status))
    got = []
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        anthropic_client.messages.stream(**ask(model=model)) as stream,
    ):
        for text in stream.text_stream:
            got.append(text)
    assert got and got[0] == "one"
    assert caught.value.type == "overloaded_error"
    assert caught.value.api_message


# ---- models


def test_models_are_listed_by_pages(service: Server, anthropic_client: anthropic.Anthropic) -> None:
    whole = anthropic_client.models.list(limit=1000)
    names = [model.id for model in whole.data]
    assert {"fast", "smart", "echo/echo", "anthropic/claude-haiku-4-5", "openai/gpt-5-mini"} <= set(names)
    assert (whole.has_more, whole.first_id, whole.last_id) == (False, names[0], names[-1])
    for size in (1, 2, len(names)):
        assert [model.id for model in anthropic_client.models.list(limit=size)] == names  # page after page
    backwards = anthropic_client.models.list(limit=2, before_id=names[-1])
    assert [model.id for model in backwards.data] == names[-3:-1]
    assert backwards.has_more
    assert [model.id for model in anthropic_client.models.list(after_id=names[-1]).data] == []
    model = whole.data[0]
    assert (model.type, model.lifecycle, model.display_name) == ("model", "active", model.id)


def test_models_are_found_by_names_with_slashes(anthropic_client: anthropic.Anthropic) -> None:
    for name in ["fast", "echo/echo", "openai/gpt-4o", "claude-opus-4-6"]:
        assert anthropic_client.models.retrieve(name).id == name
    assert anthropic_client.models.retrieve("anthropic/claude-opus-4-6").max_tokens == 128_000


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"after_id": "nobody"}, {"before_id": "nobody"}])
def test_a_wrong_page_is_refused_by_its_name(anthropic_client: anthropic.Anthropic, query: dict[str, Any]) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropic_client.models.list(**query)
    assert named(caught.value) == next(iter(query))


def test_a_model_that_is_not_there_is_not_found(anthropic_client: anthropic.Anthropic) -> None:
    for asking in (
        lambda: anthropic_client.models.retrieve("nobody/knows:this"),
        lambda: anthropic_client.messages.create(**ask(model="nobody/knows:this")),
    ):
        with pytest.raises(anthropic.NotFoundError) as caught:
            asking()
        assert (caught.value.type, caught.value.error_code) == ("not_found_error", "model_not_found")
