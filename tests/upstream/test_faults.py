"""The scripted vendor misbehaves exactly as it is scripted to."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.upstream import OPENAI_KEY, Step, Upstream
from tests.upstream.answer import DEFAULT_TEXT, words_of
from tests.upstream.conftest import CLAUDE, GPT, HELLO, claude_headers


def post(vendor: Upstream, body: dict[str, Any], path: str = "/v1/chat/completions", **headers: str) -> socket.socket:
    """Send a raw request. The caller reads the answer from the returned socket."""
    data = json.dumps(body).encode()
    sock = socket.create_connection(("127.0.0.1", int(vendor.url.rpartition(":")[2])), timeout=5)
    lines = [f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {OPENAI_KEY}", f"content-length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
    return sock


def read_all(sock: socket.socket) -> bytes:
    with sock:
        data = b""
        while piece := sock.recv(65536):
            data += piece
    return data


def test_an_error_event_is_sent_inside_the_stream(
    vendor: Upstream, claude: anthropic.Anthropic, gpt: openai.OpenAI
) -> None:
    step = Step(words=9, fault="error", after=5, status=529, message="Overloaded: {completion}")
    vendor.script(step, step)
    with pytest.raises(anthropic.APIStatusError, match="Overloaded: word1 word2") as caught:
        list(claude.messages.create(model=CLAUDE, max_tokens=9, messages=HELLO, stream=True))
    assert caught.value.type == "overloaded_error"
    with pytest.raises(openai.APIError, match="Overloaded: word1 word2"):
        list(gpt.chat.completions.create(model=GPT, messages=HELLO, stream=True))
    assert [seen.outcome for seen in vendor.requests] == ["error", "error"]
    assert [seen.billed and seen.billed.output_tokens for seen in vendor.requests] == [2, 4]


FAULTS: list[tuple[Step, Any]] = [
    (Step(fault="reset", after=-1), openai.APIConnectionError),
    (Step(fault="reset", after=0), openai.APIConnectionError),
    (Step(fault="reset", after=3), openai.APIConnectionError),
    (Step(fault="close", after=3), openai.APIConnectionError),
    (Step(fault="malformed", after=2), json.JSONDecodeError),
    (Step(fault="hang", after=3), openai.APITimeoutError),
    (Step(duplicate_length=True, body="{}"), openai.APIConnectionError),
]


@pytest.mark.parametrize(("step", "error"), FAULTS)
def test_the_sdk_sees_each_fault_as_the_expected_error(
    vendor: Upstream, gpt: openai.OpenAI, step: Step, error: Any
) -> None:
    vendor.script(step)
    with pytest.raises(error):
        list(gpt.with_options(timeout=0.3).chat.completions.create(model=GPT, messages=HELLO, stream=True))


HARMLESS = [
    Step(split=1),
    Step(newline="\r\n"),
    Step(gzip=True),
    Step(gzip=True, split=3),
    Step(interim=(100, 103)),
    Step(slow_headers=0.1),
    Step(before_headers=0.05, before_first=0.05, between=0.01),
    Step(fault="stall", after=2, pause=0.1),
    Step(headers={"x-extra": "1"}),
]


@pytest.mark.parametrize("step", HARMLESS)
def test_variations_that_http_allows_do_not_disturb_the_sdks(
    vendor: Upstream, claude: anthropic.Anthropic, gpt: openai.OpenAI, step: Step
) -> None:
    vendor.script(step, step, step)
    chunks = list(gpt.chat.completions.create(model=GPT, messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == DEFAULT_TEXT
    with claude.messages.stream(model=CLAUDE, max_tokens=99, messages=HELLO) as stream:
        assert stream.get_final_text() == DEFAULT_TEXT
    assert gpt.chat.completions.create(model=GPT, messages=HELLO).choices[0].message.content == DEFAULT_TEXT
    assert [seen.outcome for seen in vendor.requests] == ["answered"] * 3


def test_a_stream_can_end_without_its_terminal_event(vendor: Upstream) -> None:
    body = {"model": GPT, "messages": HELLO, "stream": True}
    for step, end in [
        (Step(fault="end", after=2), b"}\n\n\r\n0\r\n\r\n"),
        (Step(done=False), b"}\n\n\r\n0\r\n\r\n"),
        (Step(), b"data: [DONE]\n\n\r\n0\r\n\r\n"),
    ]:
        vendor.script(step)
        assert read_all(post(vendor, body, connection="close")).endswith(end)
    assert [seen.outcome for seen in vendor.requests] == ["end", "answered", "answered"]


def test_a_step_can_set_any_usage_value_while_the_bill_stays_true(vendor: Upstream) -> None:
    def usage(step: Step) -> Any:
        vendor.script(step)
        body = {"model": CLAUDE, "max_tokens": 99, "messages": HELLO}
        return httpx2.post(f"{vendor.url}/v1/messages", json=body, headers=claude_headers()).json().get("usage")

    assert usage(Step(usage=None)) is None
    assert usage(Step(usage={"input_tokens": -5}))["input_tokens"] == -5
    assert usage(Step(usage={"output_tokens": 1.5, "input_tokens": "absent"})).get("input_tokens") is None
    assert vendor.last.billed
    assert vendor.last.billed.output_tokens == len(words_of(DEFAULT_TEXT))


@pytest.mark.parametrize(
    "step", [Step(fault="hang", after=-1), Step(fault="hang", after=0), Step(between=0.05, words=999)]
)
def test_a_client_that_disconnects_is_noticed_at_once(vendor: Upstream, step: Step) -> None:
    vendor.script(step)
    sock = post(vendor, {"model": GPT, "messages": HELLO, "stream": True})
    vendor.wait_requests(1)
    time.sleep(0.1)
    disconnected_at = time.monotonic()
    sock.close()
    seen = vendor.wait_closed(1, timeout=1)[0]
    assert seen.gone_at
    assert seen.gone_at - disconnected_at < 0.06
    assert vendor.wait_ended(1) == [seen]


def test_connections_are_kept_alive_and_numbered(vendor: Upstream, claude: anthropic.Anthropic) -> None:
    for _ in range(3):
        claude.messages.create(model=CLAUDE, max_tokens=9, messages=HELLO)
    assert len({seen.connection for seen in vendor.requests}) == 1
    vendor.script(Step(then="close_on_next"))
    claude.messages.create(model=CLAUDE, max_tokens=9, messages=HELLO)
    with pytest.raises(anthropic.APIConnectionError):
        claude.messages.create(model=CLAUDE, max_tokens=9, messages=HELLO)
    vendor.script(Step(then="close"))
    for _ in range(2):  # the client replaces an idle connection that was closed before the next request
        claude.messages.create(model=CLAUDE, max_tokens=9, messages=HELLO)
        time.sleep(0.05)
    assert len({seen.connection for seen in vendor.requests}) == 3


def test_a_stopped_vendor_refuses_connections_until_it_is_started_again(vendor: Upstream, gpt: openai.OpenAI) -> None:
    def ask() -> Any:
        return gpt.chat.completions.create(model=GPT, messages=HELLO)

    vendor.stop()
    with pytest.raises(openai.APIConnectionError):
        ask()
    vendor.start()
    vendor.drop_connections(1)
    with pytest.raises(openai.APIConnectionError):
        ask()
    assert ask().choices
