"""Every answer of this service is accepted back, by every model.

A client appends an answer to its conversation and goes on, perhaps with another model. The answer is of any kind, from
any vendor, plain or streamed. The official SDKs read it, as a client does; the scripted vendors' own rules judge the
next request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core.content import Part, RedactedThinking, Refusal, Text, Thinking, ToolCall
from llm_service.core.events import (
    Answer,
    Delta,
    Event,
    Finished,
    RefusalDelta,
    Started,
    ThinkingDelta,
    ThinkingEnd,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from llm_service.core.target import Target
from llm_service.core.usage import Usage
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats import openai_responses as responses
from llm_service.formats import registry
from tests.formats.examples import anthropic_client, call, openai_client, target, written
from tests.upstream import anthropic_rules, openai_rules
from tests.upstream import responses as responses_rules
from tests.upstream.http1 import Request
from tests.upstream.rejection import Account

# ---- the answers

CALLS: Final = [ToolCall("call_1", "clock", '{"zone":"UTC"}'), ToolCall("call_2", "clock", "")]
CUSTOM: Final = ToolCall("call_3", "patch", '{"input":"*** Begin"}')
CUT: Final = ToolCall("call_4", "clock", '{"zone":"Eu')
SAID: Final[list[list[Part]]] = [
    [],
    [Text("42")],
    [Text(" \n")],
    [Refusal("I can't help")],
    [Text("Well, "), Refusal("no")],
]


def thoughts(vendor: str) -> list[list[Part]]:
    signed = Thinking("hm", "c2lnbmF0dXJl" if vendor == "messages" else f"rs_1:{responses_rules.ENCRYPTED}", vendor)
    return [[], [Thinking("hm")], [signed], [RedactedThinking(signed.signature, vendor)], [Thinking("hm"), signed]]


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """An answer from any vendor; ``chat`` servers sign nothing."""
    vendor = draw(st.sampled_from(["chat", "responses", "messages"]))
    parts = draw(st.sampled_from(thoughts(vendor)[: 2 if vendor == "chat" else None])) + draw(st.sampled_from(SAID))
    calls = draw(st.sampled_from([[], CALLS[:1], CALLS, [CUSTOM], [*CALLS, CUSTOM]]))
    cut = draw(st.booleans())
    if cut and draw(st.booleans()):
        calls = [*calls, CUT]
    refused = any(type(part) is Refusal for part in parts)
    reason: Any = "max_tokens" if cut else "refusal" if refused else "tool_use" if calls else "end_turn"
    return Answer(Usage(9, 9), stop_reason=reason, parts=(*parts, *calls), model="m")


def events_of(answer: Answer) -> list[Event]:
    """The answer as a stream: most of it is in the events before the last one."""
    events: list[Event] = [Started("m")]
    index = 0
    for part in answer.parts:
        match part:
            case Text(text):
                events.append(Delta(text))
            case Refusal(text):
                events.append(RefusalDelta(text))
            case Thinking(text, signature, vendor):
                events += [ThinkingDelta(text), ThinkingEnd(signature, vendor)]
            case RedactedThinking():
                events.append(part)
            case ToolCall(id, name, arguments):
                events += [ToolCallStart(index, id, name), ToolCallDelta(index, arguments), ToolCallEnd(index)]
                index += 1
    return [*events, Finished(Answer(answer.usage, answer.stop_reason, model="m"))]


# ---- the clients

SCHEMA: Final = {"type": "object", "properties": {"zone": {"type": "string"}}}
TOOLS: Final[dict[str, list[dict[str, Any]]]] = {
    "chat": [
        {"type": "function", "function": {"name": "clock", "parameters": SCHEMA}},
        {"type": "custom", "custom": {"name": "patch"}},
    ],
    "messages": [{"name": name, "input_schema": SCHEMA} for name in ("clock", "patch")],
    "responses": [
        {"type": "function", "name": "clock", "parameters": SCHEMA, "strict": False},
        {"type": "custom", "name": "patch"},
    ],
}
USER: Final = {"role": "user", "content": "Hello"}


def chat_turns(stream: bool, wire: bytes) -> list[dict[str, Any]]:
    if stream:
        message = chat_message(wire)
    else:
        completion = openai_client(wire).chat.completions.create(model="m", messages=[])
        message = completion.choices[0].message.to_dict()
    made: Any = message.get("tool_calls") or ()
    results = [{"role": "tool", "tool_call_id": one["id"], "content": "noon"} for one in made]
    return [message, *results]


def chat_message(wire: bytes) -> dict[str, Any]:
    """The message of a stream. The SDK's own accumulator does not know custom tools."""
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    calls: dict[int, dict[str, Any]] = {}
    thinking: dict[int, dict[str, Any]] = {}
    for chunk in openai_client(wire).chat.completions.create(model="m", messages=[], stream=True):
        delta: Any = chunk.choices[0].to_dict()["delta"] if chunk.choices else {}
        for name in ("content", "refusal"):
            if delta.get(name):
                message[name] = (message.get(name) or "") + delta[name]
        for field, pieces in (("tool_calls", calls), ("claude_thinking", thinking)):
            for piece in delta.get(field, ()):
                merge(pieces.setdefault(piece["index"], {}), piece)
    if calls:
        message["tool_calls"] = [*calls.values()]
    if thinking:
        message["claude_thinking"] = [*thinking.values()]
    return message


