"""The service in front of servers that nobody here wrote, asked by the official SDKs on each route."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.peers import installed
from tests.support.server import Server

pytestmark = pytest.mark.timeout(installed.INSTALL_TIMEOUT + 600)  # the first test waits for the installation

KEY = "sk-of-the-peers"
HELLO = "Hello from the mock."
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CATALOGUE = """
[defaults]
attempts = 1
[tiers.default]
[providers.peer]
kind = "openai"
key_env = "PEER_KEY"
base_url = "{url}/v1"
max_tokens_field = "max_tokens"
"""


def _litellm(folder: Path, stack: ExitStack) -> str:
    interpreter = installed.python("litellm")
    command = [str(interpreter.parent / "litellm"), "--config", str(installed.HERE / "litellm.yaml")]
    environ = {"LITELLM_MASTER_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command += ["--host", "127.0.0.1", "--port", "{port}", "--telemetry", "False"]
    return stack.enter_context(
        installed.running(command, folder / "litellm.log", "/health/liveliness", environ),
    )


def _aimock(folder: Path, stack: ExitStack) -> str:
    program = installed.node_packages() / "node_modules/@copilotkit/aimock/dist/cli.js"
    command = [str(installed.NODE), str(program), "-p", "{port}", "-f", str(installed.HERE / "aimock.json")]
    return stack.enter_context(
        installed.running([*command, "--strict", "-c", "4"], folder / "aimock.log", "/v1/models")
    )


def _llama(folder: Path, stack: ExitStack) -> str:
    # There are no wheels of llama-cpp-python in the index. Compiling it takes ten minutes and more.
    built = bool(os.environ.get("PEERS_BUILD"))
    interpreter = installed.python("llama", *([] if built else ["--only-binary", "llama-cpp-python"]))
    model = folder / "tiny.gguf"
    subprocess.run([interpreter, installed.HERE / "tiny_model.py", model], check=True, timeout=120)
    command = [str(interpreter), "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--port", "{port}", "--n_ctx", "512", "--chat_format", "chatml"]
    return stack.enter_context(installed.running(command, folder / "llama.log", "/v1/models"))


PEERS = {"litellm": _litellm, "aimock": _aimock, "llama": _llama}


@pytest.fixture(scope="module", params=PEERS)
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Server]]:
    """The name of a peer, and a service whose provider ``peer`` it is."""
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        try:
            url = PEERS[request.param](folder, stack)
        except installed.NotInstalled as problem:
            if request.param == "llama" and not os.environ.get("PEERS_BUILD"):
                pytest.skip("llama-cpp-python has no wheel for this machine; PEERS_BUILD=1 compiles it")
            raise AssertionError(str(problem)) from None
        catalogue = folder / "models.toml"
        catalogue.write_text(CATALOGUE.format(url=url))
        environ = {"LLM_SERVICE_MODELS": str(catalogue), "PEER_KEY": KEY, "WEB_CONCURRENCY": "1"}
        yield request.param, stack.enter_context(Server(folder, environ))


def chat(server: Server) -> openai.OpenAI:
    return openai.OpenAI(api_key=server.key, base_url=f"{server.url}/v1", max_retries=0)


def messages(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key=server.key, base_url=server.url, max_retries=0)


def said(name: str, text: str | None) -> bool:
    """Whether the peer said what it was asked to say. The random model says anything."""
    return text is not None and (text == HELLO or name == "llama")


def ends(name: str) -> tuple[str, ...]:
    return ("stop", "length") if name == "llama" else ("stop",)


def test_a_plain_answer_reaches_every_client(peer: tuple[str, Server]) -> None:
    name, server = peer
    ours = chat(server)
    answer = ours.chat.completions.create(
        model="peer/hello", messages=[{"role": "user", "content": "hello"}], max_tokens=9
    )
    assert said(name, answer.choices[0].message.content) and answer.choices[0].finish_reason in ends(name)
    assert answer.usage is not None and answer.usage.completion_tokens > 0
    message = messages(server).messages.create(
        model="peer/hello", messages=[{"role": "user", "content": "hello"}], max_tokens=9
    )
    assert said(name, "".join(block.text for block in message.content if block.type == "text"))
    assert message.stop_reason in ("end_turn", "max_tokens")
    response = ours.responses.create(model="peer/hello", input="hello", max_output_tokens=16, store=False)
    assert said(name, response.output_text) and response.status in ("completed", "incomplete")
    simple = server.http().post("/v1/complete", json={"model": "peer/hello", "prompt": "hello", "max_tokens": 9})
    assert simple.status_code == 200 and said(name, simple.json()["text"])


def test_a_stream_reaches_every_client(peer: tuple[str, Server]) -> None:
    name, server = peer
    ours = chat(server)
    chunks = list(
        ours.chat.completions.create(
            model="peer/hello",
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=9,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert said(name, "".join(choice.delta.content or "" for choice in choices))
    assert [choice.finish_reason for choice in choices if choice.finish_reason][-1] in ends(name)
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    with messages(server).messages.stream(
        model="peer/hello", messages=[{"role": "user", "content": "hello"}], max_tokens=9
    ) as stream:
        message = stream.get_final_message()
    assert said(name, "".join(block.text for block in message.content if block.type == "text"))
    with ours.responses.stream(model="peer/hello", input="hello", max_output_tokens=16, store=False) as events:
        kinds = [event.type for event in events]
    assert kinds[-1] in ("response.completed", "response.incomplete")
    simple = server.http().post("/v1/stream", json={"model": "peer/hello", "prompt": "hello", "max_tokens": 9})
    assert simple.text.rstrip().endswith("[DONE]")


def test_a_rate_limit_is_reported_in_the_client_s_words(peer: tuple[str, Server]) -> None:
    name, server = peer
    if name == "llama":
        pytest.skip("it has no limit")
    limited: Any = {"model": "peer/limited", "messages": [{"role": "user", "content": "limited"}], "max_tokens": 9}
    with pytest.raises(openai.RateLimitError):
        chat(server).chat.completions.create(**limited)
    with pytest.raises(openai.RateLimitError):
        list(chat(server).chat.completions.create(**limited, stream=True))
    with pytest.raises(anthropic.RateLimitError):
        messages(server).messages.create(**limited)


def test_tool_calls_reach_every_client(peer: tuple[str, Server]) -> None:
    name, server = peer
    if name != "aimock":
        pytest.skip("it cannot be asked for tool calls")
    tool: Any = {"type": "function", "function": WEATHER}
    asked: Any = {"model": "peer/tools", "messages": [{"role": "user", "content": "weather"}], "max_tokens": 99}
    cities = ['{"city":"Rome"}', '{"city":"Oslo"}']
    with chat(server).chat.completions.stream(**asked, tools=[tool]) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    assert [call.function.arguments.replace(" ", "") for call in calls] == cities
    ours: Any = {"name": "get_weather", "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}
    plain: Any = messages(server).messages.create(**asked, tools=[ours])
    with messages(server).messages.stream(**asked, tools=[ours]) as streamed:
        whole: Any = streamed.get_final_message()
    for message in (plain, whole):
        assert [block.input for block in message.content if block.type == "tool_use"] == [
            {"city": "Rome"},
            {"city": "Oslo"},
        ]
        assert message.stop_reason == "tool_use"


def test_thoughts_reach_a_client_of_messages(peer: tuple[str, Server]) -> None:
    name, server = peer
    if name != "aimock":
        pytest.skip("it does not think")
    with messages(server).messages.stream(
        model="peer/thinks", messages=[{"role": "user", "content": "think"}], max_tokens=99
    ) as stream:
        message = stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text"]


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_are_encoded_as_asked(peer: tuple[str, Server], encoding: Any) -> None:
    name, server = peer
    if name == "llama":
        pytest.skip("it was not started for embeddings")
    answer = chat(server).embeddings.with_raw_response.create(
        model="peer/embed", input="embed", encoding_format=encoding
    )
    vector = answer.http_response.json()["data"][0]["embedding"]
    assert vector == ([0.25, -0.5] if encoding == "float" else "AACAPgAAAL8=")
