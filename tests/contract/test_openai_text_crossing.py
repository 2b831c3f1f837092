"""The official OpenAI client with an Anthropic model: text, stop reasons and fields that cannot be translated."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from tests.contract.cases import (
    CLAUDE,
    GPT,
    HELLO,
)
from tests.support.server import Server
from tests.upstream import Step, Upstream


def test_a_text_conversation_is_translated_for_claude(openai_client: openai.OpenAI, upstream: Upstream) -> None:
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
    assert upstream.last.headers["anthropic-version"] == "2023-06-01"  # the version that accepts a temperature
    assert sorted(raw.headers["x-dropped-parameters"].split(", ")) == ["seed", "store"]
    reply = raw.parse()
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("Bonjour ", "stop")
    usage = reply.usage
    assert usage is not None and usage.prompt_tokens_details is not None
    details = usage.prompt_tokens_details
    assert (usage.prompt_tokens, details.cached_tokens, details.cache_write_tokens) == (30, 10, 5)


def test_sampling_fields_are_dropped_by_name_for_a_model_without_sampling(
    openai_client: openai.OpenAI, upstream: Upstream
) -> None:
    raw = openai_client.chat.completions.with_raw_response.create(
        model="claude-opus-4-8", messages=HELLO, temperature=0.3, top_p=0.9
    )
    assert sorted(raw.headers["x-dropped-parameters"].split(", ")) == ["temperature", "top_p"]
    assert not {"temperature", "top_p"} & set(upstream.last.body)
    # The model's own limit, because a request in OpenAI's format may have none.
    assert upstream.last.body["max_tokens"] == 128_000


def test_a_stream_names_dropped_fields_too(openai_client: openai.OpenAI, upstream: Upstream) -> None:
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
        (Step(stop_reason="max_tokens"), GPT, "length"),
        (Step(stop_reason="content_filter"), GPT, "content_filter"),
        (Step(stop_reason="eos"), GPT, "eos"),  # relayed as it is
    ],
    ids=lambda value: value.stop_reason if isinstance(value, Step) else None,
)
@pytest.mark.parametrize("stream", [False, True])
def test_stop_reasons_are_translated(
    openai_client: openai.OpenAI, upstream: Upstream, step: Step, model: str, reason: str, stream: bool
) -> None:
    upstream.script(step)
    answer: Any = openai_client.chat.completions.create(model=model, messages=HELLO, stream=stream)
    choice = list(answer)[-1].choices[0] if stream else answer.choices[0]
    assert choice.finish_reason == reason


@pytest.mark.parametrize("reason", ["error", "insufficient_system_resource", "reason_of_tomorrow"])
def test_a_stop_reason_that_is_no_end_is_a_failure(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic, upstream: Upstream, reason: str
) -> None:
    upstream.always(Step(stop_reason=reason))
    with pytest.raises(openai.InternalServerError):
        openai_client.chat.completions.create(model=GPT, messages=HELLO)
    with pytest.raises(openai.APIError, match="provider"):
        list(openai_client.chat.completions.create(model=GPT, messages=HELLO, stream=True))
    with pytest.raises(anthropic.InternalServerError):
        anthropic_client.messages.create(model=GPT, messages=HELLO, max_tokens=9)
    with (
        pytest.raises(anthropic.APIStatusError),
        anthropic_client.messages.stream(model=GPT, messages=HELLO, max_tokens=9) as streamed,
    ):
        streamed.get_final_message()


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tools[0]"),
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
def test_a_field_that_cannot_be_translated_is_rejected_by_its_name(
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
