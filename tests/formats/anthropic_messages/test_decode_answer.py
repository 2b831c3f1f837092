"""Anthropic Messages, the upstream's side: requests out, replies and errors in."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core import errors
from llm_service.core.content import Message, Text, Thinking
from llm_service.core.conversation import Conversation
from llm_service.core.usage import Usage
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats.small import simple
from tests.formats.anthropic_messages.wire import body, messages_call, reply_of
from tests.formats.examples import TURN, call, recorded, target


def claude(**facts: Any) -> Any:
    return target("anthropic", "claude-haiku-4-5", **{"max_output": 64_000, **facts})


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


PARTS = st.lists(TEXTS.map(Text), min_size=1, max_size=3).map(tuple)


SAMPLING = st.one_of(
    st.just({}),
    st.builds(lambda value: {"temperature": value}, st.floats(0, 1)),
    st.builds(lambda value, k: {"top_p": value, "top_k": k}, st.floats(0, 1), st.integers(0, 100)),
)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    turn = st.builds(Message, st.sampled_from(["user", "assistant"]), PARTS)
    user = st.builds(Message, st.just("user"), PARTS)
    return Conversation(
        messages=(draw(user), *draw(st.lists(turn, max_size=4)), draw(user)),
        system=tuple(draw(st.lists(TEXTS.map(Text), max_size=3))),
        max_tokens=draw(st.integers(1, 10**9)),
        stop=tuple(draw(st.lists(TEXTS.filter(lambda stop: bool(stop.strip())), max_size=6))),
        user=draw(st.none() | TEXTS),
        **draw(SAMPLING),
    )


@settings(deadline=None)  # the machine may be busy
@given(conversations(), st.booleans())
def test_a_request_that_was_written_is_read_back_the_same(conversation: Conversation, stream: bool) -> None:
    sent, dropped = messages.write_request(call("chat", {"messages": []}, stream=stream), conversation, claude())
    assert dropped == ()
    received = orjson.loads(orjson.dumps(sent))
    assert messages.read_request(messages.check(received)) == conversation
    assert received.get("stream", False) == stream


def say(*turns: tuple[str, str], **facts: Any) -> Conversation:
    return Conversation(
        messages=tuple(Message(role, (Text(words),)) for role, words in turns),  # type: ignore[arg-type]
        **facts,
    )


def test_the_system_prompt_keeps_its_blocks() -> None:
    sent, _ = messages.write_request(
        messages_call(), say(("user", "x"), system=(Text("a"), Text(""), Text("b"))), claude()
    )
    assert sent["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def test_max_tokens_is_the_model_s_own_limit_when_the_client_gave_none() -> None:
    asked = call("chat", {"messages": TURN})
    assert messages.write_request(asked, say(("user", "x")), claude())[0]["max_tokens"] == 64_000
    assert messages.write_request(asked, say(("user", "x")), claude(max_output=None))[0]["max_tokens"] == 4096
    assert messages.write_request(asked, say(("user", "x"), max_tokens=5), claude())[0]["max_tokens"] == 5


@pytest.mark.parametrize(
    ("given", "sampling", "sent", "dropped"),
    [
        ({"temperature": 1.7}, True, {"temperature": 1}, ()),
        ({"temperature": 0.3, "top_p": 0.9}, True, {"temperature": 0.3}, ("top_p",)),
        ({"top_p": 0.9, "top_k": 4}, True, {"top_p": 0.9, "top_k": 4}, ()),
        ({"temperature": 0.3, "top_p": 0.9, "top_k": 4}, False, {}, ("temperature", "top_p", "top_k")),
        ({}, False, {}, ()),
    ],
)
def test_sampling_follows_the_model(
    given: dict[str, Any], sampling: bool, sent: dict[str, Any], dropped: tuple[str, ...]
) -> None:
    request, lost = messages.write_request(messages_call(), say(("user", "x"), **given), claude(sampling=sampling))
    assert {name: request[name] for name in ("temperature", "top_p", "top_k") if name in request} == sent
    assert lost == dropped


def test_a_later_system_message_keeps_its_place_and_its_lost_rank_is_named() -> None:
    asked = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "first"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {
                "role": "developer",
                "content": [{"type": "text", "text": "be brief"}, {"type": "text", "text": "please"}],
            },
            {"role": "user", "content": "c"},
        ],
    }
    conversation = chat.read_request(chat.check(asked))
    sent, dropped = messages.write_request(call("chat", asked), conversation, claude())
    assert dropped == ("messages[3].role",)
    assert sent["system"] == [{"type": "text", "text": "first"}]
    assert sent["messages"] == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "System: be brief"}, {"type": "text", "text": "please"}]},
        {"role": "user", "content": "c"},
    ]


USER, ASSISTANT, SYSTEM = ({"role": role, "content": "x"} for role in ("user", "assistant", "system"))


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"messages": [ASSISTANT, USER]}, "messages[0].role"),
        ({"messages": [SYSTEM, SYSTEM, ASSISTANT, USER]}, "messages[2].role"),
        ({"messages": [SYSTEM, USER, ASSISTANT]}, "messages[2].role"),
        ({"messages": [SYSTEM]}, "messages"),
        ({"messages": [SYSTEM, USER, {"role": "assistant", "content": ""}, USER]}, "messages[2].content"),
        ({"messages": [USER], "stop": ["a", " \n"]}, "stop"),
    ],
)
def test_what_anthropic_cannot_take_is_refused_under_the_client_s_path(given: dict[str, Any], param: str) -> None:
    given = {"model": "m", **given}
    with pytest.raises(errors.UnsupportedParameter) as refusal:
        messages.write_request(call("chat", given), chat.read_request(chat.check(given)), claude())
    assert refusal.value.param == param


def test_the_simple_format_crosses_too() -> None:
    asked = simple.check({"prompt": "Hello", "system": "Be brief.", "stop": "END", "temperature": 2})
    sent, dropped = messages.write_request(call("simple", asked), simple.read_request(asked), claude())
    assert dropped == ()
    assert sent == {
        "model": "claude-haiku-4-5",
        "max_tokens": 64_000,
        "messages": TURN,
        "system": [{"type": "text", "text": "Be brief."}],
        "stop_sequences": ["END"],
        "temperature": 1,
    }


def test_a_body_is_forwarded_as_it_is_but_for_the_model() -> None:
    asked = body(stream=True, thinking={"type": "adaptive"}, novel=[1])
    before = json.dumps(asked)
    assert messages.forward(call("messages", asked, stream=True), claude()) == {**asked, "model": "claude-haiku-4-5"}
    assert json.dumps(asked) == before


def test_recorded_replies_are_read() -> None:
    plain = recorded("test_messages-TestSyncParse-bd7029d5-d8d4-4e06-be3a-2ac9c60803a6.json")
    answer = messages.read_answer(plain)
    assert answer.text == plain["content"][0]["text"]
    assert (answer.usage, answer.stop_reason) == (Usage(406, 50), "end_turn")
    assert answer.model == "claude-sonnet-4-5-20250929"
    tools = recorded("test_runners-TestSyncRunTools-32da0815-2270-4d29-87be-3b5b63ab42e2.json")
    assert messages.read_verbatim(tools).body is tools
    assert messages.read_verbatim(tools).usage == Usage(11306, 163, web_searches=1)
    with pytest.raises(errors.UpstreamBroken):
        messages.read_answer(tools)


def test_thinking_and_texts_are_read() -> None:
    parts = (Thinking("1234", "s", "messages"), Text("12345"), Text("678"))
    assert messages.read_answer(reply_of()).parts == parts


FIVE = {"input_tokens": 5, "output_tokens": 2}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (FIVE, Usage(5, 2)),
        (
            {**FIVE, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 20},
            Usage(35, 2, cached_tokens=10, cache_write_tokens=20),
        ),
        (
            {**FIVE, "cache_creation_input_tokens": 20, "cache_creation": {"ephemeral_1h_input_tokens": 15}},
            Usage(25, 2, cache_write_tokens=20, cache_write_1h_tokens=15),
        ),
        (
            {**FIVE, "cache_creation_input_tokens": 20, "cache_creation": {"ephemeral_1h_input_tokens": 25}},
            Usage(25, 2, cache_write_tokens=20, cache_write_1h_tokens=20, exact=False),
        ),
        ({**FIVE, "cache_read_input_tokens": None, "cache_creation": None}, Usage(5, 2)),
        ({**FIVE, "output_tokens_details": {"thinking_tokens": 1}}, Usage(5, 2, reasoning_tokens=1)),
        ({**FIVE, "output_tokens_details": {"thinking_tokens": -1}}, Usage(5, 2, exact=False)),
        ({**FIVE, "cache_read_input_tokens": "10"}, Usage(5, 2, exact=False)),
        ({**FIVE, "server_tool_use": {"web_search_requests": 3}}, Usage(5, 2, web_searches=3)),
        ({**FIVE, "server_tool_use": {"web_search_requests": -3}}, Usage(5, 2, exact=False)),
        ({**FIVE, "server_tool_use": {"web_search_requests": 10**9}}, Usage(5, 2, web_searches=1000, exact=False)),
        ({**FIVE, "server_tool_use": [3]}, Usage(5, 2)),
        ({**FIVE, "service_tier": "standard", "speed": "standard", "inference_geo": "global"}, Usage(5, 2)),
        ({**FIVE, "service_tier": "batch"}, Usage(5, 2, tier="batch")),
        ({**FIVE, "service_tier": "standard", "speed": "fast"}, Usage(5, 2, tier="fast")),
        ({**FIVE, "service_tier": "priority", "speed": "fast"}, Usage(5, 2, tier="priority+fast")),
        ({**FIVE, "inference_geo": "us"}, Usage(5, 2, tier="us")),
        ({**FIVE, "inference_geo": "not_available", "service_tier": {}}, Usage(5, 2, tier="unknown")),
        ({"output_tokens": 2}, Usage(100, 2, exact=False)),
        ({"output_tokens": 2, "cache_read_input_tokens": 30}, Usage(100, 2, cached_tokens=30, exact=False)),
        ({"input_tokens": -3, "output_tokens": 2.5}, Usage(100, 3, exact=False)),
        ({"input_tokens": True, "output_tokens": 10**40}, Usage(100, 3, exact=False)),
        (None, Usage(100, 3, exact=False)),
        ("x", Usage(100, 3, exact=False)),
    ],
)
def test_counts_include_the_cache_and_are_estimated_when_they_cannot_be_believed(usage: Any, expected: Usage) -> None:
    assert messages.read_answer(reply_of(usage=usage), messages_call()).usage == expected
    assert messages.read_verbatim(reply_of(usage=usage), messages_call()).usage == expected


@pytest.mark.parametrize(
    "reply",
    [
        {},
        reply_of(content="x"),
        reply_of(content=[3]),
        reply_of(content=[{"type": "text", "text": 3}]),
        reply_of(content=[{"type": "tool_use"}]),
        reply_of(stop_reason=None),
    ],
)
def test_what_is_no_answer_is_broken(reply: dict[str, Any]) -> None:
    with pytest.raises(errors.UpstreamBroken):
        messages.read_answer(reply)


def test_an_error_with_status_200_is_an_error() -> None:
    with pytest.raises(errors.UpstreamOverloaded):
        messages.read_verbatim({"type": "error", "error": {"type": "overloaded_error", "message": "x"}})


def test_a_vendor_s_error_is_read_from_whatever_it_sent() -> None:
    error = {"type": "rate_limit_error", "message": "m", "details": {"error_code": "ramp_limit_exceeded"}}
    told = messages.read_error({"type": "error", "error": error})
    assert (told.type, told.code, told.message) == ("rate_limit_error", "ramp_limit_exceeded", "m")
    nonsense: Any
    for nonsense in (None, [], "text", {"error": "text"}, {"error": {"type": 3, "details": 4, "message": 5}}):
        told = messages.read_error(nonsense)
        assert (told.type if told.type != "3" else None, told.code, told.message) == (None, None, None)
