"""OpenAI Chat Completions, the upstream's side: reads plain answers.

The upstream is OpenAI or any server that speaks its API (a provider's row).
So this module trusts neither the counts of an answer nor that it is complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_service.core import identifiers
from llm_service.core.call import Call
from llm_service.core.content import Part, Refusal, TokenLogprob, ToolCall
from llm_service.core.events import Answer, Choice, StopReason
from llm_service.core.usage import Usage
from llm_service.formats import decoding, tool_calls
from llm_service.formats.bounds import as_list
from llm_service.formats.decoding import Counts, broken
from llm_service.formats.openai_chat import finish_reasons, servers
from llm_service.formats.openai_chat.decode_calls import CallTracker, check_arguments
from llm_service.formats.openai_chat.decode_errors import in_band, read_error
from llm_service.formats.openai_chat.decode_pieces import characters_of, pieces_of

# What a client of the Responses API puts into ``include`` for log probabilities.
_INCLUDE: Final = "message.output_text.logprobs"
# The names of the counts: those of this format, and those of Responses, which some servers use here too.
PROMPT_TOKENS: Final = ("prompt_tokens", "input_tokens")
OUTPUT_TOKENS: Final = ("completion_tokens", "output_tokens")


def read_usage(given: Any, characters: int, call: Call | None, service_tier: Any = None) -> Usage:
    """The vendor's usage object. Counts that are missing or impossible are estimated.

    ``service_tier`` is that of the answer, which says how the call was billed. That of the request is only a wish.
    """
    counts = Counts(given)
    prompt, completion = counts.both(PROMPT_TOKENS, OUTPUT_TOKENS, call, characters)
    completion, reasoning = counts.reasoning(prompt, completion, "completion_tokens_details", "reasoning_tokens")
    cached = counts.optional("prompt_tokens_details", "cached_tokens", maximum=prompt)
    written = counts.optional("prompt_tokens_details", "cache_write_tokens", maximum=prompt - cached)
    input_audio = counts.optional("prompt_tokens_details", "audio_tokens", maximum=prompt)
    input_image = counts.optional("prompt_tokens_details", "image_tokens", maximum=prompt - input_audio)
    output = completion - reasoning
    output_audio = counts.optional("completion_tokens_details", "audio_tokens", maximum=output)
    output_image = counts.optional(
        "completion_tokens_details", "image_tokens", maximum=completion - reasoning - output_audio
    )
    return Usage(
        prompt,
        completion,
        cached,
        written,
        reasoning_tokens=reasoning,
        exact=counts.exact,
        input_audio_tokens=input_audio,
        input_image_tokens=input_image,
        output_audio_tokens=output_audio,
        output_image_tokens=output_image,
        tier=decoding.service_tier(service_tier),
        lost=counts.lost,
    )


def usage_in(body: Mapping[str, Any], characters: int, call: Call | None) -> Usage:
    """The usage of a plain answer."""
    return read_usage(reported(body), characters, call, body.get("service_tier"))


def reported(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The usage object of an answer or a chunk, from wherever servers put it: Groq and Moonshot have own places."""
    groq, choices = body.get("x_groq"), body.get("choices")
    found: dict[str, Any] | None = None
    for holder in (body, groq, *(choices if isinstance(choices, list) else ())):
        usage = holder.get("usage") if isinstance(holder, dict) else None
        if isinstance(usage, dict):
            found = usage if found is None else decoding.merge_counts(found, usage)
    return found


def reported_usage(body: Mapping[str, Any], call: Call | None) -> Usage | None:
    """What a plain answer that failed reports as its usage, None if it reports none."""
    return usage_in(body, 0, call) if decoding.has_counts(reported(body)) else None


def choices_asked(call: Call | None) -> int:
    """How many choices the client asked for."""
    asked = call.body.get("n") if call is not None else None
    return asked if type(asked) is int and asked > 1 else 1


def logprobs_asked(call: Call | None) -> bool:
    """Whether the client asked for log probabilities, in any of OpenAI's formats."""
    if call is None:
        return False
    given, include = call.body.get("logprobs"), call.body.get("include")
    if given is not None and given is not False:  # 0 asks for those of the chosen tokens only
        return True
    return bool(call.body.get("top_logprobs")) or (isinstance(include, list) and _INCLUDE in include)


