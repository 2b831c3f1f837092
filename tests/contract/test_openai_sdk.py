"""The official OpenAI client against every model behind the service."""

from __future__ import annotations

import json
from typing import Any

import openai
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
from tests.support.sse import read_sse
from tests.upstream import OPENAI_KEY, Step, Upstream

VENDORS = [GPT, CLAUDE]
HELLO: Any = [{"role": "user", "content": "Hi"}]


# ---- ordinary answers and streams


@pytest.mark.parametrize("model", VENDORS)
def test_a_plain_answer(openai_client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    upstream.script(Step(text="Good morning to you", input_tokens=100, cached_tokens=60))
    reply = openai_client.chat.completions.create(
        model=model,
        messages=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        max_tokens=50,
    )
    assert reply.object == "chat.completion"
    assert reply.choices[0].message.content == "Good morning to you"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None and reply.usage.prompt_tokens_details is not None
    assert (reply.usage.prompt_tokens, reply.usage.prompt_tokens_details.cached_tokens) == (100, 60)
    assert reply.usage.total_tokens == 100 + reply.usage.completion_tokens
    assert reply.usage.model_extra is not None and reply.usage.model_extra["cost_usd"] > 0


def test_echo_answers_both_ways(openai_client: openai.OpenAI) -> None:
    say: Any = [{"role": "system", "content": "ignored"}, {"role": "user", "content": "one two three four"}]
    reply = openai_client.chat.completions.create(model=ECHO, messages=say, max_completion_tokens=3)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("one two three", "length")
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (5, 3)
    with openai_client.chat.completions.stream(model=ECHO, messages=say) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "one two three four"


@pytest.mark.parametrize("model", VENDORS)
def test_a_stream_with_usage(openai_client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    upstream.script(Step(text="one two three", input_tokens=50, output_tokens=3, cached_tokens=20))
    chunks = list(
        openai_client.chat.completions.create(
            model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two three"
    usage = chunks[-1].usage
    assert usage is not None and usage.prompt_tokens_details is not None and usage.model_extra is not None
    assert chunks[-1].choices == []
    assert (usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens) == (50, 3, 20)
    assert usage.model_extra["cost_usd"] > 0
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == len({chunk.created for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"


@pytest.mark.parametrize("options", [None, {"include_usage": False}])
@pytest.mark.parametrize("model", VENDORS)
def test_a_stream_without_include_usage_has_no_usage(
    openai_client: openai.OpenAI, service: Server, upstream: Upstream, model: str, options: Any
) -> None:
    upstream.script(Step(text="one two", output_tokens=2))
    stream = openai_client.chat.completions.with_raw_response.create(
        model=model, messages=HELLO, stream=True, stream_options=options
    )
    chunks = list(stream.parse())
    assert all(chunk.choices and "usage" not in chunk.model_fields_set for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert service.row(stream.headers["x-request-id"])["output_tokens"] == 2  # the service gets the usage in any case


@pytest.mark.parametrize("model", VENDORS)
def test_the_stream_helper_puts_an_answer_together(
    openai_client: openai.OpenAI, upstream: Upstream, model: str
) -> None:
    upstream.script(Step(text="one two three", output_tokens=3))
    deltas = []
    with openai_client.chat.completions.stream(
        model=model, messages=HELLO, stream_options={"include_usage": True}
    ) as stream:
        for event in stream:
            if event.type == "content.delta" and event.delta:  # the first chunk has an empty one
                deltas.append(event.delta)
        final = stream.get_final_completion()
    assert deltas == ["one", " two", " three"]
    assert (final.choices[0].message.content, final.choices[0].finish_reason) == ("one two three", "stop")
    assert final.usage is not None and final.usage.completion_tokens == 3


# ---- the same format on both sides: verbatim


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
def test_a_request_reaches_openai_unchanged(service: Server, upstream: Upstream, model: str, stream: bool) -> None:
    upstream.script(Step(lenient=True))
    client = service.openai(default_headers=CALLERS_HEADERS)
    body = RICH if not stream else {**RICH, "stream": True, "stream_options": {"include_obfuscation": False}}
    client.post("/chat/completions", body={**body, "model": model}, cast_to=object)
    asked = {"stream_options": {"include_obfuscation": False, "include_usage": True}} if stream else {}
    assert upstream.last.body == {**body, "model": "gpt-4o", "store": False, **asked}
    assert list(upstream.last.body) == [*body, "model", "store"]
    assert upstream.last.headers["authorization"] == f"Bearer {OPENAI_KEY}"
    assert_no_header_of_the_caller_travelled(upstream.last, service.key)


@pytest.mark.parametrize("name", recordings("openai/chat_json", ".json"))
def test_an_answer_reaches_the_client_as_openai_sent_it(
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
def test_a_stream_reaches_the_client_as_openai_sent_it(service: Server, upstream: Upstream, name: str) -> None:
    upstream.script(Step(replay=name))
    body = {"model": GPT, "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    got = [frame.raw for frame in frames(service, "/v1/chat/completions", body)]
    sent = blocks(fixture(name))
    usage_at = [place for place, block in enumerate(sent) if b'"choices":[]' in block.replace(b" ", b"")]
    assert got[-1] == sent[-1] == b"data: [DONE]"
    for place, (ours, theirs) in enumerate(zip(got, sent, strict=bool(usage_at))):
        if place in usage_at:
            reported = json.loads(ours[6:])
            assert reported["usage"].pop("cost_usd", 0) is not None
            assert reported == json.loads(theirs[6:])
        elif place < len(sent) - 1:
            assert ours == theirs


def test_the_stream_helper_reads_openai_s_tool_calls(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(replay="openai/chat_stream/parallel_tool_calls.sse"))
    with openai_client.chat.completions.stream(model=GPT, messages=HELLO) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    names = [call.function.name for call in calls if call.type == "function"]
    assert names == ["GetWeatherArgs", "get_stock_price"]
    assert final.choices[0].finish_reason == "tool_calls"


def test_an_event_of_tomorrow_passes_through(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(text="one two", fault="unknown", after=2))
    got = frames(service, "/v1/chat/completions", {"model": GPT, "messages": HELLO, "stream": True})
    assert [frame.json["shiny"] for frame in got if frame.data and "shiny" in frame.data] == [True]
    assert got[-1].done


# ---- translation to another format


def test_a_text_conversation_crosses_to_claude(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(text="Bonjour STOP never said", input_tokens=30, cached_tokens=10, cache_write_tokens=5))
    raw = openai_client.chat.completions.with_raw_response.create(
        model=CLAUDE,
        messages=[
            {"role": "developer", "content": "Be kind."},
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": [{"type": "text", "text": "Say"}, {"type": "text", "text": " bonjour"}]},
        ],
        max_completion_tokens=40,
        temperature=1.7,
        stop="STOP",
        safety_identifier="someone",
        seed=7,
        extra_body={"store": True},
    )
    assert upstream.last.body == {
        "model": "claude-haiku-4-5",
        "max_tokens": 40,
        "system": [{"type": "text", "text": "Be kind."}, {"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": [{"type": "text", "text": "Say"}, {"type": "text", "text": " bonjour"}]},
        ],
        "stop_sequences": ["STOP"],
        "temperature": 1,
        "metadata": {"user_id": "someone"},
    }
    assert upstream.last.headers["anthropic-version"] == "2023-06-01"  # the version that takes a temperature
    assert sorted(raw.headers["x-dropped-parameters"].split(", ")) == ["seed", "store"]
    reply = raw.parse()
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("Bonjour ", "stop")
    usage = reply.usage
    assert usage is not None and usage.prompt_tokens_details is not None
    details = usage.prompt_tokens_details
    assert (usage.prompt_tokens, details.cached_tokens, details.cache_write_tokens) == (30, 10, 5)


def test_sampling_is_dropped_by_name_for_a_model_without_it(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    raw = openai_client.chat.completions.with_raw_response.create(
        model="claude-opus-4-8", messages=HELLO, temperature=0.3, top_p=0.9
    )
    assert sorted(raw.headers["x-dropped-parameters"].split(", ")) == ["temperature", "top_p"]
    assert not {"temperature", "top_p"} & set(upstream.last.body)
    assert upstream.last.body["max_tokens"] == 32_000  # the model's own limit: the client sent none


def test_a_stream_names_what_was_dropped_too(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    raw = openai_client.chat.completions.with_raw_response.create(
        model=CLAUDE, messages=HELLO, stream=True, seed=1, verbosity="low"
    )
    assert sorted(raw.headers["x-dropped-parameters"].split(", ")) == ["seed", "verbosity"]
    assert len(list(raw.parse())) > 2


@pytest.mark.parametrize(
    ("step", "model", "reason"),
    [
        (Step(stop_reason="end_turn"), CLAUDE, "stop"),
        (Step(stop_reason="max_tokens"), CLAUDE, "length"),
        (Step(stop_reason="stop_sequence"), CLAUDE, "stop"),
        (Step(stop_reason="refusal"), CLAUDE, "content_filter"),
        (Step(stop_reason="model_context_window_exceeded"), CLAUDE, "length"),
        (Step(stop_reason="reason_of_tomorrow"), CLAUDE, "stop"),
        (Step(stop_reason="max_tokens"), GPT, "length"),
        (Step(stop_reason="content_filter"), GPT, "content_filter"),
        (Step(stop_reason="reason_of_tomorrow"), GPT, "reason_of_tomorrow"),
    ],
    ids=lambda value: value.stop_reason if isinstance(value, Step) else None,
)
@pytest.mark.parametrize("stream", [False, True])
def test_stop_reasons(
    openai_client: openai.OpenAI, upstream: Upstream, step: Step, model: str, reason: str, stream: bool
) -> None:
    upstream.script(step)
    answer: Any = openai_client.chat.completions.create(model=model, messages=HELLO, stream=stream)
    choice = list(answer)[-1].choices[0] if stream else answer.choices[0]
    assert choice.finish_reason == reason


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"audio": {"voice": "x", "format": "wav"}}, "audio"),
        ({"field_of_tomorrow": 1}, "field_of_tomorrow"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
            "messages[0].content[0].file.file_id",
        ),
        ({"messages": [*HELLO, {"role": "assistant", "content": "And"}]}, "messages[1].role"),
        ({"stop": [" "]}, "stop"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_translated_is_rejected_by_its_name(
    openai_client: openai.OpenAI, service: Server, upstream: Upstream, extra: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(model=CLAUDE, messages=extra.get("messages", HELLO), extra_body=extra)
    error = caught.value
    assert (error.param, error.code, error.type) == (param, "unsupported_parameter", "invalid_request_error")
    assert param in error.message
    assert upstream.requests == []
    row = service.row(error.request_id or "")
    assert (row["outcome"], row["status"], row["error_type"]) == ("refused", 400, "unsupported_parameter")


# ---- errors


@pytest.fixture(scope="module")
def retrying(service: Server) -> openai.OpenAI:
    """A client as applications use it: it retries unless a header forbids it."""
    return service.openai(max_retries=2)


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize(
    ("status", "kind", "reported"),
    [
        (400, openai.BadRequestError, 400),
        (401, openai.AuthenticationError, 401),
        (403, openai.PermissionDeniedError, 403),
        (404, openai.NotFoundError, 404),
        (408, openai.InternalServerError, 504),
        (409, openai.ConflictError, 409),
        (413, openai.APIStatusError, 413),
        (422, openai.UnprocessableEntityError, 422),
        (429, openai.RateLimitError, 429),
        (500, openai.InternalServerError, 500),
        (503, openai.InternalServerError, 503),
        (529, openai.InternalServerError, 503),
    ],
)
def test_a_vendor_s_error_raises_the_client_s_own_class(
    retrying: openai.OpenAI, upstream: Upstream, model: str, status: int, kind: type[Exception], reported: int
) -> None:
    upstream.script(failing(status, times=0))
    with pytest.raises(openai.APIStatusError) as caught:
        retrying.chat.completions.create(model=model, messages=HELLO, stream=status in (400, 429, 503))
    error = caught.value
    assert type(error) is kind
    assert error.status_code == reported
    assert error.type and error.message and error.request_id
    assert error.response.headers["x-should-retry"] == "false"
    # Neither side retried: the wait was too long for the service, and a header forbade it to the client.
    assert len(upstream.requests) == 1
    assert error.response.headers["retry-after"] == "30"


def test_a_quota_that_is_used_up_is_reported_as_openai_reports_it(
    openai_client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.script(Step(status=429, error_type="insufficient_quota", error_code="insufficient_quota"))
    with pytest.raises(openai.RateLimitError) as caught:
        openai_client.chat.completions.create(model=GPT, messages=HELLO)
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")


def test_openai_s_own_error_reaches_the_client(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    with pytest.raises(openai.BadRequestError) as caught:  # the scripted vendor rejects it as the real one does
        openai_client.chat.completions.create(model="gpt-5", messages=HELLO, max_tokens=5)
    error = caught.value
    assert (error.code, error.param, error.type) == ("unsupported_parameter", "max_tokens", "invalid_request_error")
    assert "Use 'max_completion_tokens' instead." in error.message


@pytest.mark.parametrize(("model", "status"), [(GPT, 503), (CLAUDE, 529)])
def test_an_error_inside_a_stream_is_raised(
    openai_client: openai.OpenAI, upstream: Upstream, model: str, status: int
) -> None:
    upstream.script(Step(text="one two three", fault="error", after=4, status=status))
    got = []
    with pytest.raises(openai.APIError) as caught:
        for chunk in openai_client.chat.completions.create(model=model, messages=HELLO, stream=True):
            got += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    assert got and got[0] == "one"
    assert caught.value.type == "service_unavailable_error"
    assert caught.value.message


# ---- models


def test_models_are_listed_and_retrieved(service: Server, openai_client: openai.OpenAI) -> None:
    listed = openai_client.models.list().data
    names = [model.id for model in listed]
    assert {"fast", "smart", "echo/echo", "anthropic/claude-haiku-4-5", "openai/gpt-5-mini"} <= set(names)
    assert len(names) == len(set(names))
    assert {model.object for model in listed} == {"model"}
    for name in ["fast", "echo/echo", "openai/gpt-4o", "gpt-4o", "anthropic/claude-opus-4-6"]:
        found = openai_client.models.retrieve(name)
        assert (found.id, found.object) == (name, "model")
        assert found.owned_by in ("anthropic", "openai", "echo")


def test_a_model_that_is_not_there_is_not_found(openai_client: openai.OpenAI) -> None:
    for ask in (
        lambda: openai_client.models.retrieve("nobody/knows:this"),
        lambda: openai_client.chat.completions.create(model="nobody/knows:this", messages=HELLO),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert caught.value.type == "invalid_request_error"


def test_a_key_sees_and_uses_only_its_own_models(service: Server, upstream: Upstream) -> None:
    client = service.openai(service.create_key(models=["openai/*", "fast"]).text)
    names = {model.id for model in client.models.list()}
    assert "openai/gpt-5-mini" in names and "fast" in names
    assert not {name for name in names if name.startswith(("anthropic/", "echo/"))}
    client.chat.completions.create(model="gpt-4o", messages=HELLO)
    for ask in (
        lambda: client.models.retrieve("anthropic/claude-haiku-4-5"),
        lambda: client.chat.completions.create(model="claude-haiku-4-5", messages=HELLO),
    ):
        with pytest.raises(openai.PermissionDeniedError) as caught:
            ask()
        assert caught.value.code == "model_not_allowed"


def test_comments_between_events_do_not_disturb_the_client(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(text="one two", fault="inject", after=2, data=": a vendor's own keep-alive\n\n"))
    body = {"model": GPT, "messages": HELLO, "stream": True}
    with service.http().stream("POST", "/v1/chat/completions", json=body) as response:
        got = list(read_sse(response))
    assert any(frame.comment is not None for frame in got)
    upstream.script(Step(text="one two", fault="inject", after=2, data="event: ping\n\n"))
    chunks = list(service.openai().chat.completions.create(model=GPT, messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two"
