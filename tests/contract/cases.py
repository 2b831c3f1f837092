"""Requests, recordings and checks that the tests of the official clients share."""

from __future__ import annotations

import json
from typing import Any

import anthropic

from tests.support.server import Server
from tests.support.sse import Frame, read_sse
from tests.upstream import SeenRequest, Step
from tests.upstream.replay import FIXTURES

GPT, CLAUDE, ECHO = "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5", "echo/echo"
VENDORS = [GPT, CLAUDE]
HELLO: Any = [{"role": "user", "content": "Hi"}]

# Values that a body must not lose on its way: types, extreme numbers, escapes and text that is not English.
AWKWARD: dict[str, Any] = {
    "numbers": [0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 0.1, 1e-7, 1e300, -0.5],
    "texts": ["", "naïve", "日本語", "🦓", '\u2028 \\ " / \t\n', "null", "\u0000"],
    "empty": [None, {}, [], False],
    "Übergröße": {"a b": 1, "": 2},
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def messages_request(**more: Any) -> dict[str, Any]:
    """A request for Claude in Anthropic's format, with other or more fields."""
    return {"model": CLAUDE, "max_tokens": 100, "messages": HELLO, **more}


def error_param(error: anthropic.APIStatusError) -> Any:
    """The field that an error names in Anthropic's format."""
    body: Any = error.body
    return body["error"]["details"]["param"]


def failing(status: int, **more: Any) -> Step:
    """An error that the service passes on at once: it asks for a longer wait than the service accepts."""
    return Step(status=status, headers={"retry-after": "30"}, **more)


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def recordings(folder: str, ending: str) -> list[str]:
    """The names of the recorded files in a folder."""
    names = sorted(path.relative_to(FIXTURES).as_posix() for path in (FIXTURES / folder).glob(f"*{ending}"))
    assert names
    return names


def frames(service: Server, path: str, body: dict[str, Any], **headers: str) -> list[Frame]:
    """The frames of a streamed answer. Checks the headers too."""
    with service.http().stream("POST", path, json=body, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        return list(read_sse(response))


def blocks(stream: bytes) -> list[bytes]:
    """The blocks of a recorded stream, without blank lines."""
    return [block.strip(b"\n") for block in stream.replace(b"\r\n", b"\n").split(b"\n\n") if block.strip()]


def assert_no_header_of_the_caller_was_sent(seen: SeenRequest, key: str) -> None:
    """Check that the vendor got neither the caller's key nor the values of the caller's headers."""
    sent = json.dumps(seen.headers)
    for word in (key, "callers-own", "x-request-id", "x-forwarded", "x-real-ip", "x-api-key"):
        assert word not in sent.lower(), word


CALLERS_HEADERS = {
    "X-Request-Id": "callers-own-request",
    "X-Forwarded-For": "203.0.113.9",
    "X-Real-Ip": "203.0.113.9",
    "Cookie": "session=callers-own",
    "OpenAI-Organization": "callers-own",
    "OpenAI-Project": "callers-own",
    "Idempotency-Key": "callers-own",
    "User-Agent": "callers-own",
}
