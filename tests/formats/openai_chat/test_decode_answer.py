"""OpenAI Chat Completions, the upstream's side: requests are written, replies and errors are read."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core import errors
from llm_service.core.content import Message, Text, Thinking, ToolCall
from llm_service.core.conversation import Conversation
from llm_service.core.events import Finished, Relay
from llm_service.core.usage import Usage
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from tests.formats.examples import TURN, call, fixture, fixture_names, read, target
from tests.formats.openai_chat.wire import USAGE, body, chat_call, reply_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


PARTS = st.lists(TEXTS.map(Text), min_size=1, max_size=3).map(tuple)


def conversations(**extra: Any) -> st.SearchStrategy[Conversation]:
    turn = st.builds(Message, st.sampled_from(["user", "assistant", "system"]), PARTS)
    turns = st.tuples(
        st.builds(Message, st.just("user"), PARTS),
        st.lists(turn, max_size=4),
        st.builds(Message, st.just("user"), PARTS),
    ).map(lambda parts: (parts[0], *parts[1], parts[2]))
    return st.builds(
        Conversation,
        messages=turns,
        system=st.lists(TEXTS.map(Text), max_size=3).map(tuple),
        max_tokens=st.none() | st.integers(1, 10**9),
        temperature=st.none() | st.floats(0, 2),
        top_p=st.none() | st.floats(0, 1),
        stop=st.lists(TEXTS, max_size=4).map(tuple),
        user=st.none() | st.text("abc", min_size=1, max_size=64),
        **extra,
    )


@settings(deadline=None)  # the machine may be slow
@given(conversations(), st.booleans(), st.sampled_from(["max_completion_tokens", "max_tokens"]))
def test_a_request_that_was_written_is_read_back_the_same(
    conversation: Conversation, stream: bool, limit_field: str
) -> None:
    asked = call("messages", {"messages": []}, stream=stream)
    sent, dropped = chat.write_request(asked, conversation, target(provider={"max_tokens_field": limit_field}))
    assert dropped == ()
    received = orjson.loads(orjson.dumps(sent))
    assert chat.read_request(chat.check(received)) == conversation
    assert received.get("stream", False) == stream


def test_a_reasoning_model_gets_a_developer_message_and_no_sampling() -> None:
    conversation = Conversation(
        messages=(Message("user", (Text("x"),)),),
        system=(Text("a"), Text("b")),
        max_tokens=9,
        temperature=0.5,
        top_p=0.5,
        top_k=5,
        stop=("END",),
        user="u" * 65,
        field_names=messages.FIELD_NAMES,
    )
    asked = call("messages", {"messages": TURN}, stream=True)
    sent, dropped = chat.write_request(asked, conversation, target(model="gpt-5", sampling=False))
    assert dropped == ("temperature", "top_p", "stop_sequences", "top_k")
    system = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert sent == {
        "model": "gpt-5",
        "messages": [{"role": "developer", "content": system}, {"role": "user", "content": "x"}],
        "max_completion_tokens": 9,
        "safety_identifier": sent["safety_identifier"],
        "store": False,
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
    }
    assert len(sent["safety_identifier"]) == 64


def test_an_older_server_gets_only_the_fields_it_knows() -> None:
    conversation = Conversation(messages=(Message("user", (Text("x"),)),), max_tokens=9, user="u")
    older = target(provider={"max_tokens_field": "max_tokens", "own_address": True})
    sent, _ = chat.write_request(call("simple", {"prompt": "x"}, stream=True), conversation, older)
    assert sent["max_tokens"] == 9
    assert sent["user"] == "u"
    assert "store" not in sent and "store" not in chat.forward(call("chat", body()), older)
    assert sent["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"messages": [*TURN, {"role": "assistant", "content": "Once"}]}, "messages[1].role"),
        ({"messages": TURN, "stop_sequences": ["a", "b", "c", "d", "e"]}, "stop_sequences"),
    ],
)
def test_what_openai_cannot_take_is_rejected_by_the_client_s_name(given: dict[str, Any], param: str) -> None:
    given = {"model": "m", "max_tokens": 5, **given}
    conversation = messages.read_request(messages.check(given))
    with pytest.raises(errors.UnsupportedParameter) as caught:
        chat.write_request(call("messages", given), conversation, target())
    assert caught.value.param == param


def test_a_body_is_forwarded_unchanged_except_for_model_and_usage() -> None:
    given = body(stream=True, tools=[{"type": "x"}], novel=1, stream_options={"include_obfuscation": False})
    before = json.dumps(given)
    sent = chat.forward(call("chat", given, stream=True), target(model="gpt-x"))
    assert sent == {
        **given,
        "model": "gpt-x",
        "store": False,
        "stream_options": {"include_obfuscation": False, "include_usage": True},
    }
    assert json.dumps(given) == before
    assert chat.forward(call("chat", body()), target(model="gpt-x")) == {**body(), "model": "gpt-x", "store": False}
    assert chat.forward(call("chat", body(stream_options=None), stream=True), target())["stream_options"] == {
        "include_usage": True
    }


@pytest.mark.parametrize("name", fixture_names("openai/chat_json", "*.json"))
def test_a_recorded_reply_is_read(name: str) -> None:
    reply: dict[str, Any] = json.loads(fixture(name))
    verbatim = chat.read_verbatim(reply)
    assert verbatim.body is reply
    assert verbatim.usage.input_tokens == reply["usage"]["prompt_tokens"]
    assert verbatim.usage.exact
    message = reply["choices"][0]["message"]
    answer = chat.read_answer(reply)
    assert answer.text == (message["content"] or message["refusal"] or "")
    assert answer.stop_reason == {"length": "max_tokens", "tool_calls": "tool_use"}.get(
        reply["choices"][0]["finish_reason"], "refusal" if message.get("refusal") else "end_turn"
    )
    assert answer.model == reply["model"]
    calls = [part for part in answer.parts if isinstance(part, ToolCall)]
    assert [(call.id, call.name, call.arguments) for call in calls] == [
        (given["id"], given["function"]["name"], given["function"]["arguments"])
        for given in message.get("tool_calls") or ()
    ]


def counts(prompt: int, completion: int, total: int | None = None) -> dict[str, Any]:
    given = {"prompt_tokens": prompt, "completion_tokens": completion}
    return given if total is None else {**given, "total_tokens": total}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, Usage(7, 2)),
        (None, Usage(100, 2, exact=False)),
        ([], Usage(100, 2, exact=False)),
        ("x", Usage(100, 2, exact=False)),
        ({"prompt_tokens": -1, "completion_tokens": 2}, Usage(100, 2, exact=False)),
        ({"prompt_tokens": "7", "completion_tokens": True}, Usage(7, 2, exact=False)),
        ({"prompt_tokens": 1.5, "completion_tokens": 10**30}, Usage(100, 2, exact=False)),
        ({**USAGE, "prompt_tokens_details": None}, Usage(7, 2)),
        ({**USAGE, "prompt_tokens_details": [1]}, Usage(7, 2)),
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": 5}}, Usage(7, 2, cached_tokens=5)),
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": 8}}, Usage(7, 2, cached_tokens=7, exact=False)),
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": "5"}}, Usage(7, 2, cached_tokens=5, exact=False)),
        (
            {**USAGE, "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 5}},
            Usage(7, 2, cached_tokens=5, cache_write_tokens=2, exact=False),
        ),
        ({**USAGE, "completion_tokens_details": {"reasoning_tokens": 1}}, Usage(7, 2, reasoning_tokens=1)),
        (
            {**USAGE, "completion_tokens_details": {"reasoning_tokens": 5}},
            Usage(7, 2, reasoning_tokens=2, exact=False),
        ),
        (
            {**USAGE, "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 4, "image_tokens": 3}},
            Usage(7, 2, cached_tokens=1, input_audio_tokens=4, input_image_tokens=3),
        ),
        (
            {**USAGE, "completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": 1}},
            Usage(7, 2, reasoning_tokens=1, output_audio_tokens=1),
        ),
        (
            {**USAGE, "prompt_tokens_details": {"audio_tokens": 8, "image_tokens": 1}},
            Usage(7, 2, input_audio_tokens=7, exact=False),
        ),
        ({**USAGE, "completion_tokens_details": {"image_tokens": 2}}, Usage(7, 2, output_image_tokens=2)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, Usage(100, 2, exact=False)),
        # xAI: reasoning beside the output. Gemini: only in the total.
        (
            {**counts(32, 9, 135), "completion_tokens_details": {"reasoning_tokens": 94}},
            Usage(32, 103, reasoning_tokens=94),
        ),
        (counts(5, 10, 2015), Usage(5, 2010)),
        (
            {**counts(5, 10), "completion_tokens_details": {"reasoning_tokens": 90}},
            Usage(5, 100, reasoning_tokens=90, exact=False),
        ),
        # Other shapes.
        ({"input_tokens": 7000, "output_tokens": 300}, Usage(7000, 300)),
        ({"prompt_tokens": "7000", "completion_tokens": "300"}, Usage(7000, 300, exact=False)),
        ({"total_tokens": 7000}, Usage(100, 6900, exact=False)),
        ({"prompt_tokens": 500, "total_tokens": 7000}, Usage(500, 6500)),
        ({"completion_tokens": 500, "total_tokens": 7000}, Usage(6500, 500)),
        (counts(7, 3 * 10**9), Usage(7, 2, exact=False)),
        (counts(-5, 2, 9), Usage(7, 2, exact=False)),
    ],
)
def test_missing_and_impossible_counts_are_estimated(usage: Any, expected: Usage) -> None:
    reply = reply_of(usage=usage)
    assert chat.read_answer(reply, chat_call()).usage == expected
    assert chat.read_verbatim(reply, chat_call()).usage == expected


@pytest.mark.parametrize("place", ["x_groq", "choices"])
def test_the_usage_of_a_plain_answer_is_read_wherever_a_server_puts_it(place: str) -> None:
    reply = reply_of(usage=None)
    holder = reply["choices"][0] if place == "choices" else reply.setdefault(place, {})
    holder["usage"] = counts(7000, 300)
    assert chat.read_answer(reply, chat_call()).usage == Usage(7000, 300)
    assert chat.read_verbatim(reply, chat_call()).usage == Usage(7000, 300)


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"choices": []},
        {"choices": "x"},
        {"choices": [3]},
        reply_of(choices=[{"finish_reason": "stop"}]),
        reply_of(choices=[{"finish_reason": "stop", "message": {"content": 3}}]),
    ],
)
def test_a_body_that_is_not_an_answer_is_malformed(reply: dict[str, Any]) -> None:
    with pytest.raises(errors.UpstreamBroken):
        chat.read_answer(reply)


def test_an_error_with_status_200_is_an_error() -> None:
    with pytest.raises(errors.UpstreamFailed) as failure:
        chat.read_verbatim({"error": {"message": "secret text", "type": "server_error", "code": None}})
    assert "secret" not in failure.value.message
    assert failure.value.vendor["type"] == "server_error"


def test_a_model_that_does_not_look_like_a_name_is_left_out() -> None:
    assert chat.read_answer(reply_of(model="a sentence of content")).model == ""
    assert chat.read_answer(reply_of(model=["x"])).model == ""


@pytest.mark.parametrize(
    ("given", "reported"),
    [
        (
            {"error": {"message": "m", "type": "t", "param": "p", "code": "c"}},
            chat.read_error({"message": "m", "type": "t", "param": "p", "code": "c"}),
        ),
        ({"error": "text"}, chat.read_error({"message": "text"})),
        (None, chat.read_error({})),
        ([], chat.read_error({})),
        ("text", chat.read_error({})),
    ],
)
def test_a_vendor_s_error_is_read_in_every_shape(given: Any, reported: Any) -> None:
    assert chat.read_error(given) == reported


def test_only_identifiers_of_a_vendor_s_error_are_kept() -> None:
    error = {"message": "x" * 5000, "type": "has spaces", "code": 429, "param": 3}
    reported = chat.read_error({"error": error})
    assert (reported.type, reported.code, reported.param, len(reported.message or "")) == (None, "429", None, 2000)
    assert chat.read_error({"error": {"code": "x" * 65}}).code is None


TIERS = [
    (None, ""),
    ("default", ""),
    ("auto", ""),
    ("flex", "flex"),
    ("priority", "priority"),
    ("Scale", "scale"),
    ("", ""),
    (3, "unknown"),
    (["flex"], "unknown"),
    ("a word with spaces", "unknown"),
]


@pytest.mark.parametrize(("reported", "tier"), TIERS)
def test_the_service_tier_of_an_answer_is_kept(reported: Any, tier: str) -> None:
    reply = reply_of(service_tier=reported)
    assert chat.read_answer(reply, chat_call()).usage.tier == tier
    assert chat.read_verbatim(reply, chat_call()).usage.tier == tier


@pytest.mark.parametrize("reported", ["priority", None])
def test_the_service_tier_of_a_stream_is_kept(reported: Any) -> None:
    asked = call("chat", body(stream=True), stream=True)
    chunk = {"id": "x", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    stream = b"data: " + orjson.dumps({**chunk, "service_tier": reported}) + b"\n\n"
    stream += b"data: " + orjson.dumps({**chunk, "choices": [], "usage": USAGE}) + b"\n\ndata: [DONE]\n\n"
    for reader in (chat.StreamDecoder(asked), chat.Passthrough(asked)):
        finished = read(reader, stream)[-1]
        assert isinstance(finished, Finished)
        assert finished.answer.usage == Usage(7, 2, tier=reported or "")


def plain(**message: Any) -> dict[str, Any]:
    reason = message.pop("reason", "stop")
    return {"model": "m", "choices": [{"message": message, "finish_reason": reason}], "usage": USAGE}


TOOLS = call("messages", {"model": "m", "messages": TURN, "tools": [{"name": "f"}, {"name": "g"}]})


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({"content": [{"type": "text", "text": "Hi"}]}, [Text("Hi")]),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "Hi"},
                ]
            },
            [Thinking("hm"), Text("Hi")],
        ),
        ({"content": "Hi", "reasoning": "hm", "refusal": "", "tool_calls": None}, [Thinking("hm"), Text("Hi")]),
        ({"content": "Hi", "thinking": "hm", "tool_calls": []}, [Thinking("hm"), Text("Hi")]),
        (
            {"content": "", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"city": "Rome"}}}]},
            [ToolCall("a", "f", '{"city":"Rome"}')],
        ),
        (
            {"function_call": {"name": "f", "arguments": "{}"}},
            [ToolCall("call_01hzy3v7k4e8w9d2n5q6r7s8t00", "f", "{}")],
        ),
        (
            {"tool_calls": [{"id": "a", "function": {"name": "f"}}, {"id": "a", "function": {"name": "f"}}]},
            [ToolCall("a", "f", ""), ToolCall("call_01hzy3v7k4e8w9d2n5q6r7s8t01", "f", "")],
        ),
    ],
)
def test_a_plain_answer_of_another_server_is_read(message: dict[str, Any], parts: list[Any]) -> None:
    answer = chat.read_answer(plain(**message), TOOLS)
    assert list(answer.parts) == parts
    assert answer.stop_reason == ("tool_use" if any(type(part) is ToolCall for part in parts) else "end_turn")


@pytest.mark.parametrize("reason", ["error", "network_error", "insufficient_system_resource", "reason_of_tomorrow"])
def test_a_plain_answer_that_failed_is_a_failure(reason: str) -> None:
    for reader in (chat.read_answer, chat.read_verbatim):
        with pytest.raises(errors.UpstreamError):
            reader(plain(content="x", reason=reason))
        with pytest.raises(errors.UpstreamRateLimited):
            reader({"choices": [{"message": {"content": "x"}, "finish_reason": "stop", "error": {"code": 429}}]})


@pytest.mark.parametrize("reason", [None, "", "null", "None"])
def test_a_whole_plain_answer_without_a_finish_reason_has_ended(reason: Any) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    for reader in (chat.read_answer, chat.read_verbatim):
        assert reader(plain(content="x", reason=reason), TOOLS).stop_reason == "end_turn"
        reader(plain(tool_calls=[call], reason=reason), TOOLS)
    assert chat.read_answer(plain(tool_calls=[call], reason=reason), TOOLS).stop_reason == "tool_use"


@pytest.mark.parametrize("reason", [None, "", "null", "None"])
@pytest.mark.parametrize(
    "message",
    [
        {"content": ""},
        {"content": None},
        {
            "content": "x",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"a'}}],
        },
        {"content": None, "function_call": {"name": "f", "arguments": '{"a'}},
    ],
)
def test_a_plain_answer_that_is_not_whole_needs_a_finish_reason(message: dict[str, Any], reason: Any) -> None:
    for reader in (chat.read_answer, chat.read_verbatim):
        with pytest.raises(errors.UpstreamBroken):
            reader(plain(**message, reason=reason), TOOLS)


def test_the_word_null_in_every_chunk_is_no_finish_reason_and_relayed_as_null() -> None:
    def chunk(text: str, reason: Any) -> bytes:
        choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": reason}
        return b"data: " + json.dumps({"model": "m", "choices": [choice]}).encode() + b"\n\n"

    told = chunk("a", "null") + chunk("b", "null")
    for decoder in (chat.StreamDecoder(chat_call()), chat.Passthrough(chat_call())):
        read(decoder, told + chunk("", "stop") + b"data: [DONE]\n\n")
        assert decoder.finished
    for decoder in (chat.StreamDecoder(chat_call()), chat.Passthrough(chat_call())):
        with pytest.raises(errors.UpstreamBroken):
            read(decoder, told + b"data: [DONE]\n\n")
    events = read(chat.Passthrough(chat_call()), told)
    assert b'"null"' not in b"".join(event.data for event in events if isinstance(event, Relay))
