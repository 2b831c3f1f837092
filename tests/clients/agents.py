"""Coding agents: how each is pointed at the service, and by which tool it makes a file.

An agent has a home and a folder to work in of its own, and no network but the service. Its telemetry and its updates
are turned off.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.packages import node_packages, python_packages
from tests.support.processes import end_with_parent
from tests.support.server import ROOT

NOTE, NOTED = "note.txt", "written by the agent"
TIMEOUT = 90.0
# Nothing listens on this port, so what an agent sends elsewhere fails at once.
NO_NETWORK = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}


@dataclass(frozen=True)
class Task:
    """One run of an agent."""

    home: Path
    base: str
    key: str
    model: str
    prompt: str

    @property
    def folder(self) -> Path:
        """The folder that the agent works in."""
        return self.home / "work"

    @property
    def v1(self) -> str:
        return f"{self.base}/v1"

    def write(self, name: str, text: str) -> None:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@dataclass(frozen=True)
class Agent:
    """``prepare`` writes the agent's configuration and returns its command and environment.

    ``call`` gives the name and the input of the tool call by which the agent writes a file. Without it the agent has no
    tools, and ``reply`` is the text that makes it write the file. ``tries`` is how often it sends a request whose key
    is refused: some try again whatever the answer says.
    """

    api: str
    prepare: Callable[[Task], tuple[list[str], Mapping[str, str]]]
    call: Callable[[Path], tuple[str, dict[str, Any]]] | None
    reply: str = ""
    tries: int = 1

    def run(self, task: Task) -> subprocess.CompletedProcess[str]:
        """Run the agent to its end.

        Raises:
            subprocess.TimeoutExpired: it did not end within ``TIMEOUT``.
        """
        task.folder.mkdir(parents=True)
        command, environ = self.prepare(task)
        return subprocess.run(
            command,
            cwd=task.folder,
            env={**NO_NETWORK, "PATH": os.environ["PATH"], "HOME": str(task.home), "LANG": "C.UTF-8", **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
            preexec_fn=end_with_parent(),
        )


def _program(pattern: str) -> str:
    """A program of the npm packages, by its path among them."""
    folder, _ = node_packages(ROOT / "tests/clients/agents", 300)
    return str(next((folder / "node_modules").glob(pattern)))


def _claude_code(task: Task) -> tuple[list[str], Mapping[str, str]]:
    program = _program("@anthropic-ai/claude-code-*/claude")
    return [program, "-p", task.prompt, "--model", task.model, "--allowedTools", "Write"], {
        "ANTHROPIC_BASE_URL": task.base,
        "ANTHROPIC_AUTH_TOKEN": task.key,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }


CODEX = """\
model = "{task.model}"
model_provider = "service"
check_for_update_on_startup = false

[model_providers.service]
name = "service"
base_url = "{task.v1}"
env_key = "SERVICE_KEY"
wire_api = "responses"

[analytics]
enabled = false
"""


def _codex(task: Task) -> tuple[list[str], Mapping[str, str]]:
    task.write(".codex/config.toml", CODEX.format(task=task))
    options = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    return [_program("@openai/codex-*/vendor/*/bin/codex"), "exec", *options, task.prompt], {"SERVICE_KEY": task.key}


def _opencode(package: str) -> Callable[[Task], tuple[list[str], Mapping[str, str]]]:
    def prepare(task: Task) -> tuple[list[str], Mapping[str, str]]:
        options = {"baseURL": task.v1, "apiKey": task.key}
        provider = {"npm": package, "options": options, "models": {task.model: {}}}
        config = {
            "provider": {"service": provider},
            "model": f"service/{task.model}",
            "permission": {"*": "allow"},
            "agent": {"title": {"disable": True}},
            "autoupdate": False,
            "share": "disabled",
        }
        task.write("work/opencode.json", json.dumps(config))
        off = ("MODELS_FETCH", "AUTOUPDATE", "LSP_DOWNLOAD", "DEFAULT_PLUGINS")
        return [_program("opencode-*/bin/opencode"), "run", task.prompt], {
            f"OPENCODE_DISABLE_{name}": "1" for name in off
        }

    return prepare


def _aider(prefix: str) -> Callable[[Task], tuple[list[str], Mapping[str, str]]]:
    def prepare(task: Task) -> tuple[list[str], Mapping[str, str]]:
        program = python_packages(ROOT / "tests/clients/requirements/aider.txt").with_name("aider")
        settings = f"- name: {prefix}/{task.model}\n  edit_format: whole\n  use_temperature: false\n"
        task.write(".aider.model.settings.yml", settings)
        quiet = (
            "git",
            "check-update",
            "analytics",
            "show-model-warnings",
            "show-release-notes",
            "pretty",
            "detect-urls",
        )
        command = [str(program), "--model", f"{prefix}/{task.model}", "--message", task.prompt, "--yes-always"]
        return [*command, *[f"--no-{name}" for name in quiet]], {
            "OPENAI_API_BASE": task.v1,
            "OPENAI_API_KEY": task.key,
            "ANTHROPIC_API_BASE": task.base,
            "ANTHROPIC_API_KEY": task.key,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }

    return prepare


def _writes(name: str, path: str) -> Callable[[Path], tuple[str, dict[str, Any]]]:
    return lambda folder: (name, {path: str(folder / NOTE), "content": NOTED})


def _runs(folder: Path) -> tuple[str, dict[str, Any]]:
    return "exec_command", {"cmd": f"echo {NOTED} > {folder / NOTE}"}


AGENTS = {
    "claude-code": Agent("messages", _claude_code, _writes("Write", "file_path")),
    "codex": Agent("responses", _codex, _runs, tries=6),
    "opencode-chat": Agent("chat", _opencode("@ai-sdk/openai-compatible"), _writes("write", "filePath")),
    "opencode-responses": Agent("responses", _opencode("@ai-sdk/openai"), _writes("write", "filePath")),
    "opencode-messages": Agent("messages", _opencode("@ai-sdk/anthropic"), _writes("write", "filePath")),
    "aider-chat": Agent("chat", _aider("openai"), None, f"{NOTE}\n```\n{NOTED}\n```\n"),
    "aider-messages": Agent("messages", _aider("anthropic"), None, f"{NOTE}\n```\n{NOTED}\n```\n"),
}
