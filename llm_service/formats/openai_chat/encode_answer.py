"""OpenAI Chat Completions, the client's side: an answer as a reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_service.core.call import Call
from llm_service.core.content import RedactedThinking, Refusal, Text, Thinking, TokenLogprob, ToolCall
from llm_service.core.events import (
    Answer,
    StopReason,
)
from llm_service.core.money import as_dollars
from llm_service.core.usage import Usage
from llm_service.formats import reasoning
from llm_service.formats.openai_chat.encode_tool_calls import CallWriter
from llm_service.formats.openai_chat.schema import THINKING

FINISH_REASONS: Mapping[str | None, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def usage_object(usage: Usage, cost_nanousd: int | None) -> dict[str, Any]:
    """OpenAI's usage object with two fields of our own: ``cost_usd``, and ``exact: false`` if counts are estimated."""
    written = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "cost_usd": as_dollars(cost_nanousd),
    }
    return written if usage.exact else {**written, "exact": False}


def write_answer(call: Call, answer: Answer) -> dict[str, Any]:
    """The reply's JSON object. A verbatim reply is the vendor's own object with ``usage.cost_usd`` added."""
    if answer.body is not None:
        return with_cost(answer.body, answer.cost_nanousd)
    said = [part.text for part in answer.parts if type(part) is Text]
    refused = [part.text for part in answer.parts if type(part) is Refusal]
    calls = [part for part in answer.parts if type(part) is ToolCall]
    thoughts = [part for part in answer.parts if isinstance(part, Thinking | RedactedThinking)]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(said) if said or not (calls or refused) else None,
        "refusal": "".join(refused) if refused else None,
        "annotations": [],
    }
    writer = CallWriter(call)
    message |= writer.message(calls)
    if thoughts:
        message[THINKING] = [thought(part) for part in thoughts]
    finish_reason = finish_reason_of(answer.stop_reason, explained=bool(refused and not said), older=writer.older)
    return {
        "id": f"chatcmpl-{call.id}",
        "object": "chat.completion",
        "created": call.created,
        "model": answer.model or call.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": logprobs_object(answer.logprobs),
                "finish_reason": finish_reason,
            }
        ],
        "usage": usage_object(answer.usage, answer.cost_nanousd),
        **service_tier_of(answer),
        "system_fingerprint": None,
    }


def logprobs_object(tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """A choice's ``logprobs``; None without tokens."""
    if not tokens:
        return None
    content = [
        {**_logprob_object(token), "top_logprobs": [_logprob_object(other) for other in token.top]} for token in tokens
    ]
    return {"content": content, "refusal": None}


def _logprob_object(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.logprob, "bytes": None if token.bytes is None else [*token.bytes]}


def finish_reason_of(reason: StopReason | None, *, explained: bool, older: bool) -> str:
    """The ``finish_reason`` for a stop reason.

    A refusal that consists of the model's own words (``explained``) is a plain stop at OpenAI. Any other refusal is
    ``content_filter``, because the text before it must not look complete. A call of the ``older`` form has its own.
    """
    if older and reason == "tool_use":
        return "function_call"
    return "stop" if explained and reason == "refusal" else FINISH_REASONS.get(reason, "stop")


def thought(part: Thinking | RedactedThinking) -> dict[str, Any]:
    """Reasoning as an item of our own field ``claude_thinking``. The client sends it back unchanged."""
    if isinstance(part, Thinking):
        signature = reasoning.sign(part.signature, part.vendor)
        return {"type": "thinking", "thinking": part.text, "signature": signature}
    return {"type": "redacted_thinking", "data": reasoning.sign(part.data, part.vendor)}


def service_tier_of(answer: Answer) -> dict[str, str]:
    """The service tier that processed the answer, if OpenAI has one of that name."""
    tier = answer.usage.tier or "default"
    return {"service_tier": tier} if tier in ("default", "flex", "scale", "priority", "fast") else {}


def with_cost(body: Mapping[str, Any], cost_nanousd: int | None) -> dict[str, Any]:
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return dict(body)
    return {**body, "usage": {**usage, "cost_usd": as_dollars(cost_nanousd)}}
