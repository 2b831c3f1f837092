"""The official OpenAI client against every model behind the service."""

from __future__ import annotations

import openai
import pytest

from tests.upstream import Step, Upstream

MODELS = ["openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"]


@pytest.mark.parametrize("model", MODELS)
def test_a_plain_answer(openai_client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    upstream.script(Step(text="Good morning to you", input_tokens=100, cached_tokens=60))
    reply = openai_client.chat.completions.create(
        model=model, messages=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}], max_tokens=50
    )
    assert reply.object == "chat.completion"
    assert reply.choices[0].message.content == "Good morning to you"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None and reply.usage.prompt_tokens_details is not None
    assert (reply.usage.prompt_tokens, reply.usage.prompt_tokens_details.cached_tokens) == (100, 60)
    assert reply.usage.model_extra is not None and reply.usage.model_extra["cost_usd"] > 0


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_with_usage(openai_client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    upstream.script(Step(text="one two three", output_tokens=3))
    stream = openai_client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Count"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two three"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 3
    assert chunks[-1].choices == []


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_without_usage_has_no_usage_chunk(openai_client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    chunks = list(
        openai_client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], stream=True)
    )
    assert all(chunk.choices and "usage" not in chunk.model_fields_set for chunk in chunks)
