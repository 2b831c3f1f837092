"""Which fields of ``/v1/responses`` reach a model that only chat completions serve. The client is OpenAI's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from tests.conftest import settings_for
from tests.contract.cases import CLAUDE, frames
from tests.support.server import Server
from tests.support.valkey import Valkey
from tests.upstream import Step, Upstream

CATALOGUE = """
[tiers.default]
[providers.hosted]
kind = "openai"
key_env = "OPENAI_API_KEY"
base_url_env = "OPENAI_BASE_URL"
responses = false
[providers.older]
kind = "openai"
base_url = "{url}"
keyless = true
responses = false
max_tokens_field = "max_tokens"
[providers.anthropic]
kind = "anthropic"
key_env = "ANTHROPIC_API_KEY"
base_url_env = "ANTHROPIC_BASE_URL"
"""
HOSTED, OLDER = "hosted/gpt-4o-mini", "older/llama"
LOGPROBS: Any = ["message.output_text.logprobs"]
# The same words in both APIs of OpenAI.
SAME: dict[str, Any] = {
    "metadata": {"team": "blue"},
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "safety_identifier": "ann",
    "service_tier": "flex",
    "temperature": 0.5,
    "top_p": 0.9,
}
both = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture(scope="module")
def chat_only(upstream_server: Upstream, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service whose OpenAI models have no ``/v1/responses``."""
    folder = tmp_path_factory.mktemp("chat_only")
    (folder / "models.toml").write_text(CATALOGUE.format(url=upstream_server.compatible_url))
    environ = settings_for(upstream_server, valkey, WEB_CONCURRENCY="1")
    with Server(folder, {**environ, "LLM_SERVICE_MODELS": str(folder / "models.toml")}) as server:
        yield server


@pytest.fixture(scope="module")
def client(chat_only: Server) -> openai.OpenAI:
    return chat_only.openai()


def respond(client: openai.OpenAI, stream: bool, **asked: Any) -> tuple[Response, str | None]:
    """The response and the names of the dropped fields. The SDK's own helper puts a streamed response together."""
    raw: Any = client.responses.with_raw_response.create(**asked, stream=stream)
    parsed, dropped = raw.parse(), raw.headers.get("x-dropped-parameters")
    return (list(parsed)[-1].response if stream else parsed), dropped


@both
def test_fields_that_chat_has_reach_the_vendor_in_chat_s_shape(
    client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Step(text="Hi there"))
    reply, dropped = respond(
        client,
        stream,
        model=HOSTED,
        input="Hello",
        text={"verbosity": "low"},
        include=LOGPROBS,
        top_logprobs=2,
        extra_body={"seed": 7, "frequency_penalty": 0.5, "presence_penalty": 0.25, "logit_bias": {"5": 1}},
        **SAME,
    )
    assert (reply.output_text, dropped) == ("Hi there", None)
    assert upstream.last.path == "/v1/chat/completions"
    written = {"verbosity": "low", "logprobs": True, "top_logprobs": 2, "seed": 7, "logit_bias": {"5": 1}}
    written |= {"frequency_penalty": 0.5, "presence_penalty": 0.25}
    expected = {**SAME, **written}
    assert {name: upstream.last.body.get(name) for name in expected} == expected
    assert not {"text", "include", "input"} & set(upstream.last.body)
    assert reply.metadata == SAME["metadata"]


@both
@pytest.mark.parametrize(
    "asked", [{"include": LOGPROBS, "top_logprobs": 2}, {"top_logprobs": 2}, {"include": LOGPROBS}]
)
def test_log_probabilities_come_back_in_output_text(
    client: openai.OpenAI, upstream: Upstream, stream: bool, asked: dict[str, Any]
) -> None:
    upstream.script(Step(pieces=["Hi", " the", "re"]))
    reply, dropped = respond(client, stream, model=HOSTED, input="Hello", **asked)
    assert dropped is None
    part: Any = reply.output[0].content[0]  # type: ignore[union-attr, index]
    tokens = part.logprobs
    assert "".join(token.token for token in tokens) == part.text == "Hi there"
    assert b"".join(bytes(token.bytes) for token in tokens) == b"Hi there"
    assert all(token.logprob < 0 for token in tokens)
    assert {len(token.top_logprobs) for token in tokens} == {asked.get("top_logprobs", 0)}
    if asked.get("top_logprobs"):
        assert [token.top_logprobs[0].token for token in tokens] == [token.token for token in tokens]


def test_every_delta_of_a_stream_has_its_own_tokens(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(pieces=["Hi", " the", "re"]))
    pairs, done = [], None
    for event in client.responses.create(model=HOSTED, input="Hello", include=LOGPROBS, stream=True):
        if event.type == "response.output_text.delta":
            pairs.append((event.delta, [token.token for token in event.logprobs]))
        if event.type == "response.output_text.done":
            done = [token.token for token in event.logprobs]
    assert [delta for delta, _ in pairs] == ["Hi", " the", "re"]
    assert all("".join(tokens) == delta for delta, tokens in pairs)
    assert done == [token for _, tokens in pairs for token in tokens]


