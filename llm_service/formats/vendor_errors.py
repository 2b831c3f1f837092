"""What a vendor's error says, whatever the words of the vendor: one table for all of them.

Some failures have no status of their own. A request that is too long for the model gets 400 from one vendor, 413 from
another, and an event of the stream from a third, each with its own code or only with a sentence. Agents shorten their
conversation only if they find the words of the vendor whose API they speak, so the kind has to be recognised here, and
each format's ``errors.py`` then writes it in the words of its own clients.

Codes decide first. Sentences are searched only for failures that say nothing else (``_SAYS_NOTHING``). Of a sentence
only its numbers of tokens are kept.

Sources of the sentences: the vendors' documents, and the lists in the code of Claude Code 2.1.328, opencode
(packages/llm/src/provider-error.ts), pi (packages/ai/src/utils/overflow.ts) and LiteLLM (exception_mapping_utils.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from llm_service.core.errors import (
    UpstreamContentRejected,
    UpstreamContextExceeded,
    UpstreamError,
    UpstreamFailed,
    UpstreamKeyRefused,
    UpstreamOverloaded,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTooLarge,
)

# Codes and types of errors, in lower case. Numbers are the statuses that some servers send as codes.
_CODES: Final[Mapping[type[UpstreamError], frozenset[str]]] = {
    UpstreamContextExceeded: frozenset(
        {
            "context_length_exceeded",
            "context_window_exceeded",
            "exceed_context_size_error",
            "contextwindowexceedederror",
        }
    ),
    UpstreamContentRejected: frozenset(
        {
            *("content_policy_violation", "content_filter", "content_filter_error", "responsibleaipolicyviolation"),
            *("invalid_prompt", "bio_policy", "cyber_policy", "misalignment_policy_violation", "moderation_blocked"),
            *(
                "image_content_policy_violation",
                "data_inspection_failed",
                "datainspectionfailed",
                "safety_check_failed",
            ),
        }
    ),
    UpstreamQuotaExhausted: frozenset(
        {
            *("insufficient_quota", "credit_balance_exhausted", "billing_error", "billing_hard_limit_reached", "402"),
            *("enforced_spend_limit_reached", "contract_spend_limit_reached", "insufficient_credits"),
        }
    ),
    UpstreamRateLimited: frozenset(
        {
            *("rate_limit_exceeded", "rate_limit_error", "rate_limited", "rate_limit", "requests", "tokens", "429"),
            *("resource_exhausted", "throttlingexception", "too_many_requests"),
        }
    ),
    UpstreamOverloaded: frozenset(
        {
            *("server_is_overloaded", "slow_down", "service_unavailable_error", "overloaded_error", "overloaded"),
            *("engine_overloaded", "engine_overloaded_error", "unavailable", "503", "529"),
            "insufficient_system_resource",  # DeepSeek, as a finish_reason
        }
    ),
    UpstreamTooLarge: frozenset({"request_too_large", "413"}),
    UpstreamTimeout: frozenset({"timeout_error", "timeout", "deadline_exceeded", "408", "504"}),
    UpstreamFailed: frozenset(
        {
            *("api_error", "server_error", "internal_server_error", "500", "502"),
            *("vector_store_timeout", "failed_to_download_image"),
        }
    ),
    UpstreamKeyRefused: frozenset(
        {"authentication_error", "permission_error", "invalid_api_key", "invalid_authentication", "401", "403"}
    ),
    UpstreamRejected: frozenset(
        {
            *("invalid_request_error", "badrequesterror", "invalid_argument", "400", "422", "404"),
            "not_found_error",
            *("image_file_not_found", "data_residency_mismatch"),
        }
    ),
}

# A failure of one of these kinds may be of a closer one: only its sentence can tell.
_SAYS_NOTHING: Final = frozenset({UpstreamTooLarge, UpstreamFailed, UpstreamKeyRefused, UpstreamRejected})

_CONTEXT: Final = re.compile(
    r"prompt(?: is)? too long|input(?: is)? too long\b|input token length too long|too many input tokens"
    r"|length and `?max_tokens`? exceed context limit|exceeds? context limit"
    r"|maximum context (?:length|limit|size|window)|maximum (?:prompt|input) length"
    r"|(?:longer|larger|greater) than (?:the )?(?:maximum )?(?:model'?s? )?(?:maximum )?(?:context|model) "
    r"?(?:length|window|size)"
    r"|exceed(?:s|ed)? (?:the |this )?(?:model'?s? |maximum |available )*context (?:length|window|size|limit)"
    r"|context (?:length|window|size|limit)(?: has been| was| is)? exceed(?:s|ed)|exceeded model token limit"
    r"|input token count.{0,60}exceeds the maximum|exceeds the maximum number of tokens allowed"
    r"|input tokens exceed the configured limit|input length.{0,40}exceeds|prompt exceeds max length"
    r"|prompt token count of \d+ exceeds the limit|range of input length should be"
    r"|reduce (?:the|your) (?:length of (?:the|your) )?(?:messages|prompt|input)"
    r"|`inputs` tokens \+ `max_new_tokens` must be|current length is \d+ while limit is"
    r"|too large for model with \d+ maximum|length of all messages is too long|context exceeds your deployment"
    r"|context (?:the )?overflows|loaded with context length of only"
    r"|tokens in request more than max tokens allowed|but model only supports up to"
    r"|\btoo many tokens(?!,? please wait)",
    re.IGNORECASE,
)
_CONTENT: Final = re.compile(
    r"content filtering policy|content management policy|usage guidelines|usage polic(?:y|ies)|content policy"
    r"|content exists risk|rejected as a result of (?:our|the) safety system|inappropriate content"
    r"|(?:input|prompt|request) (?:was|has been|is) (?:flagged|blocked)|your input was flagged|requires moderation",
    re.IGNORECASE,
)
_QUOTA: Final = re.compile(
    r"credit balance is too low|insufficient (?:balance|credits?|quota|funds)|out of credits?"
    r"|exceeded your current quota",
    re.IGNORECASE,
)
_SENTENCES: Final[Iterable[tuple[type[UpstreamError], re.Pattern[str]]]] = (
    (UpstreamContextExceeded, _CONTEXT),
    (UpstreamContentRejected, _CONTENT),
    (UpstreamQuotaExhausted, _QUOTA),
)

_NUMBER = r"([\d,]{1,12})"
_MAXIMUM: Final = (
    rf"tokens? > {_NUMBER}",
    rf"\+ [\d,]+ > {_NUMBER}",
    rf"maximum (?:context|prompt|input|model) (?:length|limit|size)(?: is| of)? {_NUMBER}",
    rf"context (?:size|length|window|limit)(?: is| of)?:? \(?{_NUMBER}",
    rf"tokens allowed:? \(?{_NUMBER}",
    rf"(?:token|configured) limit(?: of)?:? \(?{_NUMBER}",
    rf"(?:limit|model) (?:of|is|with) {_NUMBER}",
    rf"must be <= {_NUMBER}",
    rf"only supports up to {_NUMBER}",
)
_INPUT: Final = (
    rf"{_NUMBER} tokens? >",
    rf"limit: {_NUMBER} \+",
    rf"\({_NUMBER} in (?:the|your) (?:messages|prompt)",
    rf"\({_NUMBER} of text input",
    rf"resulted in {_NUMBER}",
    rf"(?:has|contains)(?: at least)? {_NUMBER} (?:input )?tokens",
    rf"given: {_NUMBER} `inputs`",
    rf"token count (?:of )?\(?{_NUMBER}",
    rf"(?:request|input|prompt) \({_NUMBER} tokens",
    rf"current length is {_NUMBER}",
    rf"requested:? (?:about )?{_NUMBER}(?! output)",
)
_OUTPUT: Final = (
    rf"limit: [\d,]+ \+ {_NUMBER}",
    rf"{_NUMBER} (?:in|for) the completion",
    rf"requested {_NUMBER} output tokens",
    rf"is too large: {_NUMBER}",
    rf"and {_NUMBER} `max_new_tokens`",
)


def kind_of(words: Iterable[str | None], message: str | None) -> type[UpstreamError] | None:
    """The kind of the failure with these codes and types, and with this sentence of the vendor; None if it is unknown.

    A kind that a status tells better, such as ``UpstreamRejected``, is only found by codes.
    """
    known = {word.lower() for word in words if word}
    found = next((kind for kind, codes in _CODES.items() if known & codes), None)
    if message and (found is None or found in _SAYS_NOTHING):
        return next((kind for kind, sentence in _SENTENCES if sentence.search(message)), found)
    return found


def closer_kind(status: int, words: Iterable[str | None], message: str | None) -> type[UpstreamError] | None:
    """The kind of a reply with an error status, if it is not the one that the status says."""
    if status in (401, 408, 409, 429) or status > 500:
        return None
    found = kind_of(words, message)
    if found in (UpstreamContextExceeded, UpstreamContentRejected):
        return found
    if found is UpstreamQuotaExhausted and status < 500:
        return found
    return UpstreamTooLarge if status == 413 else None


def context_exceeded(message: str | None, **common: Any) -> UpstreamContextExceeded:
    """The error with the numbers of the vendor's sentence."""
    found: dict[str, int | None] = {
        "maximum": _first(_MAXIMUM, message),
        "input_tokens": _first(_INPUT, message),
        "output_tokens": _first(_OUTPUT, message),
    }
    return UpstreamContextExceeded(**found, **common)


def _first(patterns: Iterable[str], message: str | None) -> int | None:
    for pattern in patterns:
        match = re.search(pattern, message or "", re.IGNORECASE)
        if match and (digits := match[1].replace(",", "")):
            return int(digits)
    return None
