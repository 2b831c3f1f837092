"""Responses: the official OpenAI client against every model, and Anthropic's client where only they serve it."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pydantic
import pytest

from tests.conftest import MakeService
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
from tests.upstream import OPENAI_KEY, Step, Upstream
from tests.upstream.anthropic_wire import SIGNATURE

VENDORS = [GPT, CLAUDE]
GPT5 = "openai/gpt-5"
OPUS = "anthropic/claude-opus-4-8"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "name": "look", "parameters": SCHEMA, "strict": False}]
CLAUDE_TOOLS: Any = [{"name": "look", "input_schema": SCHEMA}]
ASKS = {"name": "look", "input": {"city": "Paris"}}


# ---- ordinary answers and streams


@pytest.mark.parametrize("model", VENDORS)
def test_a_plain_answer(openai_client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    upstream.script(Step(text="Good morning to you", input_tokens=100, cached_tokens=60))
    reply = openai_client.responses.create(model=model, instructions="Be kind.", input="Hi", max_output_tokens=50)
    assert (reply.output_text, reply.status, reply.object) == ("Good morning to you", "completed", "response")
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.input_tokens_details.cached_tokens) == (100, 60)
    assert reply.usage.total_tokens == 100 + reply.usage.output_tokens
    assert reply.usage.model_extra is not None and reply.usage.model_extra["cost_usd"] > 0
    assert reply.instructions == "Be kind." and reply.max_output_tokens == 50


@pytest.mark.parametrize("model", [*VENDORS, GPT5, ECHO])
def test_the_stream_helper_puts_an_answer_together(
    openai_client: openai.OpenAI, service: Server, upstream: Upstream, model: str
) -> None:
    upstream.script(Step(text="one two three", output_tokens=3))
    deltas, numbers = [], []
    with openai_client.responses.stream(model=model, input="one two three") as stream:
        for event in stream:
            numbers.append(event.sequence_number)
            if event.type == "response.output_text.delta":
                deltas.append(event.delta)
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == "one two three"
    assert numbers == list(range(len(numbers)))
    assert final.usage is not None and final.usage.output_tokens == 3
    assert final.usage.model_extra is not None and "cost_usd" in final.usage.model_extra


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_leaves_its_row(
    openai_client: openai.OpenAI, service: Server, upstream: Upstream, model: str, stream: bool
) -> None:
    upstream.script(Step(text="one two", input_tokens=40, output_tokens=2))
    raw: Any = openai_client.responses.with_raw_response.create(model=model, input="Hi", stream=stream)
    parsed = raw.parse()
    if stream:
        assert list(parsed)[-1].type == "response.completed"
    row = service.row(raw.headers["x-request-id"])
    assert (row["route"], row["dialect"], row["outcome"]) == ("/v1/responses", "responses", "ok")
    assert (row["input_tokens"], row["output_tokens"], row["usage_exact"]) == (40, 2, True)
    assert row["cost_nanousd"] > 0 and row["prompt_hmac"]


class City(pydantic.BaseModel):
    city: str


@pytest.mark.parametrize("model", [*VENDORS, OPUS])
def test_structured_output_is_parsed(openai_client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    upstream.script(Step(text='{"city": "Paris"}'), Step(text='{"city": "Rome"}'))
    assert openai_client.responses.parse(model=model, input="Where?", text_format=City).output_parsed == City(
        city="Paris"
    )
    with openai_client.responses.stream(model=model, input="Where?", text_format=City) as stream:
        assert stream.get_final_response().output_parsed == City(city="Rome")
    if model == OPUS:
        assert upstream.last.body["output_config"]["format"]["schema"]["required"] == ["city"]


@pytest.mark.parametrize("model", [*VENDORS, GPT5, OPUS])
@pytest.mark.parametrize("stream", [False, True])
def test_a_loop_of_three_turns_with_tools(
    openai_client: openai.OpenAI, upstream: Upstream, model: str, stream: bool
) -> None:
    upstream.script(
        Step(thinking="Hm, so", text="Let me see", tools=[ASKS, {"name": "look", "input": {"city": "Rome"}}]),
        Step(tools=[{"name": "look", "arguments": "{}"}]),
        Step(text="All done"),
    )
    items: list[Any] = [{"role": "user", "content": "Go"}]

    def ask() -> Any:
        more: Any = {"reasoning": {"effort": "low", "summary": "auto"}} if model in (GPT5, OPUS) else {}
        if not stream:
            return openai_client.responses.create(model=model, input=items, tools=TOOLS, **more)
        with openai_client.responses.stream(model=model, input=items, tools=TOOLS, **more) as events:
            return events.get_final_response()

    for found in ("sunny", "rainy"):
        reply = ask()
        items += [item.to_dict() for item in reply.output]
        calls = [item for item in reply.output if item.type == "function_call"]
        items += [{"type": "function_call_output", "call_id": call.call_id, "output": found} for call in calls]
        assert len(calls) == (2 if found == "sunny" else 1)
        assert json.loads(calls[0].arguments) == ({"city": "Paris"} if found == "sunny" else {})
    assert ask().output_text == "All done"
    if model == OPUS:
        turn = upstream.last.body["messages"][1]["content"]
        assert turn[0] == {"type": "thinking", "thinking": "Hm, so", "signature": SIGNATURE}
        assert [block["type"] for block in turn] == ["thinking", "text", "tool_use", "tool_use"]
        results = upstream.last.body["messages"][2]["content"]
        assert [block["tool_use_id"] for block in results] == [block["id"] for block in turn[2:]]
        assert upstream.last.body["thinking"]["type"] == "adaptive"


def test_images_and_files_reach_claude(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    url = f"data:image/png;base64,{PIXEL}"
    content: Any = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": url, "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
    ]
    openai_client.responses.create(model=CLAUDE, input=[{"role": "user", "content": content}])
    blocks = upstream.last.body["messages"][0]["content"]
    assert [block["type"] for block in blocks] == ["text", "image", "document"]
    assert blocks[1]["source"] == {"type": "base64", "media_type": "image/png", "data": PIXEL}


def test_a_model_s_refusal_does_not_look_like_an_answer(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    for model in VENDORS:
        upstream.script(Step(refusal="I would rather not"), Step(refusal="I would rather not"))
        plain: Any = openai_client.responses.create(model=model, input="Hi")
        *_, last = openai_client.responses.create(model=model, input="Hi", stream=True)
        assert last.type == f"response.{plain.status}"
        parts = [part.type for item in plain.output for part in item.content]
        assert "refusal" in parts or plain.incomplete_details.reason == "content_filter"


@pytest.mark.parametrize("model", VENDORS)
def test_a_cut_answer_is_incomplete(openai_client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    upstream.script(Step(words=50), Step(words=50))
    reply = openai_client.responses.create(model=model, input="Hi", max_output_tokens=20)
    assert reply.incomplete_details is not None
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    stream = openai_client.responses.create(model=model, input="Hi", max_output_tokens=20, stream=True)
    assert [event.type for event in stream][-1] == "response.incomplete"


# ---- verbatim to OpenAI


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
def test_a_request_reaches_openai_as_it_was_sent_but_is_not_stored(
    service: Server, upstream: Upstream, model: str, stream: bool
) -> None:
    upstream.script(Step(lenient=True))
    client = service.openai(default_headers=CALLERS_HEADERS)
    body = {**RICH, "stream": True} if stream else RICH
    client.post("/responses", body={**body, "model": model}, cast_to=object)
    assert upstream.last.path == "/v1/responses"
    assert upstream.last.body == {**body, "model": "gpt-4o", "store": False}
    assert upstream.last.headers["authorization"] == f"Bearer {OPENAI_KEY}"
    assert_no_header_of_the_caller_travelled(upstream.last, service.key)


@pytest.mark.parametrize("name", recordings("openai/responses_json", ".json"))
def test_an_answer_reaches_the_client_as_openai_sent_it(
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


def test_a_stream_reaches_the_client_as_openai_sent_it(service: Server, upstream: Upstream) -> None:
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


def test_events_of_tomorrow_pass_through(service: Server, upstream: Upstream) -> None:
    upstream.script(Step(text="one two", fault="unknown", after=3))
    got = list(frames(service, "/v1/responses", {"model": GPT, "input": "Hi", "stream": True}))
    assert any(frame.event == "shiny_new_event" for frame in got)
    assert got[-1].event == "response.completed"


# ---- other servers, other turns


COMPATIBLE = """
[tiers.default]
[providers.local]
kind = "openai"
base_url = "{url}"
keyless = true
max_tokens_field = "max_tokens"
[providers.anthropic]
kind = "anthropic"
key_env = "ANTHROPIC_API_KEY"
base_url_env = "ANTHROPIC_BASE_URL"
[providers.openai]
kind = "openai"
key_env = "OPENAI_API_KEY"
base_url_env = "OPENAI_BASE_URL"
[aliases.any]
targets = ["anthropic/claude-haiku-4-5", "openai/gpt-5"]
[models."anthropic/*"]
thinking = "budget"
[models."openai/*"]
thinking = "effort"
sampling = false
"""


def test_a_server_that_knows_only_chat_is_asked_in_chat(shared_service: MakeService, upstream: Upstream) -> None:
    client = shared_service(models=COMPATIBLE.format(url=upstream.compatible_url)).openai()
    upstream.script(Step(text="Hi there"), Step(tools=[ASKS]))
    assert client.responses.create(model="local/llama", input="Hello", max_output_tokens=9).output_text == "Hi there"
    assert upstream.last.path == "/compatible/v1/chat/completions"
    assert upstream.last.body["max_tokens"] == 9
    with client.responses.stream(model="local/llama", input="Hello", tools=TOOLS) as stream:
        assert stream.get_final_response().output[0].type == "function_call"


def test_thoughts_of_one_vendor_do_not_stop_the_next(shared_service: MakeService, upstream: Upstream) -> None:
    client = shared_service(models=COMPATIBLE.format(url=upstream.compatible_url)).openai()
    upstream.script(Step(thinking="Hm", tools=[ASKS]), Step(status=529, times=3), Step(text="All done"))
    items: list[Any] = [{"role": "user", "content": "Go"}]
    first = client.responses.create(model="any", input=items, tools=TOOLS)
    assert first.output[0].type == "reasoning"
    items += [item.to_dict() for item in first.output]
    items += [{"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "x"}]  # type: ignore[union-attr]
    raw = client.responses.with_raw_response.create(model="any", input=items, tools=TOOLS)
    assert raw.parse().output_text == "All done"
    assert raw.headers["x-dropped-parameters"] == "input[].reasoning"
    assert upstream.last.path == "/v1/responses"
    assert [item.get("type") for item in upstream.last.body["input"]] == [None, "function_call", "function_call_output"]


def test_thoughts_of_openai_s_do_not_stop_claude(shared_service: MakeService, upstream: Upstream) -> None:
    catalogue = COMPATIBLE.replace(
        '["anthropic/claude-haiku-4-5", "openai/gpt-5"]', '["openai/gpt-5", "anthropic/claude-haiku-4-5"]'
    )
    client = shared_service(models=catalogue.format(url=upstream.compatible_url)).anthropic()
    upstream.script(Step(thinking="Hm", tools=[ASKS]), Step(status=503, times=3), Step(text="All done"))
    turns: list[Any] = [{"role": "user", "content": "Go"}]
    asked: Any = {"model": "any", "max_tokens": 2000, "tools": CLAUDE_TOOLS}
    first = client.messages.create(**asked, messages=turns, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block.type for block in first.content] == ["thinking", "tool_use"]
    result = {"type": "tool_result", "tool_use_id": first.content[1].id, "content": "x"}
    turns += [
        {"role": "assistant", "content": [block.to_dict() for block in first.content]},
        {"role": "user", "content": [result]},
    ]
    raw = client.messages.with_raw_response.create(**asked, messages=turns)
    assert raw.headers["x-dropped-parameters"] == "messages[].thinking"
    assert upstream.last.path == "/v1/messages"
    assert [block["type"] for block in upstream.last.body["messages"][1]["content"]] == ["tool_use"]


# ---- an Anthropic client, a model of OpenAI's


@pytest.mark.parametrize("stream", [False, True])
def test_an_anthropic_client_has_tools_and_thinking_with_a_model_of_openai_s(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Step(thinking="Hm, so", text="Let me see", tools=[ASKS]), Step(text="All done"))
    turns: list[Any] = [{"role": "user", "content": "Go"}]

    def ask() -> Any:
        asked: Any = {"model": GPT5, "max_tokens": 2000, "messages": turns, "tools": CLAUDE_TOOLS}
        asked |= {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "high"}}
        if not stream:
            return anthropic_client.messages.create(**asked)
        with anthropic_client.messages.stream(**asked) as events:
            return events.get_final_message()

    first = ask()
    assert upstream.last.path == "/v1/responses"
    assert upstream.last.body["reasoning"] == {"effort": "high", "summary": "auto"}
    assert upstream.last.body["tools"][0]["strict"] is False
    assert upstream.last.body["store"] is False
    assert [block.type for block in first.content] == ["thinking", "text", "tool_use"]
    assert (first.stop_reason, first.content[0].thinking) == ("tool_use", "Hm, so")
    shown = [
        {"type": "text", "text": "see"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
    ]
    result = {"type": "tool_result", "tool_use_id": first.content[2].id, "content": shown}
    turns += [
        {"role": "assistant", "content": [block.to_dict() for block in first.content]},
        {"role": "user", "content": [result]},
    ]
    assert ask().content[0].text == "All done"
    items = upstream.last.body["input"]
    assert [item.get("type") for item in items] == [None, "reasoning", None, "function_call", "function_call_output"]
    assert items[1]["summary"] == [{"type": "summary_text", "text": "Hm, so"}]
    assert [part["type"] for part in items[4]["output"]] == ["input_text", "input_image"]


def test_pictures_from_a_tool_go_the_way_that_carries_them(
    anthropic_client: anthropic.Anthropic, upstream: Upstream
) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    turns: list[Any] = [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [image]}]},
    ]
    anthropic_client.messages.create(model=GPT, max_tokens=50, messages=turns, tools=CLAUDE_TOOLS)
    assert upstream.last.path == "/v1/responses"
    anthropic_client.messages.create(model=GPT, max_tokens=50, messages=turns[:1], tools=CLAUDE_TOOLS)
    assert upstream.last.path == "/v1/chat/completions"


# ---- errors


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (400, openai.BadRequestError, 400),
        (401, openai.AuthenticationError, 401),
        (404, openai.NotFoundError, 404),
        (429, openai.RateLimitError, 429),
        (500, openai.InternalServerError, 500),
        (529, openai.InternalServerError, 503),
    ],
)
def test_a_vendor_s_refusal_raises_the_client_s_own_class(
    service: Server, upstream: Upstream, model: str, status: int, kind: type[Exception], told: int
) -> None:
    upstream.script(failing(status, times=0))
    with pytest.raises(openai.APIStatusError) as caught:
        service.openai(max_retries=2).responses.create(model=model, input="Hi", stream=status in (400, 429))
    assert type(caught.value) is kind
    assert caught.value.status_code == told
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1


def test_openai_s_own_words_reach_the_client(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.responses.create(model="gpt-4o", input="Hi", max_output_tokens=5)
    assert (caught.value.code, caught.value.param) == ("integer_below_min_value", "max_output_tokens")


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize("fault", ["error", "end", "reset", "malformed"])
def test_a_failure_inside_a_stream_is_raised_and_nothing_looks_whole(
    openai_client: openai.OpenAI, upstream: Upstream, model: str, fault: str
) -> None:
    upstream.script(Step(text="one two three four five", fault=fault, after=6))
    kinds = []
    with pytest.raises(openai.APIError) as caught:
        for event in openai_client.responses.create(model=model, input="Hi", stream=True):
            kinds.append(event.type)
    assert "response.output_text.delta" in kinds
    assert not {"response.completed", "response.incomplete", "response.output_text.done"} & set(kinds)
    assert caught.value.message


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"truncation": "auto"}, "truncation"),
        ({"field_of_tomorrow": 1}, "field_of_tomorrow"),
    ],
)
def test_what_cannot_cross_is_refused_by_its_name(
    openai_client: openai.OpenAI, upstream: Upstream, extra: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.post("/responses", body={"model": CLAUDE, "input": "Hi", **extra}, cast_to=object)
    assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")
    assert upstream.requests == []
    hints = openai_client.responses.with_raw_response.create(model=CLAUDE, input="Hi", prompt_cache_key="k")
    assert hints.headers["x-dropped-parameters"] == "prompt_cache_key"
