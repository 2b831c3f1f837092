"""``python -m tests.clients.capture [NAME ...]``: records what the agents send, for ``tests/fixtures/agents``.

Each agent runs one task with one tool call, with its own vendor's model, in front of the scripted vendor. The recorded
requests keep their shape: fields, types, names, identifiers. Their prose is the agents' own and is cut after
``KEPT`` characters, and what describes this machine or this run is replaced.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.clients.agents import AGENTS, NOTE, Task
from tests.clients.targets import CLAUDE, COMPAT, REASONING, catalogue
from tests.support.recorder import Recorded, Recorder
from tests.support.server import ROOT, Server
from tests.upstream import ANTHROPIC_KEY, OPENAI_KEY, Step, Upstream

FIXTURES = ROOT / "tests/fixtures/agents"
KEPT = 60
OWN = {"messages": CLAUDE, "responses": REASONING, "chat": COMPAT}
# Codex sends other tools to models that it does not know.
CAPTURES = {name: (name, OWN[agent.api]) for name, agent in AGENTS.items()} | {"codex-unknown-model": ("codex", COMPAT)}
# Headers that say what the body may contain.
HEADERS = ("anthropic-beta", "anthropic-version")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32,}")


def scrub(value: Any, folder: str) -> Any:
    """The value with its prose cut, and without what describes this machine or this run."""
    if isinstance(value, dict):
        return {scrub(name, folder): scrub(item, folder) for name, item in value.items()}
    if isinstance(value, list):
        return [scrub(item, folder) for item in value]
    if not isinstance(value, str):
        return value
    text = _ID.sub(lambda match: "0" * len(match[0]), value.replace(folder, "/home/user"))
    if value.startswith("{"):  # JSON in a string, as an agent's description of itself
        try:
            return json.dumps(scrub(json.loads(text), folder))
        except ValueError:
            pass
    return text if len(text) <= KEPT else f"{text[:KEPT]}..."


def document(request: Recorded, folder: str) -> dict[str, Any]:
    headers = {name: request.headers[name] for name in HEADERS if name in request.headers}
    return {"path": request.path, "headers": headers, "body": scrub(request.body, folder)}


def capture(name: str, model: str, service: Server, upstream: Upstream) -> list[dict[str, Any]]:
    agent = AGENTS[name]
    with tempfile.TemporaryDirectory() as home, Recorder(service.url) as recorder:
        task = Task(Path(home), recorder.url, service.key, model, f"Write {NOTE}")
        upstream.reset()
        upstream.serve(REASONING)
        if agent.call is None:
            upstream.script(Step(text=agent.reply))
        else:
            called, value = agent.call(task.folder)
            upstream.script(Step(text="I write it.", thinking="Hm.", tools=[{"name": called, "input": value}]))
        upstream.always(Step(text="All done."))
        agent.run(task)
        return [document(request, home) for request in recorder.requests if request.status == 200]


def main(names: list[str]) -> None:
    with Upstream() as upstream, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "models.toml").write_text(catalogue(upstream))
        environ = {
            "ANTHROPIC_API_KEY": ANTHROPIC_KEY,
            "ANTHROPIC_BASE_URL": upstream.url,
            "OPENAI_API_KEY": OPENAI_KEY,
            "OPENAI_BASE_URL": upstream.openai_url,
            "LLM_SERVICE_MODELS": f"{folder}/models.toml",
        }
        with Server(Path(folder) / "service", environ) as service:
            for name in names or CAPTURES:
                requests = capture(*CAPTURES[name], service, upstream)
                (FIXTURES / f"{name}.json").write_text(json.dumps(requests, indent=1) + "\n")
                sys.stdout.write(f"{name}: {len(requests)} requests\n")


if __name__ == "__main__":
    main(sys.argv[1:])
