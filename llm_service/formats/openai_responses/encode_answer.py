"""OpenAI Responses, the client's side: the answer of another vendor in this format.

Text, refusals, tool calls and reasoning are *items* of ``output``, each with an id
that this service makes. The reasoning of another vendor travels in the field for
OpenAI's encrypted reasoning, marked with its origin (``carried``). A client must send
OpenAI's reasoning items back; when it does the same here, the vendor gets its own
reasoning again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from llm_service.core.call import Call
from llm_service.core.content import Part, RedactedThinking, Refusal, Text, Thinking, TokenLogprob, ToolCall
from llm_service.core.events import Answer, StopReason
from llm_service.core.money import as_dollars
from llm_service.core.usage import Usage
from llm_service.formats.openai_responses.encode_tool_calls import CallNames, prefix, whole_item

# Base64 has no colon, so OpenAI's own encrypted_content cannot be mistaken for this.
_CARRIED: Final = "carried:"
_REDACTED: Final = "redacted:"

# The fields of its request that a response repeats, with their values where the request does not have them.
_ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}


def carried(vendor: str, signature: str, *, redacted: bool = False) -> str:
    """The signature of a vendor's reasoning, or the whole reasoning if ``redacted``, as ``encrypted_content``."""
    return f"{_CARRIED}{vendor}:{_REDACTED if redacted else ''}{signature}"


def read_carried(encrypted: str) -> tuple[str, str, bool] | None:
    """``(vendor, signature, redacted)`` of what ``carried`` made; None for OpenAI's own reasoning."""
    if not encrypted.startswith(_CARRIED):
        return None
    vendor, _, signature = encrypted.removeprefix(_CARRIED).partition(":")
    return vendor, signature.removeprefix(_REDACTED), signature.startswith(_REDACTED)


def text_part(text: str, logprobs: Iterable[TokenLogprob] = ()) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": write_logprobs(logprobs)}


