"""Whatever tools a client may send: the request is rejected by its path, or the vendor takes it.

The scripted vendors check the requests as the real ones do, and the calls of an answer come back under the caller's
names.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core.content import ToolCall
from llm_service.core.errors import InvalidRequest, UnsupportedParameter
from llm_service.core.events import Answer
from llm_service.core.usage import Usage
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats import openai_responses as responses
from llm_service.formats import tool_names
from tests.formats.examples import call, target
from tests.formats.test_tool_schemas import MEMBERS, nested
from tests.upstream import anthropic_rules, openai_rules
from tests.upstream import responses as responses_rules
from tests.upstream.rejection import Account

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
NAMES = TEXTS | st.sampled_from(["look", "files.read", "mcp__" + "server_" * 20 + "read", "1st", "-x"])
IDS = TEXTS | st.sampled_from(["call_1", "functions.look:0", "x" * 90])
# Most random schemas have a reference to nothing and are rejected, so there are some others too.
SCHEMAS = st.recursive(MEMBERS, nested, max_leaves=5) | st.sampled_from(
    [
        {},
        {"type": "object"},
        {
            "type": "object",
            "properties": {"a": {"type": "list"}, "b": {"$ref": "#/definitions/b"}},
            "definitions": {"b": {}},
        },
        {"oneOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {"type": "array"}}}]},
        {"$ref": "#/$defs/root", "$defs": {"root": {"type": "object", "properties": {"a": {"$ref": "#/$defs/root"}}}}},
    ]
)
CONTENT = st.sampled_from(["x", "", " \n"])


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Tools, turns of calls with the content of their results, and a choice, in no format."""
    tools = draw(st.dictionaries(NAMES, SCHEMAS, max_size=3))
    called = st.tuples(IDS, st.sampled_from([*tools, "an.older one"]), CONTENT)
    return {
        "tools": tools,
        "turns": draw(st.lists(st.tuples(CONTENT, st.lists(called, min_size=1, max_size=3)), max_size=3)),
        "choice": draw(st.sampled_from([None, "required", *tools])) if tools else None,
        "max_tokens": draw(st.sampled_from([16, 10**6])),
    }


def for_chat(asked: dict[str, Any]) -> dict[str, Any]:
    turns: list[Any] = [{"role": "user", "content": "Hi"}]
    for text, calls in asked["turns"]:
        written = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}} for id, name, _ in calls
        ]
        turns.append({"role": "assistant", "content": text, "tool_calls": written})
        turns += [{"role": "tool", "tool_call_id": id, "content": result} for id, _, result in calls]
    choice = asked["choice"]
    if choice not in (None, "required"):
        choice = {"type": "function", "function": {"name": choice}}
    tools = [{"type": "function", "function": {"name": n, "parameters": s}} for n, s in asked["tools"].items()]
    return {"model": "m", "messages": turns, "tools": tools, "tool_choice": choice, "max_tokens": asked["max_tokens"]}


def for_messages(asked: dict[str, Any]) -> dict[str, Any]:
    turns: list[Any] = [{"role": "user", "content": "Hi"}]
    for text, calls in asked["turns"]:
        said = [{"type": "text", "text": text}]
        turns += [
            {
                "role": "assistant",
                "content": said + [{"type": "tool_use", "id": i, "name": n, "input": {}} for i, n, _ in calls],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": i, "content": c} for i, _, c in calls]},
        ]
    choice = asked["choice"] and (
        {"type": "any"} if asked["choice"] == "required" else {"type": "tool", "name": asked["choice"]}
    )
    tools = [{"name": name, "input_schema": schema} for name, schema in asked["tools"].items()]
    return {"model": "m", "messages": turns, "tools": tools, "tool_choice": choice, "max_tokens": asked["max_tokens"]}


def for_responses(asked: dict[str, Any]) -> dict[str, Any]:
    items: list[Any] = [{"role": "user", "content": "Hi"}]
    for text, calls in asked["turns"]:
        items.append({"role": "assistant", "content": text})
        items += [
            {"type": "function_call", "call_id": id or "a", "name": name, "arguments": "{}"} for id, name, _ in calls
        ]
        items += [{"type": "function_call_output", "call_id": id or "a", "output": result} for id, _, result in calls]
    choice = asked["choice"]
    if choice not in (None, "required"):
        choice = {"type": "function", "name": choice}
    tools = [{"type": "function", "name": name, "parameters": schema} for name, schema in asked["tools"].items()]
    return {
        "model": "m",
        "input": items,
        "tools": tools,
        "tool_choice": choice,
        "max_output_tokens": asked["max_tokens"],
    }


def check_claude(body: dict[str, Any]) -> None:
    request: Any = SimpleNamespace(headers={"anthropic-version": "2026-10-21"})
    anthropic_rules.check_body(request, body, Account())


CLAUDE = target("anthropic", "claude-haiku-4-5", max_output=64_000, thinking="budget")
GPT4 = target("openai", "gpt-4o", max_output=16_384)
GPT5 = target("openai", "gpt-5", max_output=128_000, sampling=False, thinking="effort")
PAIRS: list[Any] = [
    (chat, for_chat, messages, CLAUDE, check_claude),
    (chat, for_chat, responses, GPT5, lambda body: responses_rules.check(body, Account())),
    (messages, for_messages, chat, GPT4, lambda body: openai_rules.check_chat(body, Account())),
    (messages, for_messages, responses, GPT5, lambda body: responses_rules.check(body, Account())),
    (responses, for_responses, messages, CLAUDE, check_claude),
    (responses, for_responses, chat, GPT4, lambda body: openai_rules.check_chat(body, Account())),
]


@pytest.mark.parametrize(
    ("client", "write", "vendor", "to", "check"), PAIRS, ids=[f"{p[0].NAME} to {p[2].NAME}" for p in PAIRS]
)
@settings(deadline=None)  # the machine may be busy
@given(asked=requests())
def test_a_vendor_takes_every_request_that_is_not_rejected_by_its_path(
    client: Any, write: Any, vendor: Any, to: Any, check: Any, asked: dict[str, Any]
) -> None:
    given_body = {name: value for name, value in write(asked).items() if value is not None}
    before = json.dumps(given_body)
    try:
        conversation = client.read_request(client.check(given_body))
        fitted, names = tool_names.fit(conversation, to)
        body, _ = vendor.write_request(call(client.NAME, given_body), fitted, to)
    except (InvalidRequest, UnsupportedParameter) as error:
        body, rejected = None, error.param
    assert json.dumps(given_body) == before
    if body is None:
        assert rejected is not None and rejected.startswith(("tools", "messages", "input", "tool_choice"))
        return
    sent = orjson.loads(orjson.dumps(body))
    check(sent)
    offered = [tool.get("function", tool)["name"] for tool in sent.get("tools", [])][: len(asked["tools"])]
    answer = Answer(Usage(), parts=tuple(ToolCall("a", name, "{}") for name in offered))
    back = tool_names.restored_answer(answer, names)
    assert [part.name for part in back.parts] == list(asked["tools"])  # type: ignore[union-attr]
