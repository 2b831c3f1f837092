"""Servers that speak OpenAI's API in their own way, over the wire: content types, ends, failures and what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import orjson
import pytest

from tests.api.budget_helpers import Counters, key_with_budget
from tests.conftest import settings_for
from tests.support.server import Server
from tests.support.valkey import Valkey
from tests.upstream import Step, Upstream

MODEL, ALIAS = "compat/any", "both"
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
CATALOGUE = """
[defaults]
attempts = 2
[tiers.default]
[providers.compat]
kind = "openai"
keyless = true
base_url = "{local}"
[providers.anthropic]
kind = "anthropic"
key_env = "ANTHROPIC_API_KEY"
base_url_env = "ANTHROPIC_BASE_URL"
prices = "anthropic"
[aliases.both]
targets = ["compat/any", "anthropic/claude-haiku-4-5"]
[models."compat/*"]
max_output = 50
price = {{ input = 1, output = 10 }}
"""
CLIENTS = ["chat", "messages", "simple"]
HELLO: list[Any] = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def compat(upstream_server: Upstream, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service whose provider ``compat`` is the scripted vendor as a compatible server."""
    folder = tmp_path_factory.mktemp("compat")
    catalogue = folder / "models.toml"
    catalogue.write_text(CATALOGUE.format(local=upstream_server.compatible_url))
    environ = settings_for(upstream_server, valkey, WEB_CONCURRENCY="1", LLM_SERVICE_MODELS=str(catalogue))
    with Server(folder, environ) as server:
        yield server


def event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    return event({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more})


HI, STOP, COUNTS, DONE = chunk({"content": "Hi"}), chunk({}, "stop"), event({"usage": USAGE}), b"data: [DONE]\n\n"
WHOLE = HI + STOP + COUNTS + DONE
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "model": "any",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": USAGE,
}


def raw(body: bytes, content_type: str = "text/event-stream", **facts: Any) -> Step:
    return Step(body=body.decode("utf-8", "surrogateescape"), content_type=content_type, **facts)


def say(server: Server, client: str, model: str = MODEL, key: str | None = None) -> str:
    """The text of a streamed answer, read by the client's own SDK. Raises its error."""
    key = key or server.key
    if client == "chat":
        sdk = openai.OpenAI(api_key=key, base_url=f"{server.url}/v1", max_retries=0)
        chunks = list(sdk.chat.completions.create(model=model, messages=HELLO, stream=True))
        assert chunks[-1].choices[0].finish_reason == "stop"
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    if client == "messages":
        other = anthropic.Anthropic(api_key=key, base_url=server.url, max_retries=0)
        with other.messages.stream(model=model, max_tokens=9, messages=HELLO) as stream:
            message = stream.get_final_message()
        assert message.stop_reason == "end_turn"
        return "".join(block.text for block in message.content if block.type == "text")
    reply = server.http(key).post("/v1/stream", json={"model": model, "messages": HELLO, "max_tokens": 9})
    if "error" in reply.text or reply.status_code != 200:
        raise AssertionError(reply.text)
    assert "[DONE]" in reply.text
    return "Hi" if '"Hi"' in reply.text else reply.text


