"""OpenAI Responses, the upstream's side: plain answers, usage and errors.

An upstream is any server that speaks this API, so nothing here trusts that a count
is true or that an answer is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from llm_service.core import identifiers
from llm_service.core.call import Call
from llm_service.core.content import Part, RedactedThinking, Refusal, Text, Thinking, TokenLogprob, ToolCall
from llm_service.core.errors import (
    UpstreamError,
)
from llm_service.core.events import Answer, StopReason
from llm_service.core.usage import Usage
from llm_service.formats import custom_tools, decoding, tool_calls
from llm_service.formats.decoding import Counts, VendorError, broken
from llm_service.formats.openai_chat import decode_answer as chat_answer
from llm_service.formats.openai_chat.decode_errors import read_error as read_error
from llm_service.formats.openai_responses.decode_messages import own_signature
from llm_service.formats.openai_responses.schema import NAME

# The blank line between the parts of a reasoning summary when they are joined to one text.
SUMMARY_SEPARATOR: Final = "\n\n"

_INCOMPLETE: Mapping[str, StopReason] = {"max_output_tokens": "max_tokens", "content_filter": "refusal"}
# The names of the counts: those of this format, and those of chat completions, which some servers use here too.
PROMPT_TOKENS: Final = ("input_tokens", "prompt_tokens")
OUTPUT_TOKENS: Final = ("output_tokens", "completion_tokens")
# The status of a background answer that is not made yet.
_PENDING = ("queued", "in_progress")
TOOL_CALLS: Final = ("function_call", "custom_tool_call")


def read_answer(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer. Raises UpstreamBroken if it is malformed, or holds something that was not asked for."""
    check_answer(body)
    for item in body["output"]:
        if item.get("type") in TOOL_CALLS:
            check_call(item, call, cut=is_cut(body))
    asked = chat_answer.logprobs_asked(call)
    return Answer(
        usage=usage_of(body, call, count_characters(body["output"])),
        stop_reason=stop_reason(body),
        parts=tuple(part for item in body["output"] for part in read_item(item)),
        model=identifiers.model_name(body.get("model")),
        logprobs=tuple(token for item in body["output"] for token in logprobs_of(item)) if asked else (),
    )


def read_item(item: Mapping[str, Any]) -> Iterator[Part]:
    """The parts of an output item. Raises UpstreamBroken for a kind of item that was not asked for."""
    match item.get("type"):
        case "message":
            for part in objects(item.get("content")):
                if part.get("type") == "refusal":
                    yield Refusal(string_at(part, "refusal"))
                elif text := string_at(part, "text"):
                    yield Text(text)
        case "function_call":
            yield ToolCall(*call_names(item), string_at(item, "arguments"))
        case "custom_tool_call":
            yield ToolCall(*call_names(item), custom_tools.wrap(string_at(item, "input")))
        case "reasoning":
            thinking = read_reasoning(item)
            if thinking is not None:
                yield thinking
        case _:
            broken("it has an item that was not asked for")


def check_call(item: Mapping[str, Any], call: Call | None, *, cut: bool) -> None:
    """Raises UpstreamBroken for a tool that was not offered.

    Raises it also for arguments that are not a JSON object, unless the answer may have
    been ``cut`` in the middle of them.
    """
    if not decoding.has_tools(call):
        broken("it calls a tool that it was not given")
    if item.get("type") == "custom_tool_call":
        if call is None or not custom_tools.names(call.body.get("tools")):
            broken("it calls a custom tool, and it was given none")
    elif not cut and not tool_calls.is_arguments(string_at(item, "arguments")):
        broken("a tool call's arguments are not a JSON object")


def call_names(item: Mapping[str, Any]) -> tuple[str, str]:
    """The id of a tool call and the name of its function. Raises UpstreamBroken if one is missing."""
    id, name = string_at(item, "call_id"), string_at(item, "name")
    if not id or not name:
        broken("a tool call has no id or no name")
    return id, name


def string_at(given: Mapping[str, Any], name: str) -> str:
    """The string ``given[name]``. Raises UpstreamBroken."""
    value = given.get(name)
    if type(value) is not str:
        broken(f"a {name} is not a string")
    return value


def read_reasoning(item: Mapping[str, Any]) -> Thinking | RedactedThinking | None:
    """A reasoning item. Without a summary only OpenAI can read it."""
    texts = [string_at(part, "text") for part in (*objects(item.get("summary")), *objects(item.get("content")))]
    encrypted = item.get("encrypted_content")
    signature = own_signature(item.get("id"), encrypted) if type(encrypted) is str and encrypted else ""
    if any(texts):
        return Thinking(SUMMARY_SEPARATOR.join(texts), signature, NAME)
    return RedactedThinking(signature, NAME) if signature else None


