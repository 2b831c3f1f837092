"""What Codex sends first, as captured, reaches models that are not OpenAI's, and its tools' calls come back as its own.

``tests/fixtures/agents/codex`` says how the requests were captured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.api.budget_helpers import key_with_budget, wait_for_counters
from tests.conftest import MakeService
from tests.contract.cases import CLAUDE, frames
from tests.contract.test_responses_other_targets import COMPATIBLE
from tests.support.server import Server
from tests.upstream import Step, Upstream

CODEX = Path(__file__).parents[1] / "fixtures" / "agents" / "codex"
LOCAL = "local/llama"
PATCH = "*** Begin Patch\n*** Add File: a.txt\n+a\n*** End Patch"
# The tools that must be among those offered, what the model answers with, and the item that Codex gets for it.
CASES: dict[str, tuple[set[str], dict[str, Any], dict[str, Any]]] = {
    "unknown_model": (
        {"exec_command", "view_image", "multi_agent_v1__spawn_agent"},
        {"name": "multi_agent_v1__close_agent", "input": {"target": "a"}},
        {"type": "function_call", "name": "close_agent", "namespace": "multi_agent_v1", "arguments": '{"target": "a"}'},
    ),
    "gpt-5.5": (
        {"exec_command", "apply_patch"},
        {"name": "apply_patch", "input": {"input": PATCH}},
        {"type": "custom_tool_call", "name": "apply_patch", "input": PATCH},
    ),
    "gpt-6.2-sol": (
        {"functions__exec", "functions__wait", "collaboration__spawn_agent"},
        {"name": "functions__exec", "input": {"input": "text('hi')"}},
        {"type": "custom_tool_call", "name": "exec", "namespace": "functions", "input": "text('hi')"},
    ),
}
HINTS = {"client_metadata", "prompt_cache_key"}


@pytest.fixture
def service(shared_service: MakeService, upstream: Upstream) -> Server:
    catalogue = COMPATIBLE.format(url=upstream.compatible_url)
    catalogue = catalogue.replace('"ANTHROPIC_BASE_URL"', '"ANTHROPIC_BASE_URL"\nprices = "anthropic"')
    catalogue = catalogue.replace('[models."anthropic/*"]', '[models."anthropic/*"]\nmax_output = 8000')
    return shared_service(models=catalogue)


def events(service: Server, body: dict[str, Any]) -> list[dict[str, Any]]:
    return [frame.json for frame in frames(service, "/v1/responses", body) if frame.data]


@pytest.mark.parametrize("model", [CLAUDE, LOCAL])
@pytest.mark.parametrize("name", CASES)
def test_codex_s_tools_are_offered_and_their_calls_come_back_as_its_own(
    service: Server, upstream: Upstream, name: str, model: str
) -> None:
    offered, called, item = CASES[name]
    body: dict[str, Any] = json.loads((CODEX / f"{name}.json").read_text()) | {"model": model}
    upstream.script(Step(text="Let me", tools=[called]), Step(text="All done"))
    first = events(service, body)
    assert first[-1]["type"] == "response.completed", first[-1]
    output = first[-1]["response"]["output"]
    assert item.items() <= output[-1].items()
    tools = {tool.get("function", tool)["name"] for tool in upstream.last.body["tools"]}
    assert offered <= tools

    result = {"type": item["type"] + "_output", "call_id": output[-1]["call_id"], "output": "ok"}
    body["input"] = [*body["input"], *output, result]
    second = events(service, body)
    assert second[-1]["response"]["output"][0]["content"][0]["text"] == "All done"
    assert called["name"] in json.dumps(upstream.last.body["messages"])


@pytest.mark.parametrize("model", [CLAUDE, LOCAL])
@pytest.mark.parametrize("name", CASES)
def test_what_codex_tells_openai_only_is_dropped_and_named(
    service: Server, upstream: Upstream, name: str, model: str
) -> None:
    body = json.loads((CODEX / f"{name}.json").read_text()) | {"model": model, "stream": False}
    reply = service.http().post("/v1/responses", json=body)
    assert reply.status_code == 200, reply.text
    named = set(reply.headers["x-dropped-parameters"].split(", "))
    assert named >= HINTS
    assert not named & {"input", "tools", "instructions", "tool_choice", "input[].additional_tools"}
    web_search = any(tool["type"] == "web_search" for tool in body.get("tools", ()))
    assert ("tools[].web_search" in named) is web_search


def test_a_key_with_a_budget_may_use_codex_with_claude(service: Server, upstream: Upstream) -> None:
    wait_for_counters(service)
    key = key_with_budget(service, 5_000_000_000).text
    for name in CASES:
        body = json.loads((CODEX / f"{name}.json").read_text()) | {"model": CLAUDE, "stream": False}
        assert service.http(key).post("/v1/responses", json=body).status_code == 200
