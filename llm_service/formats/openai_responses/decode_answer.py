"""OpenAI Responses, the upstream's side: bodies forwarded, plain answers and errors in.

As with chat, "upstream" is any server that speaks the API: nothing here trusts
counts or completeness.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_service.core.call import Call
from llm_service.core.content import Part, RedactedThinking, Refusal, Text, Thinking, ToolCall
from llm_service.core.errors import (
    UpstreamError,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
)
from llm_service.core.events import Answer, StopReason
from llm_service.core.usage import Usage
from llm_service.formats import decoding as upstream
from llm_service.formats import tool_calls as tools
from llm_service.formats.decoding import Counts, VendorError, broken
from llm_service.formats.openai_chat import decode_answer as chat_upstream
from llm_service.formats.openai_responses.decode_messages import own_signature
from llm_service.formats.openai_responses.schema import NAME

_IN_BAND: upstream.Kinds = (
    (UpstreamQuotaExhausted, frozenset({"insufficient_quota", "credit_balance_exhausted"})),
    (UpstreamRateLimited, frozenset({"rate_limit_exceeded", "rate_limit_error"})),
    (UpstreamOverloaded, frozenset({"server_is_overloaded", "slow_down", "service_unavailable_error"})),
    (UpstreamFailed, frozenset({"server_error", "vector_store_timeout", "failed_to_download_image"})),
    (UpstreamRejected, frozenset({"invalid_request_error", "invalid_prompt", "bio_policy", "image_file_not_found"})),
    (UpstreamRejected, frozenset({"data_residency_mismatch", "misalignment_policy_violation"})),
)
_INCOMPLETE: Mapping[str, StopReason] = {"max_output_tokens": "max_tokens", "content_filter": "refusal"}
# A background answer is told before it is made.
_AHEAD = ("queued", "in_progress")
_TOOL_CALLS = ("function_call", "custom_tool_call")

read_error = chat_upstream.read_error


# The text of a reasoning summary's parts, put together.
BETWEEN = "\n\n"


def read_answer(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer. Raises UpstreamBroken when it is none, or has something that was not asked for."""
    check_answer(body)
    if body["status"] not in ("completed", "incomplete"):
        broken("it is not finished")
    for item in body["output"]:
        if item.get("type") == "function_call":
            check_call(item, call, cut=body["status"] == "incomplete")
    return Answer(
        usage=usage_of(body, call, characters_of(body["output"])),
        stop_reason=stop_reason(body),
        parts=tuple(part for item in body["output"] for part in parts(item)),
        model=upstream.model_name(body.get("model")),
    )


def parts(item: Mapping[str, Any]) -> Iterator[Part]:
    match item.get("type"):
        case "message":
            for part in items(item.get("content")):
                if part.get("type") == "refusal":
                    yield Refusal(string(part, "refusal"))
                elif text := string(part, "text"):
                    yield Text(text)
        case "function_call":
            yield ToolCall(*called(item), string(item, "arguments"))
        case "reasoning":
            thinking = thought(item)
            if thinking is not None:
                yield thinking
        case _:
            broken("it has an item that was not asked for")


def check_call(item: Mapping[str, Any], call: Call | None, *, cut: bool) -> None:
    """Raises UpstreamBroken for a tool that was not offered, and for arguments that are no JSON object unless
    the answer was ``cut`` in them."""
    if not upstream.has_tools(call):
        broken("it calls a tool that it was not given")
    if not cut and not tools.is_arguments(string(item, "arguments")):
        broken("a tool call's arguments are not a JSON object")


def called(item: Mapping[str, Any]) -> tuple[str, str]:
    id, name = string(item, "call_id"), string(item, "name")
    if not id or not name:
        broken("a tool call has no id or no name")
    return id, name


