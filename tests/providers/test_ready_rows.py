"""Each ready row of the catalogue asks its server as that server wants, whichever format the client speaks.

The scripted vendor plays the server of each row (tests/upstream/servers.py). Only the address of the row is replaced.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from llm_service.catalog.catalog import READY
from tests.conftest import settings_for
from tests.support.server import Server
from tests.support.valkey import Valkey
from tests.upstream import Upstream, servers
from tests.upstream.steps import Step

DOCUMENT = tomllib.loads(READY.read_text(encoding="utf-8"))
ROWS: dict[str, dict[str, Any]] = DOCUMENT["providers"]
MODEL = "some-model"
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
OWN_TOOLS = [{"name": "look", "input_schema": {"type": "object", "properties": {}}}]


def variables(row: dict[str, Any]) -> dict[str, str]:
    """Values for the variables that turn the row on."""
    values = {name: f"value-of-{name}" for name in row.get("needs_env", ())}
    values |= {"AZURE_OPENAI_API_VERSION": "2024-10-21"} if "AZURE_OPENAI_API_VERSION" in values else {}
    return values | ({row["key_env"]: servers.KEY} if "key_env" in row else {})


def at(upstream: Upstream, name: str, row: dict[str, Any]) -> str:
    """The row's own base URL, at the scripted vendor."""
    path = urlsplit(re.sub(r"\$\{[^}]*\}", "x", row["base_url"])).path
    return f"{upstream.url}{servers.PREFIX}{name}{path}"


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{key}" = {toml(item)}' for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return (
        str(value).lower() if isinstance(value, bool) else repr(value) if not isinstance(value, str) else f'"{value}"'
    )


@pytest.fixture(scope="module")
def service(upstream_server: Upstream, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One service with all rows on. The environment has ids and headers that belong to OpenAI and Anthropic alone."""
    folder = tmp_path_factory.mktemp("ready_rows")
    lines: list[str] = []
    environ: dict[str, str] = {}
    for name, row in ROWS.items():
        environ |= variables(row)
        words = {**row, "base_url": at(upstream_server, name, row)}
        words.pop("key_command", None)
        lines.append(f"[providers.{name}]\n" + "\n".join(f"{word} = {toml(value)}" for word, value in words.items()))
    for pattern, row in DOCUMENT["models"].items():
        lines.append(f'[models."{pattern}"]\n' + "\n".join(f"{word} = {toml(value)}" for word, value in row.items()))
    (folder / "models.toml").write_text("\n".join(lines))
    environ |= {
        "LLM_SERVICE_MODELS": str(folder / "models.toml"),
        "OPENAI_ORG_ID": "org-of-openai",
        "OPENAI_PROJECT_ID": "proj-of-openai",
        "OPENAI_CUSTOM_HEADERS": "x-of-openai: secret",
        "ANTHROPIC_CUSTOM_HEADERS": "x-of-anthropic: secret",
    }
    with Server(folder, settings_for(upstream_server, valkey, WEB_CONCURRENCY="1") | environ) as server:
        yield server


def test_each_row_has_a_server_that_is_played_or_takes_what_its_api_takes() -> None:
    assert set(servers.RULES) <= set(ROWS)
    plain = set(ROWS) - set(servers.RULES)
    special = {"headers", "key_header", "paths", "drop", "add", "stream_usage", "thoughts", "system_role"}
    assert [name for name in plain if special & set(ROWS[name])] == []


@pytest.mark.parametrize("name", list(ROWS))
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_chat_client_s_own_fields_are_made_to_fit(
    service: Server, upstream: Upstream, name: str, stream: bool
) -> None:
    body = {
        "model": f"{name}/{MODEL}",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Hello", "name": "ann"},
        ],
        "max_completion_tokens": 64,
        "stream": stream,
        "user": "ann",
        **({"stream_options": {"include_usage": True}} if stream else {}),
    }
    if ROWS[name].get("drop"):
        body |= {"parallel_tool_calls": True, "tools": TOOLS, "prompt_cache_key": "k", "frequency_penalty": 0}
    if name in ("openrouter", "litellm"):  # these know the older limit's name besides, and pass on the rest
        del body["user"]
    upstream.script(Step(text="Hi."))
    answer = service.http().post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert "Hi." in answer.text or stream
    assert ("[DONE]" in answer.text) is stream
    dropped = answer.headers.get("x-dropped-parameters", "")
    for path in ROWS[name].get("drop", ()):
        if path in ("user", "messages[].name", "parallel_tool_calls", "prompt_cache_key"):
            assert path in dropped


@pytest.mark.parametrize("name", list(ROWS))
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_messages_client_s_history_of_another_model_is_made_to_fit(
    service: Server, upstream: Upstream, name: str, stream: bool
) -> None:
    body = {
        "model": f"{name}/{MODEL}",
        "max_tokens": 64,
        "stream": stream,
        "system": "Be brief.",
        "metadata": {"user_id": "ann"},
        "tools": OWN_TOOLS,
        "messages": [
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "look", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "a cat"}]},
        ],
    }
    upstream.script(Step(text="A cat."))
    answer = service.http().post("/v1/messages", json=body, headers={"anthropic-version": "2023-06-01"})
    assert answer.status_code == 200, answer.text
    assert "cat" in answer.text.lower()
    assert upstream.last.headers.get("host", "").startswith("127.0.0.1")


def test_openai_itself_gets_what_the_environment_sets_for_its_sdk(
    upstream: Upstream, valkey: Valkey, tmp_path: Path
) -> None:
    environ = settings_for(upstream, valkey, WEB_CONCURRENCY="1", OPENAI_ORG_ID="org-of-openai")
    with Server(tmp_path, environ) as server:
        server.http().post("/v1/complete", json={"model": "openai/gpt-4o-mini", "prompt": "x"})
    assert upstream.last.headers["openai-organization"] == "org-of-openai"
