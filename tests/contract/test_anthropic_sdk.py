"""The official Anthropic client against every model behind the service."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.contract.cases import (
    CLAUDE,
    ECHO,
    VENDORS,
    error_param,
    frames,
    messages_request,
)
from tests.support.server import Server
from tests.upstream import Step, Upstream

OLD, NEW = "2023-06-01", "2026-10-21"


# ---- ordinary answers and streams


@pytest.mark.parametrize("model", VENDORS)
def test_a_plain_answer_has_its_text_and_usage(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, model: str
) -> None:
    upstream.script(Step(text="Good morning to you", input_tokens=100, cached_tokens=60, cache_write_tokens=10))
    message = anthropic_client.messages.create(**messages_request(model=model, system="Be kind."))
    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    assert [(block.type, block.to_dict()["text"]) for block in message.content] == [("text", "Good morning to you")]
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (30, 60, 10)
    assert usage.output_tokens == 4


def test_echo_answers_plain_and_streamed(anthropic_client: anthropic.Anthropic) -> None:
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "one two three four"}]}]
    message = anthropic_client.messages.create(**messages_request(model=ECHO, messages=messages, max_tokens=3))
    assert (message.content[0].to_dict()["text"], message.stop_reason) == ("one two three", "max_tokens")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (4, 3)
    with anthropic_client.messages.stream(
        **messages_request(model=ECHO, messages=messages, stop_sequences=["three"])
    ) as stream:
        assert "".join(stream.text_stream) == "one two"
        final = stream.get_final_message()
    assert (final.stop_reason, final.stop_sequence) == ("stop_sequence", "three")


@pytest.mark.parametrize("model", VENDORS)
def test_a_stream_has_anthropic_s_events_in_their_order(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, model: str
) -> None:
    upstream.script(Step(text="one two", input_tokens=50, cached_tokens=20, output_tokens=2))
    events = list(anthropic_client.messages.create(**messages_request(model=model, stream=True)))
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
def test_every_event_has_its_event_line_and_a_ping_follows_the_first_block_start(
    service: Server, upstream: Upstream, model: str
) -> None:
    got = frames(service, "/v1/messages", messages_request(model=model, stream=True))
    assert all(frame.event == frame.json["type"] for frame in got if frame.comment is None)
    assert [frame.event for frame in got][:3] == ["message_start", "content_block_start", "ping"]
    assert got[-1].event == "message_stop"


@pytest.mark.parametrize("model", VENDORS)
def test_the_stream_helper_assembles_the_answer(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, model: str
) -> None:
    upstream.script(Step(text="one two three", input_tokens=50, cached_tokens=20, output_tokens=3))
    with anthropic_client.messages.stream(**messages_request(model=model)) as stream:
        assert list(stream.text_stream) == ["one", " two", " three"]
        final = stream.get_final_message()
    assert (final.content[0].to_dict()["text"], final.stop_reason) == ("one two three", "end_turn")
    assert (final.usage.input_tokens, final.usage.cache_read_input_tokens) == (30, 20)
    assert final.usage.output_tokens == 3


# ---- the two API versions and their sampling rules


def with_version(version: str | None) -> dict[str, Any]:
    return {"extra_headers": {"anthropic-version": version or anthropic.Omit()}}


@pytest.mark.parametrize("model", VENDORS)
def test_the_old_version_accepts_a_temperature(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, model: str
) -> None:
    anthropic_client.messages.create(
        **messages_request(model=model), extra_body={"temperature": 0.3}, **with_version(OLD)
    )
    assert upstream.last.body["temperature"] == 0.3
    assert upstream.last.headers.get("anthropic-version") == (OLD if model == CLAUDE else None)


@pytest.mark.parametrize("field", ["temperature", "top_p", "top_k"])
@pytest.mark.parametrize("model", [*VENDORS, ECHO])
def test_the_new_version_rejects_sampling_fields_by_name(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, model: str, field: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropic_client.messages.create(**messages_request(model=model), extra_body={field: 1})
    assert caught.value.api_message == f"{field}: Extra inputs are not permitted"
    assert caught.value.type == "invalid_request_error"
    assert len(upstream.requests) == (model == CLAUDE)  # Anthropic rejects the field itself


def test_an_unknown_version_is_rejected_by_anthropic(anthropic_client: anthropic.Anthropic, upstream: Upstream) -> None:
    with pytest.raises(anthropic.BadRequestError, match="anthropic-version"):
        anthropic_client.messages.create(**messages_request(), **with_version("2024-02-30"))


def test_a_request_without_a_version_uses_the_old_one(service: Server, upstream: Upstream) -> None:
    reply = service.http().post("/v1/messages", json=messages_request(temperature=0.5))
    assert reply.status_code == 200, reply.text
    assert upstream.last.headers["anthropic-version"] == OLD


# ---- models


def test_models_are_listed_in_pages(service: Server, anthropic_client: anthropic.Anthropic) -> None:
    whole = anthropic_client.models.list(limit=1000)
    names = [model.id for model in whole.data]
    assert {"fast", "smart", "echo/echo", "anthropic/claude-haiku-4-5", "openai/gpt-6.1-terra"} <= set(names)
    assert (whole.has_more, whole.first_id, whole.last_id) == (False, names[0], names[-1])
    for size in (1, 2, len(names)):
        assert [model.id for model in anthropic_client.models.list(limit=size)] == names  # the client reads all pages
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
def test_a_wrong_page_parameter_is_rejected_by_its_name(
    anthropic_client: anthropic.Anthropic, query: dict[str, Any]
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropic_client.models.list(**query)
    assert error_param(caught.value) == next(iter(query))


def test_an_unknown_model_is_not_found(anthropic_client: anthropic.Anthropic) -> None:
    for ask in (
        lambda: anthropic_client.models.retrieve("nobody/knows:this"),
        lambda: anthropic_client.messages.create(**messages_request(model="nobody/knows:this")),
    ):
        with pytest.raises(anthropic.NotFoundError) as caught:
            ask()
        assert (caught.value.type, caught.value.error_code) == ("not_found_error", "model_not_found")
