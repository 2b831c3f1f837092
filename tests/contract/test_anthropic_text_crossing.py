"""The official Anthropic client with an OpenAI model: text, stop reasons and fields that cannot be translated."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.contract.cases import (
    CLAUDE,
    GPT,
    HELLO,
    error_param,
    messages_request,
)
from tests.upstream import Step, Upstream


def test_a_text_conversation_is_translated_for_openai(
    anthropic_client: anthropic.Anthropic, upstream: Upstream
) -> None:
    upstream.script(Step(text="Bonjour", input_tokens=30, cached_tokens=10, reasoning_tokens=0))
    raw = anthropic_client.messages.with_raw_response.create(
        **messages_request(
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


def test_a_stream_names_dropped_fields_too(anthropic_client: anthropic.Anthropic, upstream: Upstream) -> None:
    raw = anthropic_client.messages.with_raw_response.create(
        **messages_request(model=GPT, stream=True, cache_control={"type": "ephemeral"})
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
        (Step(stop_reason="eos"), GPT, "end_turn"),
        (Step(stop_reason="pause_turn"), CLAUDE, "pause_turn"),
        (Step(stop_reason="refusal"), CLAUDE, "refusal"),
        (Step(stop_reason="reason_of_tomorrow"), CLAUDE, "reason_of_tomorrow"),
    ],
    ids=lambda value: value.stop_reason or "refusal text" if isinstance(value, Step) else None,
)
@pytest.mark.parametrize("stream", [False, True])
def test_stop_reasons_are_translated(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, step: Step, model: str, reason: str, stream: bool
) -> None:
    upstream.script(step)
    if stream:
        with anthropic_client.messages.stream(**messages_request(model=model)) as streamed:
            message: Any = streamed.get_final_message()
    else:
        message = anthropic_client.messages.create(**messages_request(model=model))
    assert message.stop_reason == reason
    assert (message.stop_details is not None) == (reason == "refusal")


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}], "tool_choice": {"type": "any"}},
            "tools[0]",
        ),
        ({"container": {"skills": [{"type": "anthropic", "skill_id": "xlsx"}]}}, "container.skills"),
        ({"inference_geo": "us"}, "inference_geo"),
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
            {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "x"}]}]},
            "messages[0].content[0]",
        ),
        ({"system": [{"type": "image", "source": {}}]}, "system[0]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_field_that_cannot_be_translated_is_rejected_by_its_name(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, extra: dict[str, Any], param: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropic_client.messages.create(
            **messages_request(model=GPT) | {"messages": extra.get("messages", HELLO)}, extra_body=extra
        )
    error = caught.value
    assert error.type == "invalid_request_error"
    assert (error.error_code, error_param(error)) == ("unsupported_parameter", param)
    assert param in (error.api_message or "")
    assert upstream.requests == []