FAILURES = (openai.APIError, anthropic.APIError, AssertionError)
STREAMS = {
    "text/plain": raw(WHOLE, "text/plain"),
    "application/json": raw(WHOLE, "application/json; charset=utf-8"),
    "another charset": raw(WHOLE, "text/event-stream; charset=ISO-8859-1"),
    "no content type": raw(WHOLE, ""),
    "lines of JSON": raw(b"".join(block[6:-1] for block in (HI, STOP, COUNTS)), "application/x-ndjson"),
    "a plain answer": raw(orjson.dumps(ANSWER), "application/json"),
    "a plain answer in several lines": raw(orjson.dumps(ANSWER, option=orjson.OPT_INDENT_2), "application/json"),
    "a plain answer as an event": raw(event(ANSWER)),
    "CRLF": raw(WHOLE.replace(b"\n", b"\r\n")),
    "CR": raw(WHOLE.replace(b"\n", b"\r")),
    "a byte order mark": raw(b"\xef\xbb\xbf" + WHOLE),
    "no end marker": raw(HI + STOP + COUNTS),
    "no last blank line": raw((HI + STOP + COUNTS + DONE).rstrip()),
    "compressed": raw(WHOLE, gzip=True),
    "byte by byte": raw(WHOLE, "text/plain", split=1, chunked=True),
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("step", STREAMS.values(), ids=STREAMS)
def test_a_stream_is_read_whatever_its_content_type_says(
    compat: Server, upstream: Upstream, step: Step, client: str
) -> None:
    known = len(compat.rows())
    upstream.script(step)
    assert say(compat, client) == "Hi"
    assert len(upstream.requests) == 1
    row = compat.wait_rows(known + 1)[-1]
    assert (row["input_tokens"], row["output_tokens"], row["usage_exact"]) == (7, 2, True)


@pytest.mark.parametrize(("body", "content_type"), [(WHOLE, "text/event-stream"), (WHOLE, "application/json")])
def test_a_stream_in_the_place_of_a_plain_answer_is_read(
    compat: Server, upstream: Upstream, body: bytes, content_type: str
) -> None:
    upstream.always(raw(body, content_type))
    sdk = openai.OpenAI(api_key=compat.key, base_url=f"{compat.url}/v1", max_retries=0)
    answer = sdk.chat.completions.create(model=MODEL, messages=HELLO)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hi", "stop")
    assert answer.usage is not None and answer.usage.completion_tokens == 2
    other = anthropic.Anthropic(api_key=compat.key, base_url=compat.url, max_retries=0)
    message = other.messages.create(model=MODEL, max_tokens=9, messages=HELLO)
    assert (message.content[0].to_dict(), message.stop_reason) == ({"type": "text", "text": "Hi"}, "end_turn")
    upstream.always(raw(HI + DONE, content_type))
    with pytest.raises(openai.InternalServerError):
        sdk.chat.completions.create(model=MODEL, messages=HELLO)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "step",
    [
        raw(HI + STOP + COUNTS, fault="close", after=len(HI + STOP)),  # a close in the place of the rest
        raw(HI + STOP, chunked=True, fault="close", after=len(HI + STOP)),  # a close without the final chunk
        raw(HI),
        raw(HI + DONE),
        raw(HI + STOP + b'data: {"usage": {"prompt_'),
        raw(orjson.dumps(ANSWER)[:-1], "application/json"),
        raw(b"<html>data: </html>", "text/html"),
        raw(b"", "text/event-stream"),
    ],
)
def test_a_cut_stream_never_looks_whole(compat: Server, upstream: Upstream, step: Step, client: str) -> None:
    upstream.always(step)
    with pytest.raises(FAILURES):
        say(compat, client)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "failing",
    [
        chunk({"role": "assistant", "content": ""}) + chunk({}, "error"),
        b": processing\n\n" + event({"error": {"code": 502, "message": "no"}, "choices": []}),
        event({"choices": [{"delta": {"content": ""}, "finish_reason": "error", "error": {"code": 502}}]}),
        chunk({}, "insufficient_system_resource") + DONE,
        orjson.dumps({"error": {"code": 503, "message": "no"}}),
        orjson.dumps([{"error": {"code": 503, "message": "no", "status": "UNAVAILABLE"}}]),
        chunk({"role": "assistant"}),
    ],
)
def test_a_failure_before_the_first_text_is_tried_again_and_falls_back(
    compat: Server, upstream: Upstream, failing: bytes, client: str
) -> None:
    upstream.script(raw(failing), raw(WHOLE))
    assert say(compat, client) == "Hi"
    upstream.script(raw(failing), raw(failing), Step(pieces=["Hi"], model="claude*"))
    assert say(compat, client, ALIAS) == "Hi"
    assert len(upstream.requests) == 5


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "failing", [chunk({}, "error"), event({"error": "no"}), chunk({}, "reason_of_tomorrow") + DONE]
)
def test_a_failure_after_the_first_text_is_reported_in_band(
    compat: Server, upstream: Upstream, failing: bytes, client: str
) -> None:
    upstream.always(raw(HI + failing))
    with pytest.raises(FAILURES):
        say(compat, client, ALIAS)
    assert len(upstream.requests) == 1


def test_an_end_before_the_usage_is_whole_and_costs_what_was_held(compat: Server, upstream: Upstream) -> None:
    issued = key_with_budget(compat, 10**9)
    for number, client in enumerate(CLIENTS, 1):
        upstream.script(raw(HI + STOP))
        assert say(compat, client, key=issued.text) == "Hi"
        row = compat.wait_rows(number, key_id=issued.stored.id)[-1]
        # The output alone was held at 9 tokens, or at the model's 50, for $10 per million.
        assert row["usage_exact"] is False and row["cost_nanousd"] >= 90_000
    rows = compat.wait_rows(len(CLIENTS), key_id=issued.stored.id)
    assert Counters(compat).settled(f"key:{issued.stored.id}") == sum(row["cost_nanousd"] for row in rows)