def merge(held: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        if isinstance(value, dict):
            merge(held.setdefault(name, {}), value)
        elif isinstance(value, str) and name != "type":
            held[name] = held.get(name, "") + value
        else:
            held[name] = value


def messages_turns(stream: bool, wire: bytes) -> list[dict[str, Any]]:
    client = anthropic_client(wire)
    asked: Any = {"model": "m", "max_tokens": 9, "messages": []}
    if stream:
        with client.messages.stream(**asked) as helper:
            message = helper.get_final_message()
    else:
        message = client.messages.create(**asked)
    content = [block.to_dict() for block in message.content]
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": "noon"}
        for block in content
        if block["type"] == "tool_use"
    ]
    return [{"role": "assistant", "content": content}, *([{"role": "user", "content": results}] if results else [])]


def responses_turns(stream: bool, wire: bytes) -> list[dict[str, Any]]:
    client: Any = openai_client(wire)
    if stream:
        ends = ("response.completed", "response.incomplete")
        events = client.responses.create(model="m", input="x", stream=True)
        [response] = [event.response for event in events if event.type in ends]
    else:
        response = client.responses.create(model="m", input="x")
    items = [item.to_dict() for item in response.output]
    results = [
        {"type": f"{item['type']}_output", "call_id": item["call_id"], "output": "noon"}
        for item in items
        if item["type"].endswith("_call")
    ]
    return [*items, *results]


@dataclass(frozen=True)
class Client:
    format: Any
    body: dict[str, Any]
    turns: Callable[[bool, bytes], list[dict[str, Any]]]
    field: str = "messages"

    def goes_on(self, answer: Answer, stream: bool) -> dict[str, Any]:
        """The client's next request: the answer as it got it, the results of its calls, and a question."""
        asked = call(self.format.NAME, self.body, stream=stream)
        if stream:
            wire = written(self.format.StreamEncoder(asked), events_of(answer))
        else:
            wire = orjson.dumps(self.format.write_answer(asked, answer))
        return {**self.body, self.field: [USER, *self.turns(stream, wire), USER]}


CLIENTS: Final = {
    "chat": Client(chat, {"model": "m", "messages": [USER], "tools": TOOLS["chat"]}, chat_turns),
    "messages": Client(
        messages, {"model": "m", "max_tokens": 9, "messages": [USER], "tools": TOOLS["messages"]}, messages_turns
    ),
    "responses": Client(
        responses, {"model": "m", "input": [USER], "tools": TOOLS["responses"]}, responses_turns, "input"
    ),
}

# ---- the models

_REQUEST: Final = Request("POST", "/v1/messages", "", {"anthropic-version": "2026-10-21"})
COMPATIBLE: Final = {"own_address": True, "max_tokens_field": "max_tokens", "responses": False}


def check_messages(body: dict[str, Any]) -> None:
    anthropic_rules.check_body(_REQUEST, body, Account())


TARGETS: Final[dict[str, tuple[Any, Target, Callable[[dict[str, Any]], None]]]] = {
    "gpt-4o": (chat, target(model="gpt-4o"), lambda body: openai_rules.check_chat(body, Account())),
    "compatible": (
        chat,
        target(model="qwen", provider=COMPATIBLE),
        lambda body: openai_rules.check_chat(body, Account(models={"qwen"})),
    ),
    "thinking": (
        chat,
        target(model="deepseek", provider={**COMPATIBLE, "thoughts": "reasoning_content"}),
        lambda body: openai_rules.check_chat(without_thoughts(body), Account(models={"deepseek"})),
    ),
    "gpt-5": (
        responses,
        target(model="gpt-5", sampling=False, thinking="effort"),
        lambda body: responses_rules.check(body, Account()),
    ),
    "claude": (messages, target("anthropic", "claude-opus-4-7", thinking="adaptive", max_output=999), check_messages),
    "haiku": (messages, target("anthropic", "claude-haiku-4-5", thinking="budget", max_output=999), check_messages),
}


def without_thoughts(body: dict[str, Any]) -> dict[str, Any]:
    """The body without the field that this server wants. It must be beside all tool calls of a crossing turn."""
    for turn in body["messages"]:
        if turn.get("tool_calls"):
            assert isinstance(turn.pop("reasoning_content"), str)
    return body