def logprobs_of(item: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    """The tokens of an item's text; empty unless they were asked for."""
    if item.get("type") != "message":
        return ()
    return tuple(token for part in objects(item.get("content")) for token in read_logprobs(part.get("logprobs")))


def read_logprobs(given: Any) -> tuple[TokenLogprob, ...]:
    """A list of tokens with their log probabilities; empty if one of them is malformed."""
    return chat_answer.read_logprobs({"content": given})  # the tokens have the same fields in both APIs


def usage_of(response: Mapping[str, Any], call: Call | None, characters: int) -> Usage:
    """The usage of a response. Counts that are missing or impossible are replaced by estimates.

    ``characters`` is the length of the generated text, for the estimate. The response's
    ``service_tier`` says how it was billed, and its ``output`` shows the web searches.
    """
    counts = Counts(response.get("usage"))
    prompt, answer = counts.both(PROMPT_TOKENS, OUTPUT_TOKENS, call, characters)
    answer, reasoning = counts.reasoning(prompt, answer, "output_tokens_details", "reasoning_tokens")
    cached = counts.optional("input_tokens_details", "cached_tokens", maximum=prompt)
    return Usage(
        prompt,
        answer,
        cached,
        counts.optional("input_tokens_details", "cache_write_tokens", maximum=prompt - cached),
        reasoning_tokens=reasoning,
        exact=counts.exact,
        web_searches=min(sum(map(_is_search, objects(response.get("output")))), decoding.MAX_SEARCHES),
        tier=decoding.service_tier(response.get("service_tier")),
        lost=counts.lost,
    )


def reported_usage(body: Mapping[str, Any], call: Call | None) -> Usage | None:
    """What a plain answer that failed reports as its usage, None if it reports none."""
    return usage_of(body, call, 0) if decoding.has_counts(body.get("usage")) else None


def _is_search(item: Mapping[str, Any]) -> bool:
    """Whether an item is a billed web search. Opening a page that a search found costs nothing."""
    action = item.get("action")
    kind = action.get("type") if isinstance(action, dict) else "search"
    return item.get("type") == "web_search_call" and kind == "search"


def objects(given: Any) -> Iterable[dict[str, Any]]:
    """The objects in a list; nothing if ``given`` is not a list."""
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else ()


def check_answer(body: Mapping[str, Any], *, may_be_pending: bool = False) -> None:
    """Raises UpstreamBroken if ``body`` is not a finished response, and the error that it holds as an UpstreamError.

    ``may_be_pending``: the client asked for an answer that is made later (``background``).
    """
    if body.get("error"):
        raise in_band(body)
    output, status = body.get("output"), body.get("status")
    if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
        broken("it has no output")
    if not isinstance(status, str):
        broken("it has no status")
    if status in ("failed", "cancelled"):
        raise in_band(body)
    if status not in ("completed", "incomplete") and not (may_be_pending and status in _PENDING):
        broken("it is not finished")


def stop_reason(response: Mapping[str, Any]) -> StopReason:
    """The format has no field for it: a tool call is an item, and an answer that was cut has a status."""
    output = objects(response.get("output"))
    if is_cut(response):
        details = response.get("incomplete_details")
        # Whatever the reason is, known or not, the answer is not whole.
        return _INCOMPLETE.get(str(details.get("reason")) if isinstance(details, dict) else "", "max_tokens")
    if any(item.get("type") in TOOL_CALLS for item in output):
        return "tool_use"
    if any(part.get("type") == "refusal" for item in output for part in objects(item.get("content"))):
        return "refusal"
    return "other" if response.get("status") in _PENDING else "end_turn"


def is_cut(response: Mapping[str, Any]) -> bool:
    """Whether the answer, or an item of it, says that it is not whole."""
    items = objects(response.get("output"))
    return response.get("status") == "incomplete" or any(item.get("status") == "incomplete" for item in items)


def count_characters(output: Any) -> int:
    """The length of all text in an answer, of whatever kind, for an estimate of its tokens."""
    return sum(_count_characters(item) for item in objects(output))


def _count_characters(item: Mapping[str, Any]) -> int:
    total = sum(len(value) for name in ("arguments", "input", "code") if isinstance(value := item.get(name), str))
    for part in (*objects(item.get("content")), *objects(item.get("summary"))):
        total += sum(len(value) for name in ("text", "refusal") if isinstance(value := part.get(name), str))
    return total


def in_band(event: Mapping[str, Any]) -> UpstreamError:
    """The error of an answer that came with status 200.

    An event has the error's fields itself or in ``error``; a response has them in ``error``.
    """
    response = event.get("response")
    error = event.get("error") or (response.get("error") if isinstance(response, dict) else None)
    vendor_error = VendorError.of(error) if isinstance(error, dict) else VendorError.of({**event, "type": None})
    return decoding.in_band(NAME, vendor_error)
