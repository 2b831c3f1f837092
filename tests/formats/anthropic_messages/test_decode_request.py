"""Anthropic Messages, the client's side: requests as conversations."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsBase

from llm_service.core import errors
from llm_service.core.content import Message, Reasoning, Text, Thinking, ToolChoice
from llm_service.core.conversation import Conversation, Extra
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from tests.formats.anthropic_messages.wire import body
from tests.formats.examples import TURN, call, target


def test_a_request_becomes_a_conversation_with_its_blocks_and_parameters() -> None:
    request = body(
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "a", "citations": None}, {"type": "text", "text": "b"}],
            },
            {"role": "system", "content": "later"},
            {"role": "assistant", "content": "c"},
            {"role": "user", "content": "d"},
        ],
        system=[{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop_sequences=["END"],
        metadata={"user_id": "u"},
        tools=[],
        tool_choice={"type": "auto"},
        thinking={"type": "disabled"},
        service_tier="auto",
        output_config=None,
    )
    assert messages.read_request(messages.check(request)) == Conversation(
        messages=(
            Message("user", (Text("a"), Text("b"))),
            Message("system", (Text("later"),)),
            Message("assistant", (Text("c"),)),
            Message("user", (Text("d"),)),
        ),
        system=(Text("one"), Text("two")),
        max_tokens=10,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop=("END",),
        user="u",
        tool_choice=ToolChoice("auto"),
        reasoning=Reasoning("none"),
        tier="auto",
    )


HINT = {"type": "ephemeral"}


def test_thinking_of_earlier_turns_and_hints_to_cache_are_kept() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    request = body(
        messages=[
            *TURN,
            {
                "role": "assistant",
                "content": [thought, {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
            },
            *TURN,
        ],
        service_tier="standard_only",
        speed="fast",
        diagnostics={},
    )
    conversation = messages.read_request(messages.check(request))
    assert conversation.dropped == ()
    assert conversation.messages[1].parts == (Thinking("hm", "s", "messages"), Text("x", cache=0))


CLOCK = {"name": "clock", "input_schema": {"type": "object"}}
BASH = {"type": "bash_20250124", "name": "bash"}


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [{"name": "t"}]}, "tools[0].input_schema"),
        ({"tools": [{"type": "function", "function": {"name": "t"}}]}, "tools[0].type"),
        ({"tools": [BASH], "tool_choice": {"type": "any"}}, "tools[0]"),
        ({"tools": [CLOCK, BASH], "tool_choice": {"type": "tool", "name": "bash"}}, "tools[1]"),
        ({"container": {"skills": [{"type": "anthropic", "skill_id": "xlsx"}]}}, "container.skills"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "thinking.budget_tokens"),
        ({"output_config": {"effort": "lots"}}, "output_config.effort"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"metadata": {"user_id": 3}}, "metadata.user_id"),
        ({"system": [{"type": "image"}]}, "system[0]"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "novel": 1}]}, "messages[0].novel"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "container_upload"}]}]},
            "messages[0].content[1]",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, "messages[0].content[0].text"),
    ],
)
def test_what_other_formats_cannot_express_is_rejected_with_its_path(extra: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        messages.read_request(messages.check(body(**extra)))
    assert caught.value.param == param
    assert param in caught.value.message


@pytest.mark.parametrize("field", ["temperature", "top_p", "top_k"])
def test_sampling_is_rejected_for_an_api_version_without_it(field: str) -> None:
    request = messages.check(body(**{field: 1}))
    with pytest.raises(errors.InvalidRequest) as caught:
        messages.read_request(request, {"anthropic-version": "2026-10-21"})
    assert caught.value.message == f"{field}: Extra inputs are not permitted"
    assert caught.value.param == field
    for older in ({"anthropic-version": "2023-06-01"}, {}):
        assert getattr(messages.read_request(request, older), field) == 1


def test_fields_that_only_some_formats_know_become_extras() -> None:
    given = {name: {"any": "value"} for name in messages.EXTRAS} | {"brand_new": 1, "nothing": None, "seed": 3}
    conversation = messages.read_request(messages.check(body(**given)))
    assert conversation.dropped == ()
    expected = {field.name: Extra({"any": "value"}, name) for name, field in messages.EXTRAS.items()}
    assert conversation.extras == {**expected, "brand_new": Extra(1, "brand_new"), "seed": Extra(3, "seed")}


def test_neutral_values_do_not_become_extras() -> None:
    neutral = {name: value for name, field in messages.EXTRAS.items() for value in field.neutral}
    assert neutral == {"speed": "standard", "fallbacks": [], "mcp_servers": []}
    assert messages.read_request(messages.check(body(**neutral))).extras == {}


def test_every_field_of_the_sdk_is_in_common_or_in_extras() -> None:
    sent_as_headers = {"user_profile_id", "workspace_id"}
    fields = set(typing.get_type_hints(MessageCreateParamsBase)) - sent_as_headers | {"stream"}
    assert sorted(fields - messages.COMMON - set(messages.EXTRAS)) == []
    older = ["temperature", "top_k", "top_p"]  # anthropic-version 2023-06-01 still has them
    assert sorted(messages.COMMON - fields) == older
    assert sorted(messages.COMMON & set(messages.EXTRAS)) == []


HINTS = ["speed", "diagnostics", "container", "mcp_servers", "context_management", "fallbacks", "betas"]


@pytest.mark.parametrize("name", HINTS)
def test_hints_for_anthropic_are_dropped_and_named_for_a_chat_model(name: str) -> None:
    given = body(**{name: "fast"})
    sent, dropped = chat.write_request(call("messages", given), messages.read_request(messages.check(given)), target())
    assert name not in sent
    assert dropped == (name,)


@pytest.mark.parametrize("name", ["inference_geo", "new"])
def test_what_a_chat_model_cannot_do_is_rejected_with_the_path_of_the_field(name: str) -> None:
    given = body(**{name: "x"})
    with pytest.raises(errors.UnsupportedParameter) as caught:
        chat.write_request(call("messages", given), messages.read_request(messages.check(given)), target())
    assert caught.value.param == name
