"""Anthropic Messages, the upstream's side: conversations as requests."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core import errors
from llm_service.core.content import Message, Text
from llm_service.core.conversation import Conversation
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats.small import simple
from tests.formats.anthropic_messages.wire import claude, messages_call
from tests.formats.examples import TURN, call

# Text of white space alone is left out (tests/formats/test_target_rules.py).
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)


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
        max_tokens=draw(st.integers(1, 64_000)),
        stop=tuple(draw(st.lists(TEXTS, max_size=6))),
        user=draw(st.none() | TEXTS),
        **draw(SAMPLING),
    )


@settings(deadline=None)  # the machine may be busy
@given(conversations(), st.booleans())
def test_a_written_request_is_read_back_unchanged(conversation: Conversation, stream: bool) -> None:
    sent, dropped = messages.write_request(call("chat", {"messages": []}, stream=stream), conversation, claude())
    assert dropped == ()
    received = orjson.loads(orjson.dumps(sent))
    assert messages.read_request(messages.check(received)) == conversation
    assert received.get("stream", False) == stream


def conversation_of(*turns: tuple[str, str], **facts: Any) -> Conversation:
    return Conversation(
        messages=tuple(Message(role, (Text(text),)) for role, text in turns),  # type: ignore[arg-type]
        **facts,
    )


def test_the_system_prompt_keeps_its_blocks() -> None:
    sent, _ = messages.write_request(
        messages_call(), conversation_of(("user", "x"), system=(Text("a"), Text(""), Text("b"))), claude()
    )
    assert sent["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def test_max_tokens_defaults_to_the_limit_of_the_model() -> None:
    def max_tokens(conversation: Conversation, model: Any) -> Any:
        return messages.write_request(call("chat", {"messages": TURN}), conversation, model)[0]["max_tokens"]

    assert max_tokens(conversation_of(("user", "x")), claude()) == 64_000
    assert max_tokens(conversation_of(("user", "x")), claude(max_output=None)) == 4096
    assert max_tokens(conversation_of(("user", "x"), max_tokens=5), claude()) == 5
    assert max_tokens(conversation_of(("user", "x"), max_tokens=64_001), claude()) == 64_000


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
def test_sampling_depends_on_the_model(
    given: dict[str, Any], sampling: bool, sent: dict[str, Any], dropped: tuple[str, ...]
) -> None:
    request, names = messages.write_request(
        messages_call(), conversation_of(("user", "x"), **given), claude(sampling=sampling)
    )
    assert {name: request[name] for name in ("temperature", "top_p", "top_k") if name in request} == sent
    assert names == dropped


def test_a_later_system_message_stays_in_place_and_its_lost_role_is_named() -> None:
    request = {
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
    conversation = chat.read_request(chat.check(request))
    sent, dropped = messages.write_request(call("chat", request), conversation, claude())
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
        ({"messages": [SYSTEM, USER, {"role": "user", "content": " \n"}]}, "messages[2].content"),
        ({"messages": [USER], "stop": ["a", " \n"]}, "stop"),
    ],
)
def test_what_anthropic_does_not_accept_is_rejected_with_the_path_in_the_client_body(
    given: dict[str, Any], param: str
) -> None:
    given = {"model": "m", **given}
    with pytest.raises(errors.UnsupportedParameter) as caught:
        messages.write_request(call("chat", given), chat.read_request(chat.check(given)), claude())
    assert caught.value.param == param


def test_a_request_in_the_simple_format_is_translated() -> None:
    request = simple.check({"prompt": "Hello", "system": "Be brief.", "stop": "END", "temperature": 2})
    sent, dropped = messages.write_request(call("simple", request), simple.read_request(request), claude())
    assert dropped == ()
    assert sent == {
        "model": "claude-haiku-4-5",
        "max_tokens": 64_000,
        "messages": TURN,
        "system": [{"type": "text", "text": "Be brief."}],
        "stop_sequences": ["END"],
        "temperature": 1,
    }
