"""The official client's Responses with models that are not OpenAI's: custom tools, namespaces, tools of OpenAI's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.conftest import MakeService
from tests.contract.cases import CLAUDE, PIXEL
from tests.contract.test_responses_other_targets import COMPATIBLE
from tests.upstream import Step, Upstream

LOCAL = "local/llama"
PATCH = {"type": "custom", "name": "apply_patch", "description": "Applies it."}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin"'}
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}
AGENTS = {"type": "namespace", "name": "agents", "description": "Helpers.", "tools": [LOOK, PATCH]}
SEARCH = {"type": "web_search"}
TEXT = '*** Begin\n"quoted" \\ Zürich 🦓\u2028\tend'
Client = Callable[[str], openai.OpenAI]

both = pytest.mark.parametrize("stream", [False, True])
models = pytest.mark.parametrize("model", [CLAUDE, LOCAL])


@pytest.fixture
def client(shared_service: MakeService, upstream: Upstream) -> openai.OpenAI:
    return shared_service(models=COMPATIBLE.format(url=upstream.compatible_url)).openai()


def respond(client: openai.OpenAI, stream: bool, **asked: Any) -> Any:
    if not stream:
        return client.responses.create(**asked)
    with client.responses.stream(**asked) as events:
        return events.get_final_response()


def offered(upstream: Upstream) -> list[dict[str, Any]]:
    """Name, description and schema of the tools that the vendor was sent."""
    tools: list[dict[str, Any]] = [tool.get("function", tool) for tool in upstream.last.body["tools"]]
    return [{**tool, "schema": tool.get("input_schema", tool.get("parameters"))} for tool in tools]


@both
@models
@pytest.mark.parametrize("given", [{}, {"format": GRAMMAR}, {"format": {"type": "text"}}])
def test_a_loop_of_a_custom_tool_works(
    client: openai.OpenAI, upstream: Upstream, model: str, stream: bool, given: dict[str, Any]
) -> None:
    upstream.script(
        Step(text="Let me", tools=[{"name": "apply_patch", "input": {"input": TEXT}}]), Step(text="All done")
    )
    items: list[Any] = [{"role": "user", "content": "Go"}]
    asked: dict[str, Any] = {"model": model, "tools": [{**PATCH, **given}, SEARCH]}
    first = respond(client, stream, input=items, **asked)
    [tool] = offered(upstream)
    assert tool["name"] == "apply_patch"
    assert tool["schema"]["required"] == ["input"]
    assert ('start: "*** Begin"' in tool["description"]) is (given.get("format") == GRAMMAR)
    message, call = first.output
    assert (message.content[0].text, call.type, call.name, call.input) == (
        "Let me",
        "custom_tool_call",
        "apply_patch",
        TEXT,
    )

    items += [item.to_dict() for item in first.output]
    shown = [{"type": "input_text", "text": "ok"}]
    items.append({"type": "custom_tool_call_output", "call_id": call.call_id, "output": shown})
    assert respond(client, stream, input=items, **asked).output_text == "All done"
    sent = json.dumps(upstream.last.body["messages"][1:], ensure_ascii=False)
    assert "apply_patch" in sent and "quoted" in sent and '"ok"' in sent


@both
@models
def test_a_loop_of_tools_in_namespaces_works(
    client: openai.OpenAI, upstream: Upstream, model: str, stream: bool
) -> None:
    calls: list[dict[str, Any]] = [
        {"name": "agents__look", "input": {"q": 1}},
        {"name": "look", "input": {}},
        {"name": "agents__apply_patch", "input": {"input": "x"}},
    ]
    upstream.script(Step(tools=calls), Step(text="All done"))
    items: list[Any] = [{"role": "user", "content": "Go"}]
    asked: dict[str, Any] = {"model": model, "tools": [AGENTS, LOOK, SEARCH]}
    first = respond(client, stream, input=items, **asked)
    assert [tool["name"] for tool in offered(upstream)] == ["agents__look", "agents__apply_patch", "look"]
    assert [(item.type, item.name, item.namespace) for item in first.output] == [
        ("function_call", "look", "agents"),
        ("function_call", "look", None),
        ("custom_tool_call", "apply_patch", "agents"),
    ]
    items += [item.to_dict() for item in first.output]
    items += [{"type": item.type + "_output", "call_id": item.call_id, "output": "ok"} for item in first.output]
    assert respond(client, stream, input=items, **asked).output_text == "All done"
    sent = json.dumps(upstream.last.body["messages"])
    assert all(call["name"] in sent for call in calls)
    assert "namespace" not in sent


@models
def test_a_forced_tool_in_a_namespace_is_forced_by_its_joined_name(
    client: openai.OpenAI, upstream: Upstream, model: str
) -> None:
    upstream.script(Step(tools=[{"name": "agents__apply_patch", "input": {"input": "x"}}]))
    choice: Any = {"type": "custom", "name": "apply_patch"}
    tools: Any = [AGENTS, LOOK]
    first = client.responses.create(model=model, input="Go", tools=tools, tool_choice=choice)
    assert first.output[0].type == "custom_tool_call"
    assert "agents__apply_patch" in json.dumps(upstream.last.body["tool_choice"])


@models
def test_the_history_of_openai_s_own_tools_is_accepted_by_every_model(
    client: openai.OpenAI, upstream: Upstream, model: str
) -> None:
    upstream.script(Step(text="All done"))
    image = {"type": "computer_screenshot", "image_url": f"data:image/png;base64,{PIXEL}"}
    items: list[Any] = [
        {"role": "user", "content": "Go"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"type": "shell_call", "id": "sh_1", "call_id": "c1", "status": "completed", "action": {"commands": ["ls"]}},
        {"type": "computer_call", "id": "cu_1", "call_id": "c2", "actions": [{"type": "screenshot"}]},
        {"type": "shell_call_output", "call_id": "c1", "output": [{"stdout": "a.txt", "stderr": ""}]},
        {"type": "computer_call_output", "call_id": "c2", "output": image},
    ]
    raw = client.responses.with_raw_response.create(model=model, input=items, tools=[{"type": "shell"}, LOOK])  # type: ignore[list-item]
    assert raw.parse().output_text == "All done"
    named = (raw.headers["x-dropped-parameters"]).split(", ")
    assert {"input[].web_search_call", "tools[].shell"} <= set(named)
    sent = json.dumps(upstream.last.body["messages"])
    assert "a.txt" in sent and PIXEL in sent
