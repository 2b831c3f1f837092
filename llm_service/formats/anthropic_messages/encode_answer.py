"""Anthropic Messages, the client's side: plain answers for the client."""

from __future__ import annotations

from typing import Any

import orjson

from llm_service.core.call import Call
from llm_service.core.content import Part, RedactedThinking, Refusal, Text, Thinking, ToolCall
from llm_service.core.events import (
    Answer,
)
from llm_service.core.usage import Usage
from llm_service.formats import reasoning, tool_calls


def usage_object(usage: Usage) -> dict[str, Any]:
    """The usage in Anthropic's counts: ``input_tokens`` does not include the tokens that the cache read or wrote."""
    written: dict[str, Any] = {
        "input_tokens": max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.reasoning_tokens:
        written["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if usage.tier in ("", "priority") and usage.exact:
        written["service_tier"] = usage.tier or "standard"
    return written


def stop_fields(answer: Answer, explanation: str | None) -> dict[str, Any]:
    """The fields that say why the answer ended. ``explanation`` is the model's reason for a refusal."""
    reason = answer.stop_reason
    stop: dict[str, Any] = {
        "stop_reason": "end_turn" if reason is None or reason == "other" else reason,
        "stop_sequence": answer.stop_sequence,
    }
    if reason == "refusal":
        stop["stop_details"] = {"type": "refusal", "category": None, "explanation": explanation}
    return stop


def write_answer(call: Call, answer: Answer) -> dict[str, Any]:
    """The JSON object of the answer. A verbatim answer is the vendor's own object."""
    if answer.body is not None:
        return dict(answer.body)
    refusals = [part.text for part in answer.parts if type(part) is Refusal]
    blocks = (_block(part, answer) for part in answer.parts)
    return {
        "id": f"msg_{call.id}",
        "type": "message",
        "role": "assistant",
        "model": answer.model or call.model,
        "content": [block for block in blocks if block is not None],
        **stop_fields(answer, "".join(refusals) or None),
        "usage": usage_object(answer.usage),
    }


def _block(part: Part, answer: Answer) -> dict[str, Any] | None:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Refusal(text):  # the model's own words; stop_details say that they refuse
            return {"type": "text", "text": text} if text else None
        case ToolCall(id, name, arguments):
            if answer.stop_reason == "max_tokens" and not tool_calls.is_arguments(arguments):
                return None  # max_tokens cut off the arguments, and this format cannot express a part of them
            given = orjson.loads(arguments) if arguments.strip() else {}
            return {"type": "tool_use", "id": id, "name": name, "input": given}
        case Thinking(text, signature, vendor):
            return {"type": "thinking", "thinking": text, "signature": reasoning.sign(signature, vendor)}
        case RedactedThinking(data, vendor):
            return {"type": "redacted_thinking", "data": reasoning.sign(data, vendor)}
    return None
