"""Coding agents as people run them, with models behind the service that their vendors never tested them with.

Their packages come from the npm registry at the first run, as those of ``tests/contract/test_node_sdks.py`` do. aider,
which is a Python package, and all other pairs of agents and models run in ``make test-clients``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.clients.agents import AGENTS, NOTE, NOTED, TIMEOUT, Task
from tests.clients.targets import CLAUDE, COMPAT, EVERYTHING, GPT, REASONING, TARGETS
from tests.support.packages import NODE_REQUIRED, node_packages
from tests.support.recorder import Recorder
from tests.support.server import ROOT, Server
from tests.upstream import Step, Upstream

TEXT = "Good morning to you"
INSTALL_TIMEOUT = 300.0
# Those that cross, with as few runs as show it.
FEW = [
    *(("claude-code", model) for model in (REASONING, COMPAT)),
    *(("codex", model) for model in (CLAUDE, COMPAT)),
    ("opencode-chat", CLAUDE),
]
# Pairs that do not work with the vendor itself either: it rejects encrypted thoughts of a model without any, and aider
# finds only Claude's models by the prefix anthropic/.
OWN_FAULTS = {("codex", GPT), ("opencode-responses", GPT)} | {
    ("aider-messages", model) for model in TARGETS if model != CLAUDE
}
ALL = [(agent, model) for agent in AGENTS for model in TARGETS if (agent, model) not in OWN_FAULTS]
PAIRS = ALL if EVERYTHING else FEW
# Codex gives the models that it knows one tool that runs JavaScript, which the scripted vendor does not call.
WRITING = [pair for pair in PAIRS if pair != ("codex", REASONING)]
NAMES = list(AGENTS) if EVERYTHING else ["claude-code", "codex", "opencode-chat"]
# The first test waits for npm, and in `make test-clients` for pip.
pytestmark = pytest.mark.timeout(TIMEOUT + (900 if EVERYTHING else INSTALL_TIMEOUT))


def skip_without_packages() -> None:
    _, problem = node_packages(ROOT / "tests/clients/agents", INSTALL_TIMEOUT)
    if problem:
        pytest.skip(problem)


def test_the_agents_can_be_installed() -> None:
    _, problem = node_packages(ROOT / "tests/clients/agents", INSTALL_TIMEOUT)
    if problem and NODE_REQUIRED:
        pytest.fail(problem, pytrace=False)
    skip_without_packages()


class Run:
    """One run of an agent: its output, and the requests that it sent to the service."""

    def __init__(
        self, agent: str, service: Server, home: Path, model: str, prompt: str, key: str | None = None
    ) -> None:
        skip_without_packages()
        with Recorder(service.url) as recorder:
            task = Task(home, recorder.url, key or service.key, model, prompt)
            done = AGENTS[agent].run(task)
            self.requests = [request for request in recorder.requests if request.method == "POST"]
        self.code = done.returncode
        self.output = done.stdout + done.stderr
        self.folder = task.folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.mark.parametrize(("agent", "model"), PAIRS)
def test_an_agent_gets_a_plain_answer(gateway: Server, upstream: Upstream, home: Path, agent: str, model: str) -> None:
    upstream.serve(REASONING)
    upstream.always(Step(text=TEXT, thinking="Hm."))
    run = Run(agent, gateway, home, model, "Say hi")
    assert TEXT in run.output and run.code == 0, run.output[-2000:]
    assert {request.status for request in run.requests} == {200}
    assert len(run.requests) == len(upstream.requests)


@pytest.mark.parametrize(("agent", "model"), WRITING)
def test_an_agent_writes_a_file_by_a_tool(
    gateway: Server, upstream: Upstream, home: Path, agent: str, model: str
) -> None:
    upstream.serve(REASONING)
    upstream.script(first_step(agent, model, home / "work"))
    upstream.always(Step(text="All done."))
    run = Run(agent, gateway, home, model, f"Write {NOTE}")
    written = run.folder / NOTE
    assert written.exists() and written.read_text().strip() == NOTED, run.output[-2000:]
    assert run.code == 0 and {request.status for request in run.requests} == {200}


def first_step(agent: str, model: str, folder: Path) -> Step:
    """The answer that makes the agent write the file."""
    call = AGENTS[agent].call
    if call is None:
        return Step(text=AGENTS[agent].reply)
    name, value = call(folder)
    tool: dict[str, Any] = {"name": name, "input": value}
    return Step(text="I write it.", thinking="Hm.", tools=[tool])


@pytest.mark.parametrize("agent", NAMES)
def test_an_agent_whose_key_is_refused_says_so_and_ends(
    gateway: Server, upstream: Upstream, home: Path, agent: str
) -> None:
    run = Run(agent, gateway, home, CLAUDE, "Say hi", key="sk-wrong")
    assert {request.status for request in run.requests} == {401}
    assert "key" in run.output.lower(), run.output[-2000:]
    assert len(run.requests) <= AGENTS[agent].tries and upstream.requests == []