def next_request(client: Client, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What the model of ``TARGETS[name]`` is sent."""
    upstream, model, _ = TARGETS[name]
    checked = client.format.check(orjson.loads(orjson.dumps(asked)))
    sent = call(client.format.NAME, checked)
    if registry.speaks(sent, upstream):
        body = upstream.forward(sent, model)
    else:
        body, _ = upstream.write_request(sent, client.format.read_request(checked), model)
    return dict(orjson.loads(orjson.dumps(body)))


def fits_verbatim(answer: Answer, client: str, name: str) -> bool:
    """Whether a body that travels as it is can hold the answer: OpenAI's own answers may be cut in a call's arguments,
    and the fields of another server are its own affair."""
    if TARGETS[name][0] is not CLIENTS[client].format:
        return True
    return CUT not in answer.parts and name != "thinking"


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("client", CLIENTS)
@settings(deadline=None, max_examples=60)  # the machine may be busy
@given(answer=answers(), stream=st.booleans())
def test_every_answer_is_accepted_back_by_every_model(client: str, name: str, answer: Answer, stream: bool) -> None:
    asked = CLIENTS[client].goes_on(answer, stream)
    if (client, name) == ("messages", "haiku"):  # the other models take no budget
        asked |= {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000}
    body = next_request(CLIENTS[client], name, asked)
    if fits_verbatim(answer, client, name):
        TARGETS[name][2](body)


# ---- answers that travel verbatim: other servers' messages, and Claude's with what its servers did

FUNCTION: Final = {"name": "clock", "arguments": '{"zone":"UTC"}'}
CALL: Final = {"id": "call_1", "type": "function", "function": FUNCTION, "index": 0}
CHAT_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "thoughts": {"content": "42", "reasoning_content": "hm", "reasoning": "hm", "reasoning_details": [{"text": "hm"}]},
    "thoughts alone": {"content": None, "reasoning_content": "hm"},
    "nothing": {"content": "", "tool_calls": [], "refusal": None, "function_call": None, "audio": None},
    "parts": {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "42"}]},
    "gemini": {"content": None, "tool_calls": [{**CALL, "extra_content": {"google": {"thought_signature": "x"}}}]},
    "litellm": {
        "content": "42", "thinking_blocks": [], "images": [], "annotations": [],
        "provider_specific_fields": {"refusal": None, "citations": None},
    },
    "spoken": {"content": None, "audio": {"id": "a", "data": "AAAA", "expires_at": 1, "transcript": "Hello"}},
}  # fmt: skip
_SIGNED: Final = {"type": "thinking", "thinking": "", "signature": "c2lnbmF0dXJl"}
_SEARCH: Final = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
_FOUND: Final = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
_CITED: Final = {
    "type": "text",
    "text": "42",
    "citations": [{"type": "web_search_result_location", "url": "https://a"}],
}
MESSAGES_ANSWERS: Final[dict[str, list[dict[str, Any]]]] = {
    "empty": [],
    "thinking alone": [_SIGNED],
    "thinking": [_SIGNED, {"type": "text", "text": "42", "citations": None}],
    "unsigned": [{**_SIGNED, "signature": ""}, {"type": "text", "text": "42"}],
    "searched": [_SEARCH, _FOUND, _CITED],
    "searched alone": [_SEARCH, _FOUND],
    "called": [_SIGNED, {"type": "tool_use", "id": "t", "name": "clock", "input": {}, "caller": {"type": "direct"}}],
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind", CHAT_ANSWERS)
def test_an_answer_of_another_chat_server_is_accepted_back_by_every_model(kind: str, name: str) -> None:
    answer = CHAT_ANSWERS[kind]
    results = [{"role": "tool", "tool_call_id": made["id"], "content": "noon"} for made in answer.get("tool_calls", ())]
    client = CLIENTS["chat"]
    asked = {**client.body, "messages": [USER, {"role": "assistant", **answer}, *results, USER]}
    body = next_request(client, name, asked)
    if name not in ("compatible", "thinking"):  # the answers of such servers are their own affair
        TARGETS[name][2](body)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind", MESSAGES_ANSWERS)
def test_an_answer_of_claude_is_accepted_back_by_every_model(kind: str, name: str) -> None:
    content = MESSAGES_ANSWERS[kind]
    made = [block["id"] for block in content if block["type"] == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": id, "content": "noon"} for id in made]
    client = CLIENTS["messages"]
    said = {"role": "user", "content": [*results, {"type": "text", "text": "And?"}]}
    asked = {**client.body, "messages": [USER, {"role": "assistant", "content": content}, said]}
    TARGETS[name][2](next_request(client, name, asked))