def string(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if type(value) is not str:
        broken(f"a {name} is not a string")
    return value


def thought(item: Mapping[str, Any]) -> Thinking | RedactedThinking | None:
    """A reasoning item; without a summary only OpenAI can read it."""
    texts = [string(part, "text") for part in (*items(item.get("summary")), *items(item.get("content")))]
    encrypted = item.get("encrypted_content")
    signature = own_signature(item.get("id"), encrypted) if type(encrypted) is str and encrypted else ""
    if any(texts):
        return Thinking(BETWEEN.join(texts), signature, NAME)
    return RedactedThinking(signature, NAME) if signature else None


def read_usage(given: Any, characters: int, call: Call | None, service_tier: Any = None, output: Any = None) -> Usage:
    """The vendor's usage object, estimated where it is missing or cannot be believed.

    ``service_tier`` and ``output`` are the answer's: how it was billed, and the items with its searches.
    """
    counts = Counts(given)
    prompt = counts.required("input_tokens", upstream.estimated_input(call))
    answer = counts.required("output_tokens", upstream.estimated_output(characters))
    cached = counts.optional("input_tokens_details", "cached_tokens", most=prompt)
    return Usage(
        prompt,
        answer,
        cached,
        counts.optional("input_tokens_details", "cache_write_tokens", most=prompt - cached),
        reasoning_tokens=counts.optional("output_tokens_details", "reasoning_tokens", most=answer),
        exact=counts.exact,
        web_searches=min(sum(map(_is_search, items(output))), upstream.MOST_SEARCHES),
        tier=upstream.tier(service_tier),
    )


def _is_search(item: Mapping[str, Any]) -> bool:
    """Opening a page that was found costs nothing."""
    action = item.get("action")
    kind = action.get("type") if isinstance(action, dict) else "search"
    return item.get("type") == "web_search_call" and kind == "search"


def items(output: Any) -> Iterable[dict[str, Any]]:
    """The items of an answer's ``output``, whatever it is."""
    return [item for item in output if isinstance(item, dict)] if isinstance(output, list) else ()


def usage_of(response: Mapping[str, Any], call: Call | None, characters: int) -> Usage:
    """The usage of a response object."""
    return read_usage(response.get("usage"), characters, call, response.get("service_tier"), response.get("output"))


def check_answer(body: Mapping[str, Any]) -> None:
    """Raises UpstreamBroken when ``body`` is no response, and the error that it holds as an UpstreamError."""
    if body.get("error"):
        raise in_band(body)
    output, status = body.get("output"), body.get("status")
    if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
        broken("it has no output")
    if not isinstance(status, str):
        broken("it has no status")
    if status in ("failed", "cancelled"):
        raise in_band(body)


def is_ahead(body: Mapping[str, Any]) -> bool:
    """Whether a response is told before it is made (``background``)."""
    return body.get("status") in _AHEAD


def stop_reason(response: Mapping[str, Any]) -> StopReason:
    """There is none in the format: a tool call is an item, and a cut answer has a status."""
    if response.get("status") == "incomplete":
        details = response.get("incomplete_details")
        return _INCOMPLETE.get(str(details.get("reason")) if isinstance(details, dict) else "", "other")
    if any(item.get("type") in _TOOL_CALLS for item in items(response.get("output"))):
        return "tool_use"
    if any(
        part.get("type") == "refusal" for item in items(response.get("output")) for part in items(item.get("content"))
    ):
        return "refusal"
    return "other" if is_ahead(response) else "end_turn"


def characters_of(output: Any) -> int:
    """How much text an answer holds, whatever its kind, for an estimate."""
    return sum(_characters(item) for item in items(output))


def _characters(item: Mapping[str, Any]) -> int:
    total = sum(len(value) for name in ("arguments", "input", "code") if isinstance(value := item.get(name), str))
    for part in (*items(item.get("content")), *items(item.get("summary"))):
        total += sum(len(value) for name in ("text", "refusal") if isinstance(value := part.get(name), str))
    return total


def in_band(event: Mapping[str, Any]) -> UpstreamError:
    """The error of an answer that came with status 200: an event's, flat or nested, or a response's own."""
    response = event.get("response")
    error = event.get("error") or (response.get("error") if isinstance(response, dict) else None)
    told = VendorError.of(error) if isinstance(error, dict) else VendorError.of({**event, "type": None})
    return upstream.in_band(NAME, told, _IN_BAND)
