"""The smallest requests, answers and stream events in Anthropic's format."""

from __future__ import annotations

from typing import Any

import orjson

from tests.formats.examples import TURN, call, target


def body(**extra: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 10, "messages": TURN, **extra}


def claude(**facts: Any) -> Any:
    """A target with a Claude model that has sampling and no thinking."""
    return target("anthropic", "claude-haiku-4-5", **{"max_output": 64_000, **facts})


def messages_call(**extra: Any) -> Any:
    return call("messages", body(**extra), stream=bool(extra.get("stream")))


def reply_of(**extra: Any) -> dict[str, Any]:
    content = [
        {"type": "thinking", "thinking": "1234", "signature": "s"},
        {"type": "text", "text": "12345"},
        {"type": "text", "text": "678"},
    ]
    usage = {"input_tokens": 7, "output_tokens": 2}
    return {"type": "message", "model": "m", "content": content, "stop_reason": "end_turn", "usage": usage, **extra}


def event(kind: str, **facts: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **facts}) + b"\n\n"


def start(**usage: Any) -> bytes:
    return event("message_start", message={"model": "claude-x", "usage": usage or {"input_tokens": 7}})


def block_start(index: int = 0, **block: Any) -> bytes:
    return event("content_block_start", index=index, content_block=block or {"type": "text", "text": ""})


def text(text: Any, index: int = 0) -> bytes:
    return event("content_block_delta", index=index, delta={"type": "text_delta", "text": text})


def stop(reason: Any = "end_turn", **usage: Any) -> bytes:
    return event("message_delta", delta={"stop_reason": reason}, usage=usage or {"output_tokens": 2})


BLOCK_STOP = event("content_block_stop", index=0)


END = event("message_stop")
