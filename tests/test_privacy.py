"""No content is stored anywhere: a marker is sent through every route with every ending, then all files are searched.

Add a new route to ``ROUTES``: ``test_every_route_that_takes_content_is_tested`` fails until it is there.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llm_service import create_app
from llm_service.settings import Settings
from tests.conftest import settings_for
from tests.support.postgres import Postgres
from tests.support.server import Server
from tests.support.valkey import Valkey
from tests.upstream import Step, Upstream

MARKER = "zebra7unicorn"
OPENAI, ANTHROPIC = "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"


def simple(model: str, stream: bool) -> dict[str, Any]:
    return {
        "model": model,
        "system": f"sys {MARKER}",
        "prompt": f"say {MARKER}",
        "stop": [f"stop{MARKER}"],
        "max_tokens": 50,
    }


def chat(model: str, stream: bool) -> dict[str, Any]:
    body = {"model": model, "max_tokens": 50, "stream": stream, "user": f"user {MARKER}"}
    text = [{"role": "system", "content": f"sys {MARKER}"}, {"role": "user", "content": f"say {MARKER}"}]
    return body | {"messages": text}


def chat_rich(model: str, stream: bool) -> dict[str, Any]:
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": f'{{"q": "{MARKER}"}}'}}
    file = {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg==", "filename": f"{MARKER}.pdf"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": f"say {MARKER}"}, file]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": f"found {MARKER}"},
    ]
    tools = [
        {"type": "function", "function": {"name": "look", "description": MARKER, "parameters": {"type": "object"}}}
    ]
    return chat(model, stream) | {"messages": messages, "tools": tools, "metadata": {"note": MARKER}}


def messages(model: str, stream: bool) -> dict[str, Any]:
    turn = {"role": "user", "content": [{"type": "text", "text": f"say {MARKER}"}]}
    return {"model": model, "max_tokens": 50, "stream": stream, "system": f"sys {MARKER}", "messages": [turn]}


def messages_rich(model: str, stream: bool) -> dict[str, Any]:
    source = {"type": "text", "media_type": "text/plain", "data": f"data {MARKER}"}
    turns = [
        {"role": "user", "content": [{"type": "document", "title": f"{MARKER}.txt", "source": source}]},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"q": MARKER}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": f"found {MARKER}"}]},
    ]
    tools = [{"name": "look", "description": MARKER, "input_schema": {"type": "object"}}]
    return messages(model, stream) | {"messages": turns, "tools": tools, "metadata": {"user_id": MARKER}}


def responses(model: str, stream: bool) -> dict[str, Any]:
    asked = {"instructions": f"sys {MARKER}", "input": f"say {MARKER}", "user": f"user {MARKER}"}
    return {"model": model, "max_output_tokens": 50, "stream": stream, **asked}


def responses_rich(model: str, stream: bool) -> dict[str, Any]:
    thought = {"type": "summary_text", "text": f"think {MARKER}"}
    file = {"type": "input_file", "file_data": "data:application/pdf;base64,JVBERg==", "filename": f"{MARKER}.pdf"}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": f"say {MARKER}"}, file]},
        {"type": "reasoning", "id": "rs_1", "summary": [thought], "encrypted_content": f"carried:messages:{MARKER}"},
        {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": f'{{"q": "{MARKER}"}}'},
        {"type": "function_call_output", "call_id": "call_1", "output": f"found {MARKER}"},
    ]
    tools = [{"type": "function", "name": "look", "description": MARKER, "parameters": {"type": "object"}}]
    return responses(model, stream) | {"input": items, "tools": tools, "metadata": {"note": MARKER}}


def embeddings(model: str, stream: bool) -> dict[str, Any]:
    return {"model": model, "input": [f"say {MARKER}", f"and {MARKER}"], "user": f"user {MARKER}"}


def completions(model: str, stream: bool) -> dict[str, Any]:
    return {"model": model, "prompt": f"say {MARKER}", "max_tokens": 50, "stream": stream, "user": f"user {MARKER}"}


def counting(model: str, stream: bool) -> dict[str, Any]:
    return {name: value for name, value in messages(model, False).items() if name not in ("max_tokens", "stream")}


def counting_input(model: str, stream: bool) -> dict[str, Any]:
    return {"model": model, "instructions": f"sys {MARKER}", "input": f"say {MARKER}"}


# route -> the functions that make its bodies
ROUTES: dict[str, list[Any]] = {
    "/v1/complete": [simple],
    "/complete": [simple],
    "/v1/chat": [simple],
    "/v1/stream": [simple],
    "/stream": [simple],
    "/complete/stream": [simple],
    "/v1/chat/completions": [chat, chat_rich],
    "/v1/responses": [responses, responses_rich],
    "/v1/messages": [messages, messages_rich],
    "/v1/completions": [completions],
    "/v1/embeddings": [embeddings],
    "/v1/messages/count_tokens": [counting],
    "/v1/responses/input_tokens": [counting_input],
}
ENDINGS = {
    "success": Step(text=f"the answer is {MARKER}"),
    "tool call": Step(tools=[{"name": "look", "input": {"q": MARKER}}]),
    "hostile 400": Step(status=400, message="bad input: {prompt} said {key}", error_param=f"messages.{MARKER}"),
    "hostile code": Step(status=422, message=MARKER, error_type=MARKER, error_code=MARKER),
    "hostile 500": Step(status=500, message="crashed on {prompt}", times=0),
    "hostile 401": Step(status=401, message="who is {key}? {prompt}"),
    "hostile 429": Step(status=429, message="slow down with {prompt}", headers={"retry-after": "900"}),
    "error in the stream": Step(
        text=f"well {MARKER} and so on and on", fault="error", after=5, message="{completion} {prompt}"
    ),
    "malformed": Step(text=f"well {MARKER}", fault="inject", after=4, data=f"data: {{{MARKER}\n\n"),
    "cut": Step(text=f"well {MARKER} and so on", fault="end", after=4),
    "reset": Step(text=f"well {MARKER} and so on", fault="reset", after=4),
    "no json": Step(body=f"<p>{MARKER}</p>", content_type="text/html"),
    "hostile ids": Step(text="x", id=MARKER, served_model=f"{MARKER} model", headers={"request-id": f"{MARKER} id"}),
}

CATALOGUE = """
[defaults]
attempts = 2
[defaults.timeouts]
first_byte = 1
idle = 1
[tiers.default]
[providers.openai]
kind = "openai"
key_env = "OPENAI_API_KEY"
base_url_env = "OPENAI_BASE_URL"
prices = "openai"
[providers.anthropic]
kind = "anthropic"
key_env = "ANTHROPIC_API_KEY"
base_url_env = "ANTHROPIC_BASE_URL"
[providers.echo]
kind = "echo"
keyless = true
serves = ["echo"]
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def private(
    request: pytest.FixtureRequest, upstream_server: Upstream, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service at level DEBUG for these tests alone, so that everything in its folder comes from them."""
    folder = tmp_path_factory.mktemp("private")
    (folder.parent / "private.toml").write_text(CATALOGUE)
    more = {"LLM_SERVICE_MODELS": str(folder.parent / "private.toml"), "WEB_CONCURRENCY": "1"}
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        more["DATABASE_URL"] = postgres.fresh_url()
    environ = settings_for(upstream_server, valkey, **more)
    environ |= {
        "OPENAI_LOG": "debug",
        "ANTHROPIC_LOG": "debug",
    }  # the SDKs' own debug logging, which includes whole requests
    with Server(folder, environ) as server:
        yield server
        assert server.stray_lines() == []


def requests() -> Iterator[tuple[str, dict[str, Any]]]:
    for route, bodies in ROUTES.items():
        both = any(word in route for word in ("/v1/m", "completions", "/v1/responses"))
        streams = [True] if "stream" in route else [False, True] if both else [False]
        for make, model, stream in itertools.product(bodies, (OPENAI, ANTHROPIC, "echo"), streams):
            yield route, make(model, stream)


def send(service: Server, route: str, body: Any, **more: Any) -> str:
    """Everything that an error reply says. Empty for a success, because its body may have content."""
    response = service.http().post(route, json=body, **more)
    if response.status_code >= 400:
        return response.text + repr(response.headers)
    if "text/event-stream" in response.headers["content-type"]:
        return "".join(line for line in response.text.splitlines() if '"error":{' in line)
    return ""


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_content_is_stored_however_a_call_ends(private: Server, upstream: Upstream, ending: str) -> None:
    upstream.always(ENDINGS[ending])
    assert private.key
    with ThreadPoolExecutor(12) as pool:
        errors = list(pool.map(lambda request: send(private, *request), requests()))
    assert [text for text in errors if MARKER in text] == []
    assert_no_content_stored(private)


def test_no_content_is_stored_when_callers_disconnect(private: Server, upstream: Upstream) -> None:
    upstream.always(Step(text=f"well {MARKER} " * 50, between=0.01, fault="hang", after=20))
    for route, body in requests():
        if body["model"] == "echo":
            continue
        with private.raw() as raw:
            raw.request("POST", route, body, private.key)
            time.sleep(0.02)
    upstream.wait_ended(5)
    assert_no_content_stored(private)


def test_no_content_is_stored_when_calls_time_out(private: Server, upstream: Upstream) -> None:
    upstream.always(Step(fault="hang", after=-1, message=MARKER))
    assert MARKER not in send(private, "/v1/complete", simple(OPENAI, False))
    assert_no_content_stored(private)


@pytest.mark.parametrize("route", ROUTES)
def test_no_content_of_bad_input_is_stored_or_reported(private: Server, route: str) -> None:
    bad: list[Any] = [
        f'{{"{MARKER}'.encode(),
        MARKER.encode(),
        f'["{MARKER}"]'.encode(),
        f'{{"model": "secret {MARKER}", "prompt": 1, "max_tokens": 1}}'.encode(),
        f'{{"model": "echo", "messages": [{{"role": "{MARKER}", "content": "{MARKER}"}}], "max_tokens": 5}}'.encode(),
        f'{{"model": "echo", "messages": "{MARKER}", "max_tokens": "{MARKER}"}}'.encode(),
        f'{{"model": "{OPENAI}", "max_tokens": 5, "messages": [{{"role": "user", "content": '.encode()
        + f'[{{"type": "{MARKER}"}}]}}]}}'.encode(),
    ]
    for body in bad:
        response = private.http().post(route, content=body, headers={"Content-Type": "application/json"})
        assert 400 <= response.status_code < 500 or MARKER not in response.text
        assert MARKER not in response.text
    no_key = private.http(key=f"lsk_{MARKER}").post(route, json=simple("echo", False))
    assert no_key.status_code == 401 and MARKER not in no_key.text
    private.http().post(f"{route}/{MARKER}?q={MARKER}", json={}, headers={"X-Request-Id": f"{MARKER} {MARKER}"})
    with private.raw() as raw:
        raw.send(f"POST /{MARKER} HTTP/9.9 {MARKER}\r\n{MARKER}\r\n\r\n".encode())
        assert MARKER.encode() not in raw.read_all()
    assert_no_content_stored(private)


def assert_no_content_stored(service: Server) -> None:
    time.sleep(0.1)  # the log's writer needs a moment
    assert service.places_with(MARKER) == []


def test_a_clean_stop_stores_no_content(private: Server) -> None:
    assert len(private.rows()) > 100
    private.stop()
    assert private.places_with(MARKER) == []
    private.start()


def test_every_route_that_takes_content_is_tested() -> None:
    app = create_app(Settings.load({}))
    taking = {rule.rule for rule in app.url_map.iter_rules() if "POST" in (rule.methods or set())}
    assert taking == set(ROUTES)