def write_logprobs(logprobs: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    return [{**_write_token(token), "top_logprobs": [_write_token(other) for other in token.top]} for token in logprobs]


def _write_token(token: TokenLogprob) -> dict[str, Any]:
    """``bytes`` is a list in this format, and empty where the vendor sent none."""
    return {"token": token.token, "bytes": list(token.bytes or ()), "logprob": token.logprob}


def refusal_part(text: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": text}


def message_item(id: str, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": content}


def reasoning_item(id: str, text: str, encrypted: str | None = None) -> dict[str, Any]:
    item: dict[str, Any] = {"id": id, "type": "reasoning", "summary": [summary_part(text)] if text else []}
    return {**item, "encrypted_content": encrypted} if encrypted else item


def summary_part(text: str) -> dict[str, Any]:
    return {"type": "summary_text", "text": text}


def item_id(call: Call, kind: str, index: int) -> str:
    """The id of output item ``index``; ``kind`` is OpenAI's prefix."""
    return f"{kind}_{call.id}_{index}"


def output_of(
    call: Call, parts: Iterable[Part], status: str, logprobs: Sequence[TokenLogprob] = ()
) -> list[dict[str, Any]]:
    """The parts of a whole answer as output items. Parts of text that follow each other make one message.

    ``status`` is the status of the answer: a last message may have been cut. ``logprobs``
    are the tokens of the answer; the first part of text gets them.
    """
    output: list[dict[str, Any]] = []
    names = CallNames(call)
    for part in parts:
        index = len(output)
        match part:
            case Text(text):
                if _add_text(call, output, text_part(text, logprobs), "text"):
                    logprobs = ()
            case Refusal(text):
                _add_text(call, output, refusal_part(text), "refusal")
            case ToolCall():
                tool = names.of(part.name)
                output.append(whole_item(item_id(call, prefix(tool), index), part, tool))
            case Thinking(text, signature, vendor):
                encrypted = carried(vendor, signature) if signature else None
                output.append(reasoning_item(item_id(call, "rs", index), text, encrypted))
            case RedactedThinking(data, vendor):
                encrypted = carried(vendor, data, redacted=True)
                output.append(reasoning_item(item_id(call, "rs", index), "", encrypted))
    if output and output[-1]["type"] == "message":
        output[-1]["status"] = status
    return output


def _add_text(call: Call, output: list[dict[str, Any]], part: dict[str, Any], name: str) -> bool:
    """Add a part of a message to the last message, or as a new one. Returns whether the part has text."""
    if not part[name]:
        return False
    if not output or output[-1]["type"] != "message":
        output.append(message_item(item_id(call, "msg", len(output)), [], "completed"))
    content = output[-1]["content"]
    if content and content[-1]["type"] == part["type"]:
        content[-1][name] += part[name]
    else:
        content.append(part)
    return True


def usage_object(usage: Usage, cost_nanousd: int | None) -> dict[str, Any]:
    """The vendor's usage with two fields of this service: ``cost_usd``, and ``exact`` if the counts are estimates."""
    written = {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "cost_usd": as_dollars(cost_nanousd),
    }
    return written if usage.exact else {**written, "exact": False}


def ending(stop_reason: StopReason | None, *, refused: bool = False) -> tuple[str, dict[str, Any] | None]:
    """The status and the ``incomplete_details`` of an answer.

    ``refused``: the model gave its refusal in words, so the answer is complete.
    """
    if stop_reason == "max_tokens":
        return "incomplete", {"reason": "max_output_tokens"}
    if stop_reason == "refusal" and not refused:
        return "incomplete", {"reason": "content_filter"}
    return "completed", None


def _echo(given: Any, default: Any) -> Any:
    """What the response repeats of a field. An object has all members of the default: strict clients require them."""
    if given is None:
        return default
    if isinstance(given, dict) and isinstance(default, dict):
        return {**default, **{name: value for name, value in given.items() if value is not None}}
    return given


def response_object(call: Call, model: str, status: str, output: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """The whole response, finished or not. ``fields`` replace those of a new response."""
    echoed = {name: _echo(call.body.get(name), default) for name, default in _ECHOED.items()}
    return {**_response(call, model, status, output), **echoed, **fields}


def failed_response(call: Call, model: str, error: Mapping[str, Any]) -> dict[str, Any]:
    """The response of a stream that failed. It holds nothing of the request and nothing of the answer."""
    return {**_response(call, model, "failed", []), **_ECHOED, "error": error}


def _response(call: Call, model: str, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"resp_{call.id}",
        "object": "response",
        "created_at": call.created,
        "status": status,
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": model or call.model,
        "output": output,
        "previous_response_id": None,
        "store": False,
        "usage": None,
    }


def final_response(call: Call, model: str, answer: Answer, output: list[dict[str, Any]]) -> dict[str, Any]:
    """The response of a finished answer."""
    refused = any(part["type"] == "refusal" for item in output for part in item.get("content", ()))
    status, details = ending(answer.stop_reason, refused=refused)
    return response_object(
        call,
        model,
        status,
        output,
        incomplete_details=details,
        completed_at=call.created if status == "completed" else None,
        service_tier=answer.usage.tier or "default",
        usage=usage_object(answer.usage, answer.cost_nanousd),
    )


def write_answer(call: Call, answer: Answer) -> dict[str, Any]:
    """The reply's JSON object. A verbatim one is the vendor's own with ``usage.cost_usd`` added."""
    if answer.body is not None:
        return with_cost(answer.body, answer.cost_nanousd)
    refused = any(type(part) is Refusal and part.text for part in answer.parts)
    status, _ = ending(answer.stop_reason, refused=refused)
    output = output_of(call, answer.parts, status, answer.logprobs)
    return final_response(call, answer.model, answer, output)


def with_cost(body: Mapping[str, Any], cost_nanousd: int | None) -> dict[str, Any]:
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return dict(body)
    return {**body, "usage": {**usage, "cost_usd": as_dollars(cost_nanousd)}}
