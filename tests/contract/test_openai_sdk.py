"""The official OpenAI client against every model behind the service."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.contract.cases import (
    ECHO,
    HELLO,
    VENDORS,
)
from tests.support.server import Server
from tests.upstream import Step, Upstream

# ---- ordinary answers and streams


@pytest.mark.parametrize("model", VENDORS)
def test_a_plain_answer_has_its_text_and_usage(openai_client: openai.OpenAI, upstream: Upstream, model: str) -> None:
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


def test_echo_answers_plain_and_streamed(openai_client: openai.OpenAI) -> None:
    messages: Any = [{"role": "system", "content": "ignored"}, {"role": "user", "content": "one two three four"}]
    reply = openai_client.chat.completions.create(model=ECHO, messages=messages, max_completion_tokens=3)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("one two three", "length")
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (5, 3)
    with openai_client.chat.completions.stream(model=ECHO, messages=messages) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "one two three four"


@pytest.mark.parametrize("model", VENDORS)
def test_a_stream_with_usage_ends_with_a_usage_chunk(
    openai_client: openai.OpenAI, upstream: Upstream, model: str
) -> None:
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
def test_a_stream_without_usage_has_no_usage_field(
    openai_client: openai.OpenAI, service: Server, upstream: Upstream, model: str, options: Any
) -> None:
    upstream.script(Step(text="one two", output_tokens=2))
    stream = openai_client.chat.completions.with_raw_response.create(
        model=model, messages=HELLO, stream=True, stream_options=options
    )
    chunks = list(stream.parse())
    assert all(chunk.choices and "usage" not in chunk.model_fields_set for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert service.row(stream.headers["x-request-id"])["output_tokens"] == 2  # the service asks for usage itself


@pytest.mark.parametrize("model", VENDORS)
def test_the_stream_helper_assembles_the_answer(openai_client: openai.OpenAI, upstream: Upstream, model: str) -> None:
    upstream.script(Step(text="one two three", output_tokens=3))
    deltas = []
    with openai_client.chat.completions.stream(
        model=model, messages=HELLO, stream_options={"include_usage": True}
    ) as stream:
        for event in stream:
            # The first chunk has the role and an empty delta, as OpenAI's has.
            if event.type == "content.delta" and event.delta:
                deltas.append(event.delta)
        final = stream.get_final_completion()
    assert deltas == ["one", " two", " three"]
    assert (final.choices[0].message.content, final.choices[0].finish_reason) == ("one two three", "stop")
    assert final.usage is not None and final.usage.completion_tokens == 3


# ---- models


def test_models_are_listed_and_found_by_name(service: Server, openai_client: openai.OpenAI) -> None:
    listed = openai_client.models.list().data
    names = [model.id for model in listed]
    assert {"fast", "smart", "echo/echo", "anthropic/claude-haiku-4-5", "openai/gpt-6.1-terra"} <= set(names)
    assert len(names) == len(set(names))
    assert {model.object for model in listed} == {"model"}
    for name in ["fast", "echo/echo", "openai/gpt-4o", "gpt-4o", "anthropic/claude-opus-4-6"]:
        model = openai_client.models.retrieve(name)
        assert (model.id, model.object) == (name, "model")
        assert model.owned_by in ("anthropic", "openai", "echo")


def test_an_unknown_model_is_not_found(openai_client: openai.OpenAI) -> None:
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
    assert "openai/gpt-6.1-terra" in names and "fast" in names
    assert not {name for name in names if name.startswith(("anthropic/", "echo/"))}
    client.chat.completions.create(model="gpt-4o", messages=HELLO)
    for ask in (
        lambda: client.models.retrieve("anthropic/claude-haiku-4-5"),
        lambda: client.chat.completions.create(model="claude-haiku-4-5", messages=HELLO),
    ):
        with pytest.raises(openai.PermissionDeniedError) as caught:
            ask()
        assert caught.value.code == "model_not_allowed"
