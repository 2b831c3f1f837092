"""The Node clients of both vendors, and Vercel's ``ai`` package on top of them, with every model behind the service.

Node itself is a wheel. Its packages come from the npm registry at the first run, and they are kept in ``build/node``
until the lockfile changes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.targets import COMPAT, REASONING, catalogue
from tests.conftest import MakeService
from tests.contract.cases import CLAUDE, ECHO, GPT, PIXEL, failing
from tests.support.line_process import LineProcess
from tests.support.packages import NODE, NODE_REQUIRED, NPM_TIMEOUT, node_packages
from tests.support.server import INHERITED, Server
from tests.upstream import Step, Upstream

HERE = Path(__file__).parent / "node"
CLIENTS = ("openai", "responses", "anthropic", "ai-openai", "ai-compatible", "ai-responses", "ai-anthropic")
MODELS = (GPT, CLAUDE)
STOPS = {"openai": "stop", "responses": "completed", "anthropic": "end_turn"}
# The first test waits for npm.
pytestmark = pytest.mark.timeout(NPM_TIMEOUT + 60)


@pytest.fixture(scope="module")
def service(shared_service: MakeService, upstream_server: Upstream) -> Server:
    return shared_service(models=catalogue(upstream_server))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LineProcess | None]:
    """None where the packages are not there."""
    folder, problem = node_packages(HERE)
    if problem:
        yield None
        return
    environ = {name: os.environ[name] for name in INHERITED if name in os.environ}
    process = LineProcess([NODE, "run.mjs"], folder, environ, tmp_path_factory.mktemp("node") / "stderr")
    yield process
    process.close()


def skip_without_packages() -> None:
    """Called in the tests, not in a fixture, so that pytest reports all of them in one line."""
    _, problem = node_packages(HERE)
    if problem:
        pytest.skip(problem)


def test_the_packages_can_be_installed() -> None:
    _, problem = node_packages(HERE)
    if problem and NODE_REQUIRED:
        pytest.fail(problem, pytrace=False)
    skip_without_packages()


def run(node: LineProcess, service: Server, client: str, case: str, model: str) -> dict[str, Any]:
    """The output of one case of run.mjs: what the client returned, or the error that it raised."""
    skip_without_packages()
    output: dict[str, Any] = node.ask(base=service.url, apiKey=service.key, client=client, name=case, model=model)
    return output


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_plain_answer_has_its_text_and_usage(
    node: LineProcess, service: Server, upstream: Upstream, client: str, model: str
) -> None:
    upstream.script(Step(text="Good morning to you", input_tokens=100, output_tokens=4))
    output = run(node, service, client, "chat", model)
    assert (output.get("text"), output.get("input")) == ("Good morning to you", 100), output
    assert output["finish"] == STOPS.get(client, "stop")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_has_its_pieces_and_usage(
    node: LineProcess, service: Server, upstream: Upstream, client: str, model: str
) -> None:
    upstream.script(Step(text="one two three", input_tokens=50, output_tokens=3))
    output = run(node, service, client, "stream", model)
    assert (output.get("text"), output.get("pieces")) == ("one two three", ["one", " two", " three"]), output
    assert output["finish"] == STOPS.get(client, "stop")
    # OpenAI reports its input tokens only at the end, and Anthropic's clients read them at the start.
    if client not in ("anthropic", "ai-anthropic") or model == CLAUDE:
        assert output["input"] == 50


TARGETS = (GPT, REASONING, CLAUDE, COMPAT)
LOOPS = [(client, model) for client in (*CLIENTS, "runner") for model in TARGETS]
STRUCTURED = [(client, model) for client in CLIENTS if client != "responses" for model in TARGETS]


@pytest.mark.parametrize(("client", "model"), LOOPS)
def test_a_loop_of_three_turns_with_tools_works(
    node: LineProcess, service: Server, upstream: Upstream, client: str, model: str
) -> None:
    upstream.serve(REASONING)
    upstream.script(
        Step(thinking="Hm.", tools=[{"name": "look", "input": {"q": "a"}}]),
        Step(thinking="Hm.", tools=[{"name": "look", "input": {"q": "b"}}, {"name": "look", "input": {"q": "c é"}}]),
        Step(text="All found."),
    )
    output = run(node, service, client, "tools", model)
    assert output == {"text": "All found.", "results": ["found a", "found b", "found c é"]}
    assert len(upstream.requests) == 3


@pytest.mark.parametrize(("client", "model"), STRUCTURED)
def test_structured_output_is_parsed(
    node: LineProcess, service: Server, upstream: Upstream, client: str, model: str
) -> None:
    upstream.serve(REASONING)
    # The ai package uses a tool of its own instead if it believes that a model does not support a format.
    upstream.script(Step(text='{"q": "x"}'))
    assert run(node, service, client, "structured", model) == {"q": "x"}


# The same pixel in the format of each vendor.
FOR_OPENAI = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
FOR_CLAUDE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
CROSSINGS = [(client, GPT if "anthropic" in client else CLAUDE) for client in CLIENTS]


@pytest.mark.parametrize(("client", "model"), CROSSINGS)
def test_an_image_reaches_the_other_vendor(
    node: LineProcess, service: Server, upstream: Upstream, client: str, model: str
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
    node: LineProcess, service: Server, upstream: Upstream, client: str, model: str, status: int
) -> None:
    upstream.always(failing(status, message="no"))
    output = run(node, service, client, "chat", model)
    kind, requests = ERRORS[status]
    assert (output["error"], output["status"]) == (kind, status)
    assert len(upstream.requests) == requests  # the service asked once, and the client did not retry


@pytest.mark.parametrize("client", ["ai-openai", "ai-anthropic"])
def test_the_ai_package_reports_the_status_and_the_reason(
    node: LineProcess, service: Server, upstream: Upstream, client: str
) -> None:
    output = run(node, service, client, "chat", "nobody/knows:this")
    assert (output["error"], output["status"]) == ("AI_APICallError", 404) or output["status"] == 404
    assert "does not exist" in output["message"]
    assert upstream.requests == []


@pytest.mark.parametrize("client", ["openai", "anthropic", "ai-openai", "ai-anthropic"])
def test_an_error_inside_a_stream_is_raised(
    node: LineProcess, service: Server, upstream: Upstream, client: str
) -> None:
    upstream.script(Step(text="one two three", fault="error", after=5, status=503))
    output = run(node, service, client, "stream", CLAUDE if "anthropic" in client else GPT)
    assert "error" in output and output["message"], output


def test_embeddings_arrive_as_numbers(node: LineProcess, service: Server, upstream: Upstream) -> None:
    assert run(node, service, "openai", "embeddings", ECHO) == {"count": 2, "numbers": 64}
    assert run(node, service, "openai", "embeddings", "text-embedding-3-small") == {"count": 2, "numbers": 8}


def test_both_clients_list_the_same_models(node: LineProcess, service: Server) -> None:
    names = [run(node, service, client, "models", ECHO)["names"] for client in ("openai", "anthropic")]
    assert names[0] == names[1] and len(names[0]) > 5


def test_the_lockfile_names_no_registry() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text())
    packages = {name: facts for name, facts in lock["packages"].items() if name}
    assert packages and all(facts["integrity"].startswith("sha512-") for facts in packages.values())
    assert not any("resolved" in facts for facts in packages.values())
    assert sys.version_info >= (3, 11)
