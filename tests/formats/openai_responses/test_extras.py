"""OpenAI Responses and the fields that not every format knows: read from its clients, and written for its upstreams."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llm_service.core import errors
from llm_service.core.content import Image, JsonFormat, Message, Reasoning, Text, Tool, ToolCall, ToolResult
from llm_service.core.conversation import Conversation, Extra
from llm_service.formats import openai_responses as responses
from llm_service.formats.openai_responses import schema
from llm_service.formats.openai_responses.encode_request import EXTRA_RULES
from llm_service.formats.rules import HINTS
from tests.formats.examples import asked_by, call, target
from tests.formats.openai_responses.wire import body

GPT5 = target(model="gpt-5", sampling=False, thinking="effort")
GPT4 = target(model="gpt-4o")


def read(**extra: Any) -> Conversation:
    return responses.read_request(responses.check(body(**extra)))


# ---- read from a client

VALUES: dict[str, Any] = {
    "access_programs": {"cyber": "standard"},
    "client_metadata": {"turn": "1"},
    "context_management": {"edits": []},
    "image": {"context_compression": "auto"},
    "max_tool_calls": 3,
    "metadata": {"a": "b"},
    "moderation": {"model": "m"},
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "truncation": "auto",
}


@pytest.mark.parametrize("name", VALUES)
def test_an_extra_field_keeps_its_value_and_its_path(name: str) -> None:
    conversation = read(**{name: VALUES[name]})
    assert conversation.extras == {schema.EXTRAS[name].name: Extra(VALUES[name], name)}
    assert conversation.dropped == ()


def test_every_extra_field_that_needs_nothing_kept_is_tested() -> None:
    kept_by_openai = {"background", "conversation", "previous_response_id", "prompt", "store"}
    assert set(VALUES) | kept_by_openai | {"top_logprobs"} == set(schema.EXTRAS)


@pytest.mark.parametrize("name", schema.EXTRAS)
def test_a_value_that_means_the_default_is_no_extra_field(name: str) -> None:
    for value in (None, *schema.EXTRAS[name].neutral):
        assert read(**{name: value}).extras == {}


def test_verbosity_in_chat_s_place_must_agree_with_text_verbosity() -> None:
    with pytest.raises(errors.InvalidRequest, match=r"^text\.verbosity contradicts verbosity: ") as caught:
        responses.read_request(body(text={"verbosity": "low"}, verbosity="high"))
    assert caught.value.param == "text.verbosity"
    assert responses.read_request(body(text={"verbosity": "low"}, verbosity="low")).extras


def test_an_unknown_field_is_an_extra_field_under_its_own_name() -> None:
    assert read(seed=7).extras == {"seed": Extra(7, "seed")}
    assert read(**{"no name": 7}).extras == {"no name": Extra(7, "(unnamed)")}


@pytest.mark.parametrize(
    ("given", "extras"),
    [
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": Extra(True, "include[0]")}),
        (
            {"include": ["reasoning.encrypted_content", "message.output_text.logprobs"], "top_logprobs": 0},
            {"logprobs": Extra(True, "include[1]")},
        ),
        ({"top_logprobs": 2}, {"top_logprobs": Extra(2, "top_logprobs"), "logprobs": Extra(True, "top_logprobs")}),
        (
            {"top_logprobs": 2, "include": ["message.output_text.logprobs"]},
            {"top_logprobs": Extra(2, "top_logprobs"), "logprobs": Extra(True, "top_logprobs")},
        ),
        ({"include": ["reasoning.encrypted_content"]}, {}),
    ],
)
def test_log_probabilities_are_asked_for_as_in_chat(given: dict[str, Any], extras: dict[str, Extra]) -> None:
    conversation = read(**given)
    assert conversation.extras == extras
    assert conversation.dropped == ()


# ---- which of OpenAI's two APIs is asked

HELLO = Message("user", (Text("Hello"),))


def conversation(*messages: Message, **more: Any) -> Conversation:
    return Conversation(messages or (HELLO,), **more)


IMAGE = ToolResult("c", (Image(url="https://x/y.png"),))
IMAGE_TURNS = conversation(HELLO, Message("assistant", (ToolCall("c", "look", ""),)), Message("user", (IMAGE,)))
TOOLS = conversation(tools=(Tool("a"),))
CHAT_HAS = {"frequency_penalty": 1, "presence_penalty": 1, "logit_bias": {"1": 1}, "n": 2}
RESPONSES_HAS = {"truncation": "auto"}


def with_extras(given: Conversation, **values: Any) -> Conversation:
    return replace(given, extras={name: Extra(value, f"client.{name}") for name, value in values.items()})


@pytest.mark.parametrize("name", CHAT_HAS)
@pytest.mark.parametrize(("given", "to"), [(conversation(), GPT4), (IMAGE_TURNS, GPT4), (TOOLS, GPT5)])
def test_chat_is_asked_if_only_chat_has_a_field(given: Conversation, to: Any, name: str) -> None:
    assert not responses.needed(with_extras(given, **{name: CHAT_HAS[name]}), to)


@pytest.mark.parametrize("name", RESPONSES_HAS)
@pytest.mark.parametrize(("given", "to"), [(conversation(), GPT4), (IMAGE_TURNS, GPT4), (TOOLS, GPT5)])
def test_responses_is_asked_if_only_responses_has_a_field(given: Conversation, to: Any, name: str) -> None:
    assert responses.needed(with_extras(given, **{name: RESPONSES_HAS[name]}), to)
    without = target(model=to.model, provider={"responses": False})
    assert not responses.needed(with_extras(given, **{name: RESPONSES_HAS[name]}), without)


@pytest.mark.parametrize(
    ("values", "needed"),
    [
        ({}, True),
        ({"n": 1, "frequency_penalty": 0}, True),
        ({"metadata": {"a": "b"}, "verbosity": "low"}, True),
        ({"field_of_nobody": 1}, True),
        ({"seed": 7}, False),
        ({"prediction": {"type": "content", "content": "x"}}, False),
    ],
)
def test_an_image_of_a_tool_goes_to_responses_unless_chat_keeps_more_fields(
    values: dict[str, Any], needed: bool
) -> None:
    assert responses.needed(with_extras(IMAGE_TURNS, **values), GPT4) is needed
    assert responses.needed(with_extras(TOOLS, seed=7), GPT5)


# ---- written for an upstream

CALL = call("messages", {"model": "m", "max_tokens": 5, "messages": []})


def write(given: Conversation, to: Any = GPT5, **more: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    return responses.write_request(replace(CALL, **more), asked_by(responses, given), to)


TRANSLATED: dict[str, tuple[Any, dict[str, Any]]] = {
    "logprobs": (True, {"include": ["reasoning.encrypted_content", "message.output_text.logprobs"]}),
    "metadata": ({"a": "b"}, {"metadata": {"a": "b"}}),
    "moderation": ({"model": "m"}, {"moderation": {"model": "m"}}),
    "parallel_tool_calls": (False, {"parallel_tool_calls": False}),
    "prompt_cache_key": ("k", {"prompt_cache_key": "k"}),
    "prompt_cache_options": ({"ttl": "30m"}, {"prompt_cache_options": {"ttl": "30m"}}),
    "prompt_cache_retention": ("24h", {"prompt_cache_retention": "24h"}),
    "reasoning_effort": ("low", {"reasoning": {"effort": "low"}}),
    "safety_identifier": ("ann", {"safety_identifier": "ann"}),
    "top_logprobs": (3, {"top_logprobs": 3}),
    "truncation": ("auto", {"truncation": "auto"}),
    "user": ("ann", {"safety_identifier": "ann"}),
    "verbosity": ("low", {"text": {"verbosity": "low"}}),
}
DROPPED: dict[str, Any] = {
    **dict.fromkeys((*HINTS, "compaction", "container", "context_management", "fallbacks", "mcp_servers"), "x"),
    "max_tool_calls": 3,
    "prediction": {"type": "content", "content": "x"},
    "seed": 7,
    "speed": "fast",
    "stream_options": {"include_usage": True},
}
REJECTED: dict[str, Any] = {
    "audio": {"voice": "alloy"},
    "frequency_penalty": 1,
    "inference_geo": "us",
    "logit_bias": {"1": 1},
    "modalities": ["text", "audio"],
    "n": 2,
    "presence_penalty": 1,
    "web_search_options": {},
    "field_of_nobody": 1,
    # Fields of this API that only its own clients can send, and the other formats' names of what every route has.
    **dict.fromkeys(
        (
            *("background", "conversation", "include", "input"),
            *("instructions", "max_completion_tokens", "max_output_tokens", "max_tokens", "messages", "output_config"),
            *("previous_response_id", "prompt", "reasoning", "system", "text", "thinking", "tool_choice", "tools"),
        ),
        "anything",
    ),
}


def test_every_row_is_tested() -> None:
    rows = set(EXTRA_RULES) | {"field_of_nobody"}
    assert set(TRANSLATED) | set(DROPPED) | set(REJECTED) | {"store"} == rows


@pytest.mark.parametrize("name", TRANSLATED)
def test_a_field_that_this_api_has_is_written_in_its_shape(name: str) -> None:
    value, written = TRANSLATED[name]
    plain, _ = write(conversation())
    assert write(with_extras(conversation(), **{name: value}), format="chat") == ({**plain, **written}, ())


@pytest.mark.parametrize("name", ["logprobs", "top_logprobs"])
def test_log_probabilities_are_rejected_for_a_client_whose_answers_cannot_hold_them(name: str) -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        write(with_extras(conversation(), **{name: 1}), format="messages")
    assert caught.value.param == f"client.{name}"


@pytest.mark.parametrize("name", DROPPED)
def test_a_hint_that_this_api_does_not_have_is_dropped_by_the_client_s_path(name: str) -> None:
    plain, _ = write(conversation())
    assert write(with_extras(conversation(), **{name: DROPPED[name]})) == (plain, (f"client.{name}",))


@pytest.mark.parametrize("name", REJECTED)
def test_a_field_that_would_change_the_answer_is_rejected_by_the_client_s_path(name: str) -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        write(with_extras(conversation(), **{name: REJECTED[name]}))
    assert caught.value.param == f"client.{name}"


@pytest.mark.parametrize("name", EXTRA_RULES)
def test_a_value_that_means_the_default_is_not_sent(name: str) -> None:
    for value in EXTRA_RULES[name].neutral:
        assert write(with_extras(conversation(), **{name: value})) == write(conversation())


def test_extra_fields_join_what_the_conversation_has_written() -> None:
    given = conversation(format=JsonFormat(), reasoning=Reasoning("low", summary=True), user="ann")
    sent, _ = write(with_extras(given, verbosity="high", reasoning_effort="low", safety_identifier="ann"))
    assert sent["text"] == {"format": {"type": "json_object"}, "verbosity": "high"}
    assert sent["reasoning"] == {"effort": "low", "summary": "auto"}
    assert sent["safety_identifier"] == "ann"


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        (conversation(reasoning=Reasoning("low")), "reasoning_effort", "high"),
        (conversation(user="ann"), "safety_identifier", "bob"),
        (conversation(), "logprobs", 5),
    ],
)
def test_an_extra_field_that_is_wrong_or_contradicts_another_is_named(
    given: Conversation, name: str, value: Any
) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        write(with_extras(given, **{name: value}), format="chat")
    assert caught.value.param == f"client.{name}"


def test_storage_that_another_format_s_client_asks_for_needs_permission() -> None:
    given = with_extras(conversation(), store=True)
    asking = {"body": {**CALL.body, "store": True}}
    with pytest.raises(errors.UnsupportedParameter) as caught:
        write(given, **asking)
    assert (caught.value.param, caught.value.code) == ("store", "storage_not_allowed")
    sent, dropped = write(given, target(model="gpt-5", provider={"storage": True}), **asking)
    assert (sent["store"], dropped) == (True, ())
