"""Requests from public reports of other gateways, which answered each with a 400. The report is beside each case."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from tests.contract.cases import CLAUDE, GPT, HELLO
from tests.upstream import Step, Upstream

SAID: Any = {"type": "text", "text": "42"}
THOUGHT: Any = {"type": "thinking", "thinking": "hm", "signature": None}
CLOCK: Any = {"name": "clock", "input_schema": {"type": "object", "properties": {}}}
ADDED: Any = {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "clock"}}


def after(*content: Any) -> list[Any]:
    return [*HELLO, {"role": "assistant", "content": list(content)}, *HELLO]


OF_MESSAGES: list[tuple[str, dict[str, Any], str | None]] = [
    (
        "anthropics/claude-code#21612, decolua/9router#1468",
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
        None,
    ),
    ("anthropics/claude-code#31033", {"tools": [{**CLOCK, "defer_loading": True}]}, "tools[].defer_loading"),
    (
        "vllm-project/vllm#57324",
        {"messages": [*HELLO, {"role": "system", "content": [SAID, ADDED]}], "tools": [CLOCK]},
        "messages[].tool_addition",
    ),
    ("vllm-project/vllm#44000", {"messages": [*HELLO, {"role": "system", "content": "Be brief."}]}, None),
    ("experientiallabs/experiential#905", {"thinking": {"type": "enabled"}}, None),
    (
        "experientiallabs/experiential#905",
        {"tools": [CLOCK, {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}]},
        "tools[].web_search_20250305",
    ),
    (
        "router-for-me/CLIProxyAPI#512",
        {"messages": after({**THOUGHT, "cache_control": {"type": "ephemeral"}}, SAID)},
        "thinking.cache_control, messages[].thinking",
    ),
    ("tailcallhq/forgecode#2363", {"messages": after(THOUGHT, SAID)}, "messages[].thinking"),
    ("anthropics/claude-code#61822", {"messages": after({"type": "text", "text": ""}, SAID)}, None),
]


@pytest.mark.parametrize(
    ("report", "asked", "dropped"), OF_MESSAGES, ids=[f"{row[0]} {i}" for i, row in enumerate(OF_MESSAGES)]
)
def test_a_messages_client_goes_on_with_a_gpt(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, report: str, asked: dict[str, Any], dropped: str | None
) -> None:
    upstream.script(Step(text="Hi"))
    raw = anthropic_client.messages.with_raw_response.create(
        model=GPT, max_tokens=100, messages=asked.get("messages", HELLO), extra_body=asked
    )
    assert raw.parse().content[0].to_dict() == {"type": "text", "text": "Hi"}
    assert raw.headers.get("x-dropped-parameters") == dropped


@pytest.mark.parametrize("content", [[THOUGHT, SAID], [{**THOUGHT, "signature": ""}], [SAID, {**THOUGHT}], []], ids=str)
def test_claude_is_not_sent_what_it_did_not_sign(
    anthropic_client: anthropic.Anthropic, upstream: Upstream, content: list[Any]
) -> None:
    """tailcallhq/forgecode#2107 and #2363, Mintplex-Labs/anything-llm#4987."""
    upstream.script(Step(text="Hi"))
    anthropic_client.messages.create(model=CLAUDE, max_tokens=100, messages=after(*content))
    said = [turn["content"] for turn in upstream.last.body["messages"] if turn["role"] == "assistant"]
    assert said == ([[SAID]] if SAID in content else [])


OF_CHAT: list[tuple[str, dict[str, Any]]] = [
    ("home-assistant/core#165408", {"content": "42", "reasoning_details": [{"type": "reasoning.text"}]}),
    ("BerriAI/litellm#13609", {"content": "42", "reasoning": "hm", "name": "m"}),
    ("Mintplex-Labs/anything-llm#4987", {"content": [{**THOUGHT, "content": "hm"}, SAID]}),
    ("suitenumerique/conversations#402", {"content": "42", "reasoning_content": "hm", "provider_specific_fields": {}}),
    ("earendil-works/pi#7586", {"content": None, "reasoning_content": "hm"}),
]


@pytest.mark.parametrize("model", [CLAUDE, GPT])
@pytest.mark.parametrize(("report", "answer"), OF_CHAT, ids=[report for report, _ in OF_CHAT])
def test_a_chat_client_goes_on_with_every_model(
    openai_client: openai.OpenAI, upstream: Upstream, report: str, answer: dict[str, Any], model: str
) -> None:
    upstream.script(Step(text="Hi"))
    turns: Any = [*HELLO, {"role": "assistant", **answer}, *HELLO]
    raw = openai_client.chat.completions.with_raw_response.create(model=model, messages=turns)
    assert raw.parse().choices[0].message.content == "Hi"
    assert raw.headers["x-dropped-parameters"]


@pytest.mark.parametrize("where", ["part", "message", "tool"])
@pytest.mark.parametrize("model", [CLAUDE, GPT])
def test_a_hint_to_cache_reaches_claude_and_is_dropped_for_openai(
    openai_client: openai.OpenAI, upstream: Upstream, where: str, model: str
) -> None:
    """BerriAI/litellm#28431, nadeko-bot/nadekobot#34."""
    hint = {"cache_control": {"type": "ephemeral"}}
    message: Any = {"role": "user", "content": [{"type": "text", "text": "Hi", **(hint if where == "part" else {})}]}
    tool: Any = {"type": "function", "function": {"name": "clock"}, **(hint if where == "tool" else {})}
    message |= hint if where == "message" else {}
    upstream.script(Step(text="Hi"))
    raw = openai_client.chat.completions.with_raw_response.create(model=model, messages=[message], tools=[tool])
    assert ("cache_control" in str(upstream.last.body)) == (model == CLAUDE)
    assert ("cache_control" in raw.headers.get("x-dropped-parameters", "")) == (model == GPT)
