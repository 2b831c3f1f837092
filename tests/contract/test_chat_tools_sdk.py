"""Chat completions with tools, for OpenAI models that take tools only at ``/v1/responses``: OpenAI's own client."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.contract.cases import PIXEL
from tests.support.server import Server
from tests.upstream import Step, Upstream

NEVER, WITHOUT_REASONING, ALWAYS = "openai/gpt-6.1-sol", "openai/gpt-5.6-terra", "openai/gpt-5-mini"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "function": {"name": "look", "description": "Look", "parameters": SCHEMA}}]
LOOK_CALL = {"name": "look", "input": {"city": "Paris"}}
USER: Any = {"role": "user", "content": "Go"}


def ask(client: openai.OpenAI, stream: bool, **asked: Any) -> Any:
    """The answer of a call as a chat completion, streamed or not."""
    if not stream:
        return client.chat.completions.create(**asked)
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
        return events.get_final_completion()


def answered(message: Any) -> list[Any]:
    """The answer as a turn, and the results of its tool calls."""
    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
    return [message.to_dict(), *results]


@pytest.mark.parametrize(
    ("model", "fields", "path"),
    [
        (NEVER, {"tools": TOOLS}, "/v1/responses"),
        (NEVER, {"tools": TOOLS, "reasoning_effort": "none"}, "/v1/responses"),
        (NEVER, {"functions": [TOOLS[0]["function"]]}, "/v1/responses"),
        (NEVER, {"tools": []}, "/v1/chat/completions"),
        (NEVER, {}, "/v1/chat/completions"),
        (WITHOUT_REASONING, {"tools": TOOLS}, "/v1/responses"),
        (WITHOUT_REASONING, {"tools": TOOLS, "reasoning_effort": "high"}, "/v1/responses"),
        (WITHOUT_REASONING, {"tools": TOOLS, "tool_choice": "none"}, "/v1/responses"),
        (WITHOUT_REASONING, {"tools": TOOLS, "reasoning_effort": "none", "n": 2}, "/v1/chat/completions"),
        (WITHOUT_REASONING, {"reasoning_effort": "high"}, "/v1/chat/completions"),
        ("openai/gpt-5.3-codex", {}, "/v1/responses"),
        ("openai/o3-pro", {"reasoning_effort": "high"}, "/v1/responses"),
        (ALWAYS, {"tools": TOOLS, "reasoning_effort": "high"}, "/v1/chat/completions"),
        ("openai/gpt-4o", {"tools": TOOLS}, "/v1/chat/completions"),
    ],
)
def test_a_chat_goes_where_the_model_takes_its_tools(
    openai_client: openai.OpenAI, upstream: Upstream, model: str, fields: Any, path: str
) -> None:
    upstream.script(Step(text="Hello there"))
    reply = openai_client.chat.completions.create(model=model, messages=[USER], **fields)
    assert upstream.last.path == path
    assert (reply.choices[0].message.content, reply.object) == ("Hello there", "chat.completion")


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop_of_three_turns_works(
    openai_client: openai.OpenAI, service: Server, upstream: Upstream, stream: bool
) -> None:
    upstream.script(
        Step(
            thinking="Hm",
            text="Two",
            tools=[LOOK_CALL, LOOK_CALL],
            input_tokens=90,
            cached_tokens=40,
            output_tokens=30,
            reasoning_tokens=20,
        ),
        Step(thinking="So", tools=[LOOK_CALL]),
        Step(text="Sunny in Paris"),
    )
    turns: list[Any] = [USER]
    asked: Any = {"model": NEVER, "tools": TOOLS, "reasoning_effort": "high", "max_completion_tokens": 500}
    first = ask(openai_client, stream, messages=turns, **asked)
    choice = first.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Two")
    assert len({call.id for call in choice.message.tool_calls}) == 2
    assert [json.loads(call.function.arguments) for call in choice.message.tool_calls] == [{"city": "Paris"}] * 2
    assert (first.usage.prompt_tokens, first.usage.prompt_tokens_details.cached_tokens) == (90, 40)
    assert (first.usage.completion_tokens, first.usage.completion_tokens_details.reasoning_tokens) == (30, 20)
    assert upstream.last.body["reasoning"] == {"effort": "high"}
    assert upstream.last.body["max_output_tokens"] == 500
    assert upstream.last.body["store"] is False
    turns += answered(choice.message)
    turns += answered(ask(openai_client, stream, messages=turns, **asked).choices[0].message)
    last = ask(openai_client, stream, messages=turns, **asked).choices[0]
    assert (last.message.content, last.finish_reason) == ("Sunny in Paris", "stop")
    kinds = [item.get("type", item.get("role")) for item in upstream.last.body["input"]]
    assert kinds == [
        *("user", "reasoning", "assistant", "function_call", "function_call"),
        *("function_call_output", "function_call_output", "reasoning", "function_call", "function_call_output"),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_drops_our_own_field_goes_on(
    openai_client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Step(thinking="Hm", tools=[LOOK_CALL]), Step(text="Done"))
    asked: Any = {"model": NEVER, "tools": TOOLS}
    call = ask(openai_client, stream, messages=[USER], **asked).choices[0].message.tool_calls[0]
    called = {"id": call.id, "type": "function", "function": {"name": "look", "arguments": call.function.arguments}}
    turns: list[Any] = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": call.id, "content": "x"},
    ]
    assert ask(openai_client, stream, messages=turns, **asked).choices[0].message.content == "Done"


def test_every_field_that_responses_has_is_translated(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(text='{"city":"Rome"}'))
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "look"}}]}
    said: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Go"}, image, file]},
    ]
    choice: Any = {"type": "allowed_tools", "allowed_tools": allowed}
    openai_client.chat.completions.create(
        model=NEVER,
        messages=said,
        tools=TOOLS,
        tool_choice=choice,
        parallel_tool_calls=False,
        reasoning_effort="low",
        verbosity="low",
        response_format={"type": "json_schema", "json_schema": {"name": "c", "strict": True, "schema": SCHEMA}},
        metadata={"a": "b"},
        service_tier="flex",
        prompt_cache_key="k",
        safety_identifier="u",
        store=False,
        max_completion_tokens=99,
    )
    body = upstream.last.body
    assert upstream.last.path == "/v1/responses"
    assert body.pop("input") == [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Go"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
            ],
        },
    ]
    assert body == {
        "model": "gpt-6.1-sol",
        "tools": [{"type": "function", "name": "look", "description": "Look", "parameters": SCHEMA, "strict": False}],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "look"}],
        },
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low"},
        "text": {
            "format": {"type": "json_schema", "name": "c", "schema": SCHEMA, "strict": True},
            "verbosity": "low",
        },
        "metadata": {"a": "b"},
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "safety_identifier": "u",
        "store": False,
        "max_output_tokens": 99,
        "include": ["reasoning.encrypted_content"],
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("frequency_penalty", 0.5),
        ("presence_penalty", 0.5),
        ("logit_bias", {"1": 5}),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("modalities", ["text", "audio"]),
        ("web_search_options", {}),
    ],
)
def test_a_field_that_responses_lacks_is_rejected_where_it_changes_the_answer(
    openai_client: openai.OpenAI, upstream: Upstream, field: str, value: Any
) -> None:
    asked: Any = {"model": NEVER, "messages": [USER], "tools": TOOLS, field: value}
    with pytest.raises(openai.BadRequestError, match="must go to /v1/responses") as caught:
        openai_client.chat.completions.create(**asked)
    assert (caught.value.param, caught.value.code) == (field, "unsupported_parameter")
    assert upstream.requests == []


def test_a_hint_that_responses_lacks_is_dropped_and_named(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(text="Hello"))
    asked: Any = {"seed": 7, "prediction": {"type": "content", "content": "x"}, "stop": ["END"], "temperature": 0.5}
    raw: Any = openai_client.chat.completions.with_raw_response.create(
        model=NEVER, messages=[USER], tools=TOOLS, **asked
    )
    assert set(raw.headers["x-dropped-parameters"].split(", ")) == set(asked)
    assert not set(asked) & set(upstream.last.body)


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_and_a_cut_answer_end_as_they_do_in_chat(
    openai_client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Step(refusal="I cannot do that"), Step(text="one two three", stop_reason="max_tokens"))
    asked: Any = {"model": NEVER, "messages": [USER], "tools": TOOLS}
    refused = ask(openai_client, stream, **asked).choices[0]
    assert (refused.message.refusal, refused.finish_reason) == ("I cannot do that", "stop")
    assert not refused.message.content
    raw: Any = openai_client.chat.completions.create(**asked, stream=stream)
    reason = list(raw)[-1].choices[0].finish_reason if stream else raw.choices[0].finish_reason
    assert reason == "length"


def test_an_error_after_the_first_byte_is_an_error_of_a_chat_stream(
    openai_client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.script(Step(words=20, fault="error", after=8, message="It broke", error_type="server_error"))
    with pytest.raises(openai.APIError) as caught:
        list(openai_client.chat.completions.create(model=NEVER, messages=[USER], tools=TOOLS, stream=True))
    assert not isinstance(caught.value, openai.APIStatusError)


def test_the_usage_chunk_comes_only_if_it_is_asked_for(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(text="Hi", times=2))
    for asked in (True, False):
        fields: Any = {"stream_options": {"include_usage": True}} if asked else {}
        stream = openai_client.chat.completions.create(model=NEVER, messages=[USER], tools=TOOLS, stream=True, **fields)
        chunks = list(stream)
        assert (chunks[-1].usage is not None) is asked
        assert all(chunk.usage is None for chunk in chunks[:-1])


def test_the_last_message_may_be_the_assistant_s(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    """OpenAI answers it with a new turn, at both of its routes."""
    upstream.script(Step(text="Hi"))
    turns: list[Any] = [USER, {"role": "assistant", "content": "I looked."}]
    reply = openai_client.chat.completions.create(model=NEVER, messages=turns, tools=TOOLS)
    assert reply.choices[0].message.content == "Hi"
    assert upstream.last.body["input"][-1]["role"] == "assistant"


GRAMMAR = {"syntax": "lark", "definition": "start: /.+/"}
CUSTOM: Any = [
    {"type": "custom", "custom": {"name": "run", "description": "Run", "format": {"type": "text"}}},
    {"type": "custom", "custom": {"name": "patch", "format": {"type": "grammar", "grammar": GRAMMAR}}},
    *TOOLS,
]


@pytest.mark.parametrize("stream", [False, True])
def test_custom_tools_stay_custom_tools(openai_client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    code = 'print("a\\n\u00e9\U0001f600")\n'
    run, empty = {"name": "run", "arguments": code}, {"name": "patch", "arguments": ""}
    upstream.script(Step(thinking="Hm", tools=[run, LOOK_CALL, empty]), Step(text="Done"))
    asked: Any = {"model": NEVER, "tools": CUSTOM, "tool_choice": {"type": "custom", "custom": {"name": "run"}}}
    raw: Any = openai_client.chat.completions.create(messages=[USER], stream=stream, **asked)
    calls: dict[int, Any] = {}
    if stream:
        for piece in [piece for chunk in raw for piece in chunk.choices[0].delta.tool_calls or ()]:
            given = piece.to_dict()
            kind = "custom" if "custom" in given else "function"
            call = calls.setdefault(piece.index, {"type": kind, kind: {"name": "", "input": "", "arguments": ""}})
            call["id"] = given.get("id") or call["id"]
            for name, text in given[kind].items():
                call[kind][name] += text
    else:
        calls = {index: call.to_dict() for index, call in enumerate(raw.choices[0].message.tool_calls)}
    assert [call["type"] for call in calls.values()] == ["custom", "function", "custom"]
    assert (calls[0]["custom"]["name"], calls[0]["custom"]["input"]) == ("run", code)
    assert (calls[2]["custom"]["name"], calls[2]["custom"]["input"]) == ("patch", "")
    assert json.loads(calls[1]["function"]["arguments"]) == {"city": "Paris"}
    sent = upstream.last.body
    assert sent["tools"][:2] == [
        {"type": "custom", "name": "run", "description": "Run"},
        {"type": "custom", "name": "patch", "format": {"type": "grammar", **GRAMMAR}},
    ]
    assert sent["tool_choice"] == {"type": "custom", "name": "run"}
    turns: list[Any] = [USER, {"role": "assistant", "tool_calls": list(calls.values())}]
    turns += [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in calls.values()]
    openai_client.chat.completions.create(messages=turns, model=NEVER, tools=CUSTOM)
    items = upstream.last.body["input"][1:]
    assert [item["type"] for item in items] == [
        *("custom_tool_call", "function_call", "custom_tool_call"),
        *("custom_tool_call_output", "function_call_output", "custom_tool_call_output"),
    ]
    assert items[0]["input"] == code


def test_another_model_is_told_the_grammar_of_a_custom_tool(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(text="Hi"))
    openai_client.chat.completions.create(model="anthropic/claude-haiku-4-5", messages=[USER], tools=CUSTOM)
    assert GRAMMAR["definition"] in upstream.last.body["tools"][1]["description"]
    assert "input_schema" in upstream.last.body["tools"][1]


def test_the_detail_of_an_image_and_a_file_of_openai_cross(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(text="Hi", times=2))
    image = {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}
    file = {"type": "file", "file": {"file_id": "file-1"}}
    said: list[Any] = [{"role": "user", "content": [image, file]}]
    openai_client.chat.completions.create(model=NEVER, messages=said, tools=TOOLS)
    assert upstream.last.body["input"][0]["content"] == [
        {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
        {"type": "input_file", "file_id": "file-1"},
    ]


def test_reasoning_without_a_summary_goes_back_to_its_model_and_to_no_other(
    openai_client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.script(Step(thinking="", tools=[LOOK_CALL]), Step(text="Done"), Step(text="Fine"))
    asked: Any = {"tools": TOOLS}
    first = openai_client.chat.completions.create(model=NEVER, messages=[USER], **asked).choices[0].message
    turns = [USER, *answered(first)]
    openai_client.chat.completions.create(model=NEVER, messages=turns, **asked)
    kinds = [item.get("type") for item in upstream.last.body["input"]]
    assert kinds == [None, "reasoning", "function_call", "function_call_output"]
    openai_client.chat.completions.create(model="anthropic/claude-haiku-4-5", messages=turns, **asked)
    assert [block["type"] for block in upstream.last.body["messages"][1]["content"]] == ["tool_use"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_was_cut_while_it_reasoned_is_an_empty_one(
    openai_client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    cut = Step(thinking="Hm, so", pieces=[], stop_reason="max_tokens", output_tokens=16, reasoning_tokens=16)
    upstream.script(cut)
    asked: Any = {"model": NEVER, "messages": [USER], "tools": TOOLS, "max_completion_tokens": 16}
    fields: Any = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    reply: Any = openai_client.chat.completions.create(**asked, **fields)
    chunks = list(reply) if stream else [reply]
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["length"]
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == 16


def test_a_tool_may_answer_with_an_image(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(tools=[LOOK_CALL]), Step(text="Done"))
    first = openai_client.chat.completions.create(model=NEVER, messages=[USER], tools=TOOLS).choices[0].message
    shown: list[Any] = [USER, *answered(first)]
    shown[-1]["content"] = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    openai_client.chat.completions.create(model=NEVER, messages=shown, tools=TOOLS)
    assert [part["type"] for part in upstream.last.body["input"][-1]["output"]] == ["input_text", "input_image"]
