"""Minimal requests, answers and events of OpenAI's Responses API."""

from __future__ import annotations

from typing import Any

import orjson

from llm_service.core.call import Call
from tests.formats.examples import call

USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 12,
}


def body(**extra: Any) -> dict[str, Any]:
    return {"model": "m", "input": "Hello", **extra}


def responses_call(**extra: Any) -> Call:
    return call("responses", body(**extra), stream=bool(extra.get("stream")))


def message(text: str = "Hi there", id: str = "msg_1", **extra: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": id, "type": "message", "role": "assistant", "status": "completed", "content": [part], **extra}


def tool_call(arguments: str = '{"q":1}', number: int = 1) -> dict[str, Any]:
    names = {"id": f"fc_{number}", "call_id": f"call_{number}", "name": "look"}
    return {"type": "function_call", "status": "completed", "arguments": arguments, **names}


def reasoning(*texts: str, encrypted: str | None = "gAAAA", id: str = "rs_1") -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": text} for text in texts]
    return {"id": id, "type": "reasoning", "summary": summary, "encrypted_content": encrypted}


def response(*output: dict[str, Any], status: str = "completed", **extra: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "gpt-5",
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": USAGE,
        **extra,
    }


def event(kind: str, **fields: Any) -> bytes:
    data = orjson.dumps({"type": kind, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


CREATED = event("response.created", response=response(status="in_progress", usage=None))


def completed(*output: dict[str, Any], status: str = "completed", **extra: Any) -> bytes:
    return event(f"response.{status}", response=response(*output, status=status, **extra))


def added(index: int, item: dict[str, Any]) -> bytes:
    return event("response.output_item.added", output_index=index, item=item)


def done(index: int, item: dict[str, Any]) -> bytes:
    return event("response.output_item.done", output_index=index, item=item)


def delta(index: int, text: str, kind: str = "response.output_text.delta", **extra: Any) -> bytes:
    return event(kind, output_index=index, delta=text, **extra)


def arguments(index: int, text: str) -> bytes:
    return delta(index, text, "response.function_call_arguments.delta")
