"""Client libraries, each in an environment of its own, with every kind of target behind the service.

``make test-clients`` runs them. ``libraries.py`` lists them, and ``python/`` has a short script for each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.clients.libraries import LIBRARIES, TEXT
from tests.clients.targets import CLAUDE_NAMES, REASONING, TARGETS
from tests.support.line_process import LineProcess
from tests.support.packages import PIP_TIMEOUT, python_packages
from tests.support.server import INHERITED, ROOT, Server
from tests.upstream import Step, Upstream

# The first test of an environment waits for pip.
pytestmark = pytest.mark.timeout(PIP_TIMEOUT + 120)
RUNS = [(name, api, model) for name, library in LIBRARIES.items() for api in library.apis for model in TARGETS]
# No telemetry, no lists of models from the network, and no warnings about types.
QUIET = {
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "PYTHONWARNINGS": "ignore",
}

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], LineProcess]]:
    """The process of a library, by the library's name."""
    made: dict[str, LineProcess] = {}

    def start(name: str) -> LineProcess:
        folder = tmp_path_factory.mktemp(name)
        environ = {variable: os.environ[variable] for variable in INHERITED if variable in os.environ}
        environ |= QUIET | {"HOME": str(folder), "DSPY_CACHEDIR": str(folder), "LLM_USER_PATH": str(folder)}
        python = python_packages(ROOT / f"tests/clients/requirements/{LIBRARIES[name].environment}.txt")
        script = ROOT / "tests/clients/python/run.py"
        return LineProcess([python, script, name], folder, environ, folder / "stderr")

    def get(name: str) -> LineProcess:
        if name not in made or not made[name].running:
            made[name] = start(name)
        return made[name]

    yield get
    for running in made.values():
        running.close()


@pytest.fixture
def ask(process: Callable[[str], LineProcess], gateway: Server, upstream: Upstream) -> Ask:
    """Runs one case of a library."""

    def run(name: str, api: str, model: str, case: str, key: str | None = None) -> dict[str, Any]:
        upstream.serve(REASONING)
        asked = CLAUDE_NAMES.get(model, model) if LIBRARIES[name].only_names_of_claude(api) else model
        task = {"case": case, "base": gateway.url, "key": key or gateway.key, "api": api, "model": asked}
        output: dict[str, Any] = process(name).ask(**task)
        return output

    return run


@pytest.mark.parametrize(("name", "api", "model"), RUNS)
def test_a_library_gets_a_plain_answer(ask: Ask, upstream: Upstream, name: str, api: str, model: str) -> None:
    upstream.script(*LIBRARIES[name].script("chat", api, model))
    assert ask(name, api, model, "chat") == {"text": TEXT}
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(("name", "api", "model"), RUNS)
def test_a_library_reads_a_stream(ask: Ask, upstream: Upstream, name: str, api: str, model: str) -> None:
    upstream.script(*LIBRARIES[name].script("stream", api, model))
    output = ask(name, api, model, "stream")
    assert "".join(output.get("pieces", ())) == TEXT, output


@pytest.mark.parametrize(("name", "api", "model"), RUNS)
def test_a_library_runs_a_loop_of_three_turns_with_tools(
    ask: Ask, upstream: Upstream, name: str, api: str, model: str
) -> None:
    upstream.script(*LIBRARIES[name].script("tools", api, model))
    output = ask(name, api, model, "tools")
    # Some libraries run the calls of one turn at the same time, and some put a space between two texts.
    assert output.get("text", "").strip() == LIBRARIES[name].last_text, output
    assert sorted(output["results"]) == sorted(LIBRARIES[name].results)
    assert upstream.unused_steps == []


@pytest.mark.parametrize(("name", "api", "model"), RUNS)
def test_a_library_gets_structured_output(ask: Ask, upstream: Upstream, name: str, api: str, model: str) -> None:
    upstream.script(*LIBRARIES[name].script("structured", api, model))
    output = ask(name, api, model, "structured")
    assert output == {"q": "x"}, output


@pytest.mark.parametrize(("name", "api", "model"), RUNS)
def test_a_library_reports_a_wrong_key_and_does_not_try_again(
    ask: Ask, gateway: Server, upstream: Upstream, name: str, api: str, model: str
) -> None:
    output = ask(name, api, model, "chat", "sk-wrong")
    assert "malformed" in output.get("message", ""), output
    assert upstream.requests == []


@pytest.mark.parametrize(("name", "api", "model"), RUNS)
def test_a_library_reports_what_the_vendor_says_about_a_wrong_request(
    ask: Ask, upstream: Upstream, name: str, api: str, model: str
) -> None:
    upstream.always(Step(status=400, message="the zebra is not a number"))
    output = ask(name, api, model, "chat")
    assert "zebra" in output.get("message", ""), output
