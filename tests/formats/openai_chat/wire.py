"""OpenAI's chat requests, replies and chunks, as small as they can be."""

from __future__ import annotations

from typing import Any

import orjson

from tests.formats.examples import TURN, call

ASKED: dict[str, Any] = {"stream_options": {"include_usage": True}}


USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


DONE = b"data: [DONE]\n\n"


def body(**extra: Any) -> dict[str, Any]:
    return {"model": "m", "messages": TURN, **extra}


def chat_call(**extra: Any) -> Any:
    return call("chat", body(**extra), stream=bool(extra.get("stream")))


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **extra: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: " + orjson.dumps({"id": "c", "model": "gpt-x", "choices": choices, **extra}) + b"\n\n"


def reply_of(**extra: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "12345"}}
    return {"model": "m", "choices": [choice], "usage": USAGE, **extra}
