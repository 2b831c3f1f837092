"""The README's examples, run as they are printed: only the address and the key are put in."""

from __future__ import annotations

import json
import re
import shlex
import sys
import types
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from llm_service import create_app as make_app
from llm_service.extensions import db
from llm_service.settings import Settings
from tests.support.server import Server
from tests.upstream import Step, Upstream

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
# What follows the address there, so that "/v1" and the base without it are both put right.
ADDRESS, KEY = "http://127.0.0.1:8000", "lsk_..."


def example(marker: str, service: Server) -> str:
    """The one Python example that holds ``marker``, for ``service``."""
    (found,) = [code for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if marker in code]
    assert ADDRESS in found
    return str(found).replace(ADDRESS, service.url).replace(KEY, service.key)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


@pytest.mark.parametrize("marker", ["import OpenAI", "import Anthropic"])
def test_the_official_sdks_as_shown(
    service: Server, upstream: Upstream, capsys: pytest.CaptureFixture[str], marker: str
) -> None:
    upstream.script(Step(text="Hello there, my dear friend."))
    run(example(marker, service))["client"].close()
    assert capsys.readouterr().out.strip() == "Hello there, my dear friend."


def test_the_calls_with_requests_as_shown(service: Server, upstream: Upstream) -> None:
    names = run(example("import requests", service))
    upstream.script(Step(text="plain"), Step(text="one two three"))
    assert names["complete"]("Hi") == "plain"
    assert "".join(names["stream"]("Hi")) == "one two three"
    names["session"].close()


def test_a_stream_that_breaks_raises_in_the_shown_reader(service: Server, upstream: Upstream) -> None:
    names = run(example("import requests", service))
    upstream.script(Step(words=20, fault="end", after=5))
    with pytest.raises(RuntimeError):
        list(names["stream"]("Hi"))
    names["session"].close()


def curl_lines() -> list[list[str]]:
    """The arguments of the curl commands."""
    block = README.split("```sh\nKEY=lsk_...\n")[1].split("```")[0].replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in block.splitlines() if line]


def test_the_curl_lines_are_requests_that_are_answered(service: Server) -> None:
    lines = curl_lines()
    assert len(lines) == 2
    for arguments in lines:
        streams = "-N" in arguments
        values = [argument for argument in arguments if argument != "-N"]
        url, options = values[0], values[1:]
        headers = dict(value.split(": ", 1) for flag, value in pairwise(options) if flag == "-H")
        body = options[options.index("-d") + 1]
        headers["Authorization"] = headers["Authorization"].replace("$KEY", service.key)
        with service.http() as client:
            reply = client.post(url.removeprefix(ADDRESS), content=body, headers=headers)
        assert reply.status_code == 200
        if streams:
            events = [line[6:] for line in reply.text.splitlines() if line.startswith("data: ")]
            assert "".join(json.loads(event).get("delta", "") for event in events[:-1]) == "Say hello in five words."
            assert events[-1] == "[DONE]"
        else:
            assert reply.json()["text"] == "Say hello in five words."


def test_mounting_below_a_prefix_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "Dispatcher" in code]
    project = types.ModuleType("your_project")
    project.app = Flask("your_project")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "your_project", project)
    monkeypatch.setenv("LLM_SERVICE_INSTANCE", str(tmp_path))
    monkeypatch.setenv("API_KEYS", "a-key-of-the-tests")
    app = run(code)["app"]
    mounted = app.wsgi_app.mounts["/llm"]
    assert mounted.test_cli_runner().invoke(args=["db", "upgrade"]).exit_code == 0
    client = app.test_client()
    assert client.get("/llm/health").get_json() == {"status": "ok"}
    with client.get("/llm/docs") as page:
        paths = re.findall(r'(?:href|src)="([^"]+)"', page.get_data(as_text=True))
    assert len(paths) == 4
    for path in [*paths, "openapi.json"]:
        with client.get(f"/llm/{path}") as reply:
            assert reply.status_code == 200
    # Without Redis the limits go on from memory.
    reply = client.post(
        "/llm/v1/complete", json={"model": "echo", "prompt": "Hi"}, headers={"X-API-Key": "a-key-of-the-tests"}
    )
    assert (reply.status_code, reply.get_json()["text"]) == (200, "Hi")
    assert mounted.extensions["llm_service"].close(5) == 0
    with mounted.app_context():
        db.engine.dispose()


def test_the_catalogue_row_as_shown(tmp_path: Path) -> None:
    (row,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "models.toml").write_text(row)
    app = make_app(Settings(instance=tmp_path, models=tmp_path / "models.toml"))
    provider = app.extensions["llm_service"].catalog.providers["ollama"]
    assert (provider.configured, provider.base_url) == (True, "http://127.0.0.1:11434/v1")
