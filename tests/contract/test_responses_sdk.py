"""Responses: the official OpenAI client against every model behind the service."""

from __future__ import annotations

import json
from typing import Any

import openai
import pydantic
import pytest

from tests.contract.cases import (
    CLAUDE,
    ECHO,
    PIXEL,
    VENDORS,
    failing,
)
from tests.support.server import Server
from tests.upstream import Step, Upstream
from tests.upstream.anthropic_wire import SIGNATURE

GPT5 = "openai/gpt-5"
OPUS = "anthropic/claude-opus-4-8"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "name": "look", "parameters": SCHEMA, "strict": False}]
LOOK_CALL = {"name": "look", "input": {"city": "Paris"}}


# ---- ordinary answers and streams


@pytest.mark.parametrize("model", VENDORS)
def test_a_plain_answer_has_its_text_and_usage(openai_client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    upstream.script(Step(text="Good morning to you", input_tokens=100, cached_tokens=60))
    reply = openai_client.responses.create(model=model, instructions="Be kind.", input="Hi", max_output_tokens=50)
    assert (reply.output_text, reply.status, reply.object) == ("Good morning to you", "completed", "response")
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.input_tokens_details.cached_tokens) == (100, 60)
    assert reply.usage.total_tokens == 100 + reply.usage.output_tokens
    assert reply.usage.model_extra is not None and reply.usage.model_extra["cost_usd"] > 0
    assert reply.instructions == "Be kind." and reply.max_output_tokens == 50


@pytest.mark.parametrize("model", [*VENDORS, GPT5, ECHO])
def test_the_stream_helper_assembles_the_answer(
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
def test_a_call_has_its_row_in_the_log(
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
def test_a_loop_of_three_turns_with_tools_works(
    openai_client: openai.OpenAI, upstream: Upstream, model: str, stream: bool
) -> None:
    upstream.script(
        Step(thinking="Hm, so", text="Let me see", tools=[LOOK_CALL, {"name": "look", "input": {"city": "Rome"}}]),
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

    for result in ("sunny", "rainy"):
        reply = ask()
        items += [item.to_dict() for item in reply.output]
        calls = [item for item in reply.output if item.type == "function_call"]
        items += [{"type": "function_call_output", "call_id": call.call_id, "output": result} for call in calls]
        assert len(calls) == (2 if result == "sunny" else 1)
        assert json.loads(calls[0].arguments) == ({"city": "Paris"} if result == "sunny" else {})
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


def test_a_model_s_refusal_is_not_reported_as_an_ordinary_answer(
    openai_client: openai.OpenAI, upstream: Upstream
) -> None:
    for model in VENDORS:
        upstream.script(Step(refusal="I would rather not"), Step(refusal="I would rather not"))
        plain: Any = openai_client.responses.create(model=model, input="Hi")
        *_, last = openai_client.responses.create(model=model, input="Hi", stream=True)
        assert last.type == f"response.{plain.status}"
        parts = [part.type for item in plain.output for part in item.content]
        assert "refusal" in parts or plain.incomplete_details.reason == "content_filter"


@pytest.mark.parametrize("model", VENDORS)
def test_an_answer_cut_by_the_limit_is_incomplete(openai_client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    upstream.script(Step(words=50), Step(words=50))
    reply = openai_client.responses.create(model=model, input="Hi", max_output_tokens=20)
    assert reply.incomplete_details is not None
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    stream = openai_client.responses.create(model=model, input="Hi", max_output_tokens=20, stream=True)
    assert [event.type for event in stream][-1] == "response.incomplete"


# ---- errors


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize(
    ("status", "kind", "reported_status"),
    [
        (400, openai.BadRequestError, 400),
        (401, openai.InternalServerError, 502),  # the service's own key was refused, not the caller's
        (404, openai.NotFoundError, 404),
        (429, openai.RateLimitError, 429),
        (500, openai.InternalServerError, 500),
        (529, openai.InternalServerError, 503),
    ],
)
def test_a_vendor_s_error_raises_the_client_s_own_class_without_a_retry(
    service: Server, upstream: Upstream, model: str, status: int, kind: type[Exception], reported_status: int
) -> None:
    upstream.script(failing(status, times=0))
    with pytest.raises(openai.APIStatusError) as caught:
        service.openai(max_retries=2).responses.create(model=model, input="Hi", stream=status in (400, 429))
    assert type(caught.value) is kind
    assert caught.value.status_code == reported_status
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1


def test_openai_s_own_error_code_reaches_the_client(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.responses.create(model="gpt-4o", input="Hi", max_output_tokens=5)
    assert (caught.value.code, caught.value.param) == ("integer_below_min_value", "max_output_tokens")


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize("fault", ["error", "end", "reset", "malformed"])
def test_a_failure_inside_a_stream_is_raised_and_no_event_marks_the_answer_as_complete(
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
        ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"field_of_tomorrow": 1}, "field_of_tomorrow"),
    ],
)
def test_a_field_that_cannot_be_translated_is_rejected_by_its_name(
    openai_client: openai.OpenAI, upstream: Upstream, extra: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.post("/responses", body={"model": CLAUDE, "input": "Hi", **extra}, cast_to=object)
    assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")
    assert upstream.requests == []
    hints = openai_client.responses.with_raw_response.create(model=CLAUDE, input="Hi", prompt_cache_key="k")
    assert hints.headers["x-dropped-parameters"] == "prompt_cache_key"