def test_the_stream_helper_reads_log_probabilities(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(text="Hi there"))
    with client.responses.stream(model=HOSTED, input="Hello", include=LOGPROBS) as stream:
        final: Any = stream.get_final_response()
    assert final.output_text == "Hi there"
    assert "".join(token.token for token in final.output[0].content[0].logprobs) == "Hi there"


def test_without_asking_there_are_no_log_probabilities(chat_only: Server, upstream: Upstream) -> None:
    body = {"model": HOSTED, "input": "Hello", "top_logprobs": 0}
    plain = chat_only.http().post("/v1/responses", json=body).json()
    assert plain["output"][0]["content"][0]["logprobs"] == []
    assert "logprobs" not in upstream.last.body
    events = [frame.json for frame in frames(chat_only, "/v1/responses", {**body, "stream": True})]
    assert all(event.get("logprobs", []) == [] for event in events)


@both
def test_an_older_server_gets_the_fields_it_knows_and_the_others_are_named(
    client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Step(text="Hi there"))
    reply, dropped = respond(
        client, stream, model=OLDER, input="Hello", extra_body={"seed": 7}, text={"verbosity": "low"}, **SAME
    )
    assert reply.output_text == "Hi there"
    assert upstream.last.body["seed"] == 7
    assert upstream.last.body["user"] == "ann"
    assert set((dropped or "").replace(" ", "").split(",")) == {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "service_tier",
        "text.verbosity",
    }


@pytest.mark.parametrize("model", [HOSTED, OLDER])
def test_a_limit_for_openai_s_own_tools_is_dropped_and_named(
    client: openai.OpenAI, upstream: Upstream, model: str
) -> None:
    _, dropped = respond(client, False, model=model, input="Hello", max_tool_calls=3)
    assert dropped == "max_tool_calls"
    assert "max_tool_calls" not in upstream.last.body


REJECTED: list[tuple[dict[str, Any], str]] = [
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"store": True}, "store"),
    ({"n": 2}, "n"),
    ({"field_of_nobody": 1}, "field_of_nobody"),
]


@pytest.mark.parametrize(("extra", "param"), REJECTED)
@pytest.mark.parametrize("model", [HOSTED, CLAUDE])
def test_a_field_without_a_counterpart_is_rejected_by_its_name(
    client: openai.OpenAI, upstream: Upstream, model: str, extra: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/responses", body={"model": model, "input": "Hello", **extra}, cast_to=object)
    assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("extra", "param"),
    [({"include": LOGPROBS}, "include[0]"), ({"top_logprobs": 2}, "top_logprobs"), ({"moderation": {}}, "moderation")],
)
def test_claude_rejects_what_only_openai_s_models_have(
    client: openai.OpenAI, upstream: Upstream, extra: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=CLAUDE, input="Hello", **extra)
    assert caught.value.param == param
    assert upstream.requests == []


def test_claude_drops_and_names_hints(client: openai.OpenAI, upstream: Upstream) -> None:
    hints: dict[str, Any] = {"metadata": {"a": "b"}, "prompt_cache_key": "k", "text": {"verbosity": "low"}}
    _, dropped = respond(client, False, model=CLAUDE, input="Hello", **hints)
    assert set((dropped or "").replace(" ", "").split(",")) == {"metadata", "prompt_cache_key", "text.verbosity"}
    assert not {"prompt_cache_key", "verbosity"} & set(upstream.last.body)


@both
@pytest.mark.parametrize("model", [HOSTED, OLDER, CLAUDE])
def test_what_only_openai_reads_is_dropped_and_named(
    client: openai.OpenAI, upstream: Upstream, model: str, stream: bool
) -> None:
    hints: dict[str, Any] = {
        "access_programs": [],
        "client_metadata": {"turn": "1"},
        "context_management": [{"type": "compaction", "compact_threshold": 1000}],
        "image": {"context_compression": "auto"},
        "include": ["web_search_call.action.sources"],
        "max_tool_calls": 3,
        "reasoning": {"context": "all_turns", "hint_of_tomorrow": 1},
        "request_country": "IS",
        "tools": [{"type": "web_search", "external_web_access": False}],
        "truncation": "auto",
    }
    silent: dict[str, Any] = {"background": False, "conversation": None, "prompt": None, "store": False}
    _, dropped = respond(client, stream, model=model, input="Hello", extra_body={**hints, **silent})
    named = {*hints, "reasoning.context", "reasoning.hint_of_tomorrow", "tools[].web_search"} - {"reasoning", "tools"}
    assert set((dropped or "").replace(" ", "").split(",")) == named
    assert not {*hints, *silent} - {"store"} & set(upstream.last.body)
