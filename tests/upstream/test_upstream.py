"""The scripted vendor works with the official SDKs and rejects what the real vendors reject."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.upstream import ANTHROPIC_KEY, OPENAI_KEY, Step, Upstream, redirect
from tests.upstream.answer import DEFAULT_TEXT, words_of
from tests.upstream.conftest import CLAUDE, GPT, HELLO, claude_headers

PROPERTIES = {"city": {"type": "string"}, "days": {"type": "integer"}}
SCHEMA = {"type": "object", "properties": PROPERTIES}
CLAUDE_TOOLS: Any = [{"name": "get_weather", "input_schema": SCHEMA}]
GPT_TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]


def test_an_anthropic_answer_is_typed_and_its_usage_is_in_the_ledger(
    vendor: Upstream, claude: anthropic.Anthropic
) -> None:
    vendor.script(Step(cached_tokens=100, cache_write_tokens=20))
    message = claude.messages.create(model=CLAUDE, max_tokens=50, messages=HELLO)
    assert message.content[0].type == "text"
    assert message.content[0].text == DEFAULT_TEXT
    assert (message.stop_reason, message.model) == ("end_turn", "claude-haiku-4-5-20251001")
    billed = vendor.last.billed
    assert billed
    assert (billed.cached_tokens, billed.cache_write_tokens) == (100, 20)
    assert message.usage.input_tokens == billed.input_tokens - 120
    assert message.usage.output_tokens == billed.output_tokens == len(words_of(DEFAULT_TEXT))
    assert message._request_id == vendor.last.request_id
    assert vendor.last.headers["anthropic-version"] == "2026-10-21"


def test_an_openai_answer_is_typed_and_its_usage_is_in_the_ledger(vendor: Upstream, gpt: openai.OpenAI) -> None:
    vendor.script(Step(cached_tokens=100, thinking="Well now"))
    completion = gpt.chat.completions.create(model=GPT, messages=HELLO)
    assert completion.choices[0].message.content == DEFAULT_TEXT
    billed = vendor.last.billed
    assert billed
    assert completion.usage
    assert completion.usage.prompt_tokens_details
    assert completion.usage.prompt_tokens == billed.input_tokens > 100
    assert completion.usage.prompt_tokens_details.cached_tokens == 100
    assert completion.usage.completion_tokens == billed.output_tokens == len(words_of(DEFAULT_TEXT)) + 2
    assert completion._request_id == vendor.last.request_id


def test_an_anthropic_stream_accumulates_to_the_same_message(vendor: Upstream, claude: anthropic.Anthropic) -> None:
    step = Step(thinking="Let me see", text="It is sunny", tools=[{"name": "get_weather", "input": {"city": "Rome"}}])
    vendor.script(step, step)
    with claude.messages.stream(model=CLAUDE, max_tokens=500, messages=HELLO, tools=CLAUDE_TOOLS) as stream:
        assert "".join(stream.text_stream) == "It is sunny"
        streamed = stream.get_final_message()
    plain = claude.messages.create(model=CLAUDE, max_tokens=500, messages=HELLO, tools=CLAUDE_TOOLS)
    assert [block.type for block in streamed.content] == ["thinking", "text", "tool_use"]
    assert streamed.usage.output_tokens == plain.usage.output_tokens
    for left, right in zip(streamed.content, plain.content, strict=True):
        assert left.to_dict() | {"id": ""} == right.to_dict() | {"id": ""}
    assert vendor.requests[0].text_sent == "It is sunny"


def test_an_openai_stream_accumulates_to_the_same_completion(vendor: Upstream, gpt: openai.OpenAI) -> None:
    step = Step(text="On it", call_tools=1)
    vendor.script(step, step)
    options: Any = {"include_usage": True}
    with gpt.chat.completions.stream(model=GPT, messages=HELLO, tools=GPT_TOOLS, stream_options=options) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion()
    plain = gpt.chat.completions.create(model=GPT, messages=HELLO, tools=GPT_TOOLS)
    left, right = streamed.choices[0].message, plain.choices[0].message
    assert left.content == right.content == "On it"
    assert left.tool_calls
    assert right.tool_calls
    call = right.tool_calls[0]
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Paris", "days": 3}
    assert left.tool_calls[0].function.arguments == call.function.arguments
    assert streamed.usage == plain.usage
    assert streamed.choices[0].finish_reason == "tool_calls"


def test_openai_chunks_have_the_recorded_form(vendor: Upstream, gpt: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(gpt.chat.completions.create(model=GPT, messages=HELLO, stream=True, stream_options=options))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert all(chunk.to_dict()["obfuscation"] for chunk in chunks)
    bare = list(gpt.chat.completions.create(model=GPT, messages=HELLO, stream=True))
    assert bare[-1].choices[0].finish_reason == "stop"
    assert "usage" not in bare[-1].to_dict()


def test_the_answer_is_cut_at_max_tokens_and_stop_sequences(vendor: Upstream, gpt: openai.OpenAI) -> None:
    completion = gpt.chat.completions.create(model=GPT, messages=HELLO, max_tokens=3)
    assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == ("The quick brown", "length")
    body = {"model": CLAUDE, "max_tokens": 99, "messages": HELLO, "stop_sequences": ["fox j"]}
    reply = httpx2.post(f"{vendor.url}/v1/messages", json=body, headers=claude_headers()).json()
    assert reply["content"][0]["text"] == "The quick brown "
    assert (reply["stop_reason"], reply["stop_sequence"]) == ("stop_sequence", "fox j")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"temperature": 1.0}, "temperature: Extra inputs are not permitted"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"max_tokens": None}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": 900_000}, "max_tokens: 900000 > 64000"),
        ({"messages": []}, "messages: at least one message is required"),
    ],
)
def test_anthropic_rejects_with_its_own_messages(
    claude: anthropic.Anthropic, extra: dict[str, Any], message: str
) -> None:
    with pytest.raises(anthropic.BadRequestError, match=message) as caught:
        claude.messages.create(model=CLAUDE, max_tokens=9, messages=HELLO, extra_body=extra)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("arguments", "code", "param"),
    [
        ({"model": "gpt-5-mini", "max_tokens": 5}, "unsupported_parameter", "max_tokens"),
        ({"model": "gpt-5-mini", "temperature": 0.5}, "unsupported_value", "temperature"),
        ({"model": GPT, "extra_body": {"colour": "red"}}, "unknown_parameter", "colour"),
        ({"model": GPT, "messages": []}, "empty_array", "messages"),
        ({"model": GPT, "temperature": 9}, "decimal_above_max_value", "temperature"),
    ],
)
def test_openai_rejects_with_its_own_codes(gpt: openai.OpenAI, arguments: Any, code: str, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        gpt.chat.completions.create(**{"messages": HELLO, **arguments})
    assert (caught.value.code, caught.value.param, caught.value.type) == (code, param, "invalid_request_error")


def test_a_step_is_kept_for_the_next_request_when_the_vendor_rejects_this_one(
    vendor: Upstream, gpt: openai.OpenAI
) -> None:
    vendor.script(Step(text="Patience"))
    with pytest.raises(openai.NotFoundError):
        gpt.chat.completions.create(model="llama3", messages=HELLO)
    assert gpt.chat.completions.create(model=GPT, messages=HELLO).choices[0].message.content == "Patience"
    assert [seen.outcome for seen in vendor.requests] == ["rejected", "answered"]


def test_keys_and_versions_are_checked(vendor: Upstream, claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
    with pytest.raises(anthropic.AuthenticationError, match="invalid x-api-key"):
        claude.with_options(api_key="wrong").messages.create(model=CLAUDE, max_tokens=9, messages=HELLO)
    with pytest.raises(openai.AuthenticationError) as caught:
        gpt.with_options(api_key="sk-wrong-key-0000").chat.completions.create(model=GPT, messages=HELLO)
    assert caught.value.code == "invalid_api_key"
    headers = {"authorization": f"Bearer {ANTHROPIC_KEY}"}
    body = {"model": CLAUDE, "max_tokens": 9, "messages": HELLO}
    rejected = httpx2.post(f"{vendor.url}/v1/messages", json=body, headers=headers)
    assert rejected.status_code == 400
    assert "anthropic-version" in rejected.json()["error"]["message"]
    old = httpx2.post(f"{vendor.url}/v1/messages", json=body | {"temperature": 0.2}, headers=claude_headers())
    assert old.status_code == 200


def test_models_and_token_counts_are_served(claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
    assert claude.messages.count_tokens(model=CLAUDE, messages=HELLO).input_tokens > 0
    assert claude.models.list().data[0].type == "model"
    assert gpt.models.retrieve("gpt-4o").owned_by == "system"
    with pytest.raises(openai.NotFoundError):
        gpt.models.retrieve("gpt-1")
    with pytest.raises(openai.NotFoundError, match="Invalid URL"):
        gpt.batches.list()


@pytest.mark.parametrize(
    ("status", "anthropic_error", "openai_error"),
    [
        (429, anthropic.RateLimitError, openai.RateLimitError),
        (500, anthropic.InternalServerError, openai.InternalServerError),
        (529, anthropic.OverloadedError, openai.InternalServerError),
        (403, anthropic.PermissionDeniedError, openai.PermissionDeniedError),
    ],
)
def test_scripted_errors_raise_the_sdks_own_classes(
    vendor: Upstream,
    claude: anthropic.Anthropic,
    gpt: openai.OpenAI,
    status: int,
    anthropic_error: Any,
    openai_error: Any,
) -> None:
    step = Step(status=status, headers={"retry-after": "7"}, message="You said: {prompt} with {key}")
    vendor.script(step, step)
    with pytest.raises(anthropic_error, match="You said: Hello there with sk-ant") as caught:
        claude.messages.create(model=CLAUDE, max_tokens=9, messages=HELLO)
    assert caught.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai_error, match="You said: Hello there"):
        gpt.chat.completions.create(model=GPT, messages=HELLO)


def test_a_models_name_can_be_the_script(vendor: Upstream, gpt: openai.OpenAI) -> None:
    def ask(model: str) -> Any:
        return gpt.chat.completions.create(model=model, messages=HELLO).choices[0]

    assert ask("gpt-4o+words=3").message.content == "word1 word2 word3"
    assert ask("gpt-4o-echo").message.content == "Hello there"
    assert ask("gpt-4o+words=2+stop_reason=max_tokens").finish_reason == "length"
    with pytest.raises(openai.InternalServerError):
        ask("gpt-4o-overloaded")
    with pytest.raises(openai.BadRequestError, match="a step has no field"):
        ask("gpt-4o+nonsense=1")


RECORDED: list[tuple[str, Callable[[Any], bool]]] = [
    ("anthropic/streaming/tool_use_response.sse", lambda text: b'"partial_json":"{\\"locati"' in text),
    ("anthropic/fable-fallback/stream-a-refusal.sse", lambda text: b"signature_delta" in text),
    ("openai/chat_stream/parallel_tool_calls.sse", lambda text: text.count(b'"tool_calls"') > 5),
]


@pytest.mark.parametrize(("name", "check"), RECORDED)
def test_recordings_are_replayed_unchanged(vendor: Upstream, name: str, check: Callable[[Any], bool]) -> None:
    vendor.script(Step(replay=name))
    path = "/v1/messages" if name.startswith("anthropic") else "/v1/chat/completions"
    body = {"model": CLAUDE if path == "/v1/messages" else GPT, "messages": HELLO, "max_tokens": 9, "stream": True}
    headers = claude_headers() if path == "/v1/messages" else {"authorization": f"Bearer {OPENAI_KEY}"}
    response = httpx2.post(vendor.url + path, json=body, headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert check(response.content)
    assert vendor.last.billed
    assert vendor.last.billed.output_tokens > 1


def test_a_redirect_is_sent_as_a_redirect(vendor: Upstream) -> None:
    vendor.script(redirect("http://127.0.0.1:1/elsewhere"))
    headers = {"authorization": f"Bearer {OPENAI_KEY}"}
    body = {"model": GPT, "messages": HELLO}
    response = httpx2.post(f"{vendor.openai_url}/chat/completions", json=body, headers=headers)
    assert (response.status_code, response.headers["location"]) == (307, "http://127.0.0.1:1/elsewhere")


def test_the_vendor_can_be_scripted_over_http(vendor: Upstream, gpt: openai.OpenAI) -> None:
    def control(method: str, path: str, document: Any = None) -> Any:
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"{vendor.url}{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)

    control("POST", "/_script", [{"text": "By wire", "model": "gpt-*"}])
    assert gpt.chat.completions.create(model=GPT, messages=HELLO).choices[0].message.content == "By wire"
    entries = control("GET", "/_ledger")
    assert [(entry["status"], entry["outcome"], entry["body"]["model"]) for entry in entries] == [
        (200, "answered", GPT)
    ]
    control("DELETE", "/_ledger")
    assert vendor.requests == []