def read_answer(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer, with all its choices if the client asked for several.

    Raises UpstreamBroken when ``body`` is not an answer, or when a client of another format could not read it.
    """
    given, asked = choices_of(body), choices_asked(call)
    if asked == 1:
        given = given[:1]
    elif len(given) > asked:
        broken("it has more choices than were asked for")
    choices = [_read_choice(index, choice, call) for index, choice in enumerate(given)]
    characters = sum(characters_of(choice["message"]) for choice in given)
    first = choices[0]
    return Answer(
        usage=usage_in(body, characters, call),
        stop_reason=first.stop_reason,
        parts=first.parts,
        logprobs=first.logprobs,
        choices=tuple(choices) if asked > 1 else (),
        model=identifiers.model_name(body.get("model")),
    )


def _read_choice(index: int, choice: Mapping[str, Any], call: Call | None) -> Choice:
    message = choice.get("message")
    if not isinstance(message, dict):
        broken("a choice has no message")
    reason = stop_reason_of(choice)
    parts: list[Part] = [*pieces_of(message)]
    calls = _read_calls(message, call, cut=reason == "max_tokens")
    refused = any(type(part) is Refusal for part in parts)
    return Choice(
        index,
        finish_reasons.stop_reason(reason, refused=refused, called=bool(calls)),
        (*parts, *calls),
        read_logprobs(choice.get("logprobs")) if logprobs_asked(call) else (),
    )


def stop_reason_of(choice: Mapping[str, Any]) -> StopReason:
    """Why a choice of a plain answer ended (``finish_reasons.of_plain``)."""
    message = choice.get("message")
    return finish_reasons.of_plain(choice, whole=isinstance(message, dict) and _is_whole(message))


def _is_whole(message: Mapping[str, Any]) -> bool:
    """Whether a message says something, and the arguments of its tool calls do not break off."""
    calls = [call for call in (message.get("function_call"), *as_list(message.get("tool_calls"))) if call]
    functions = [call.get("function", call) if isinstance(call, dict) else None for call in calls]
    given = [function.get("arguments") for function in functions if isinstance(function, dict)]
    return bool(calls or characters_of(message)) and all(
        tool_calls.is_arguments(text) for text in given if isinstance(text, str)
    )


def read_logprobs(given: Any) -> tuple[TokenLogprob, ...]:
    """The tokens of a choice's ``logprobs``. If one of them is malformed there are none: the answer can do without."""
    content = given.get("content") if isinstance(given, dict) else None
    if not isinstance(content, list):
        return ()
    tokens = [_read_logprob(item, item.get("top_logprobs")) if isinstance(item, dict) else None for item in content]
    known = tuple(token for token in tokens if token is not None)
    return known if len(known) == len(tokens) else ()


def _read_logprob(given: Mapping[str, Any], alternatives: Any) -> TokenLogprob | None:
    token, logprob, octets = given.get("token"), given.get("logprob"), given.get("bytes")
    if not isinstance(token, str) or not isinstance(logprob, int | float) or isinstance(logprob, bool):
        return None
    if not isinstance(octets, list) or not all(type(octet) is int and 0 <= octet < 256 for octet in octets):
        octets = None
    rivals = [item for item in alternatives if isinstance(item, dict)] if isinstance(alternatives, list) else []
    top = [_read_logprob(item, None) for item in rivals]
    return TokenLogprob(
        token, logprob, None if octets is None else tuple(octets), tuple(item for item in top if item is not None)
    )


def _read_calls(message: Mapping[str, Any], call: Call | None, *, cut: bool) -> list[Part]:
    """The tool calls, after what the server wants back with them."""
    given, older = message.get("tool_calls"), message.get("function_call")
    if not (given or older):
        return []
    if not decoding.has_tools(call):
        broken("it calls a tool that it was not given")
    calls = CallTracker(call)
    for _ in calls.add_all(given or [{"function": older}]):
        pass
    for read in calls.calls:
        if not read.name:
            broken("a tool call has no name")
        check_arguments(read.arguments, cut=cut)
    extras = servers.carried((read.id, read.extra) for read in calls.calls)
    return [*extras, *(ToolCall(read.id, read.name, read.arguments) for read in calls.calls)]


def choices_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    if body.get("error") or body.get("object") == "error":  # some servers send an error with status 200
        raise in_band(body)
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        if not choices and read_error(body).message:  # MiniMax, FastAPI: the error has another name
            raise in_band(body)
        broken("it has no choices")
    return choices
