"""One table of what vendors say: each sentence as it was reported from the vendor or server that is named beside it."""

from __future__ import annotations

import pytest

from llm_service.core import errors
from llm_service.core.errors import (
    UpstreamContentRejected,
    UpstreamContextExceeded,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTooLarge,
)
from llm_service.formats import anthropic_messages, openai_chat, openai_responses, vendor_errors

# (input, output, maximum) in tokens; None where the sentence does not say it.
CONTEXT: list[tuple[str, str, tuple[int | None, int | None, int | None]]] = [
    ("Anthropic", "prompt is too long: 213462 tokens > 200000 maximum", (213462, None, 200000)),
    (
        "Anthropic",
        "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length or "
        "`max_tokens` and try again",
        (188240, 21333, 200000),
    ),
    (
        "OpenAI",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 130011 tokens. "
        "Please reduce the length of the messages.",
        (130011, None, 128000),
    ),
    (
        "OpenAI, vLLM",
        "This model's maximum context length is 8192 tokens. However, you requested 10000 tokens (6000 in the "
        "messages, 4000 in the completion). Please reduce the length of the messages or completion.",
        (6000, 4000, 8192),
    ),
    (
        "OpenAI, embeddings",
        "This model's maximum context length is 8192 tokens, however you requested 10346 tokens (10346 in your "
        "prompt; 5 for the completion). Please reduce your prompt; or completion length.",
        (10346, 5, 8192),
    ),
    (
        "OpenAI, Responses",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        (None, None, None),
    ),
    (
        "Azure",
        "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 509178 tokens. Please "
        "reduce the length of the messages.",
        (509178, None, 272000),
    ),
    (
        "vLLM",
        "This model's maximum context length is 262144 tokens. However, you requested 0 output tokens and your prompt "
        "contains at least 262145 input tokens, for a total of at least 262145 tokens.",
        (262145, 0, 262144),
    ),
    (
        "vLLM",
        "'max_tokens' or 'max_completion_tokens' is too large: 4000. This model's maximum context length is 4096 "
        "tokens and your request has 1000 input tokens (4000 > 4096 - 1000).",
        (1000, 4000, 4096),
    ),
    (
        "llama.cpp",
        "request (66202 tokens) exceeds the available context size (65536 tokens), try increasing it",
        (66202, None, 65536),
    ),
    ("llama.cpp", "the request exceeds the available context size, try increasing it", (None, None, None)),
    ("llama.cpp", "Context size has been exceeded.", (None, None, None)),
    ("Ollama", "prompt too long; exceeded max context length by 100918 tokens", (None, None, None)),
    ("Ollama", "the input length exceeds the context length", (None, None, None)),
    (
        "LM Studio",
        "The number of tokens to keep from the initial prompt is greater than the context length.",
        (None, None, None),
    ),
    (
        "SGLang",
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
        (5000, None, 4096),
    ),
    (
        "TGI",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and "
        "500 `max_new_tokens`",
        (4000, 500, 4096),
    ),
    (
        "Gemini",
        "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
        (1196265, None, 1048575),
    ),
    (
        "Gemini",
        "The input token count exceeds the maximum number of tokens allowed 1048576.",
        (None, None, 1048576),
    ),
    (
        "Mistral",
        "Prompt contains 40159 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        (40159, None, 32768),
    ),
    ("Groq", "Please reduce the length of the messages or completion.", (None, None, None)),
    (
        "xAI",
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        (537812, None, 131072),
    ),
    (
        "OpenRouter",
        "This endpoint's maximum context length is 32768 tokens. However, you requested about 42832 tokens (42832 of "
        'text input). Please reduce the length of either one, or use the "middle-out" transform.',
        (42832, None, 32768),
    ),
    ("Bedrock", "Input is too long for requested model.", (None, None, None)),
    ("Bedrock", "Too many input tokens. Please shorten the input.", (None, None, None)),
    ("GitHub Copilot", "prompt token count of 140000 exceeds the limit of 128000", (140000, None, 128000)),
    ("Cerebras", "Please reduce the length. Current length is 9000 while limit is 8192", (9000, None, 8192)),
    ("MiniMax", "invalid params, context window exceeds limit", (None, None, None)),
    ("Kimi", "Your request exceeded model token limit: 131072 (requested: 140000)", (140000, None, 131072)),
    ("Qwen", "Range of input length should be [1, 129024]", (None, None, None)),
    ("Z.ai", "Prompt exceeds max length", (None, None, None)),
    ("Perplexity", "The total length of all messages is too long.", (None, None, None)),
    (
        "LiteLLM",
        "litellm.ContextWindowExceededError: litellm.BadRequestError: Context Window exceeded for given call. No "
        "models have context window large enough for this call.",
        (None, None, None),
    ),
    ("Cohere", "too many tokens: total number of tokens in the request cannot exceed 4081", (None, None, None)),
]


@pytest.mark.parametrize(("vendor", "sentence", "numbers"), CONTEXT)
@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_sentence_about_the_context_window_is_recognised_with_its_numbers(
    vendor: str, sentence: str, numbers: tuple[int | None, int | None, int | None], status: int
) -> None:
    words = ("invalid_request_error", str(status))
    assert vendor_errors.closer_kind(status, words, sentence) is UpstreamContextExceeded
    assert vendor_errors.kind_of(words, sentence) is UpstreamContextExceeded
    failure = vendor_errors.context_exceeded(sentence)
    assert (failure.input_tokens, failure.output_tokens, failure.maximum) == numbers, vendor


@pytest.mark.parametrize(
    "sentence",
    [
        "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided "
        "100000.",
        "max_tokens: 70000 > 64000, which is the maximum allowed number of output tokens for this model",
        "Invalid 'user': string too long. Expected a string with maximum length 64, but got a string with length 65 "
        "instead.",
        "Unsupported parameter: 'temperature' is not supported with this model.",
        "messages.1.content.0.image.source.base64.media_type: Input should be 'image/jpeg'",
        "The model `context-window-9` does not exist.",
    ],
)
def test_another_sentence_is_not_taken_for_one_about_the_context_window(sentence: str) -> None:
    assert vendor_errors.closer_kind(400, ("invalid_request_error", None), sentence) is None


def test_a_throttled_call_is_not_taken_for_one_that_is_too_long() -> None:
    """Shortening the conversation would destroy it for nothing: waiting helps."""
    too_fast = "Too many tokens, please wait before trying again."
    assert vendor_errors.closer_kind(429, ("ThrottlingException", None), too_fast) is None
    assert vendor_errors.kind_of(("ThrottlingException", None), too_fast) is UpstreamRateLimited
    per_minute = "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 50000."
    assert vendor_errors.closer_kind(429, ("tokens", "rate_limit_exceeded"), per_minute) is None
    assert vendor_errors.kind_of(("tokens", "rate_limit_exceeded"), per_minute) is UpstreamRateLimited


@pytest.mark.parametrize(
    ("status", "type", "code", "sentence", "kind"),
    [
        (400, "invalid_request_error", "context_length_exceeded", None, UpstreamContextExceeded),
        (400, "exceed_context_size_error", "400", None, UpstreamContextExceeded),
        (400, None, "content_filter", "The response was filtered.", UpstreamContentRejected),
        (400, "invalid_request_error", "invalid_prompt", None, UpstreamContentRejected),
        (400, "invalid_request_error", None, "Output blocked by content filtering policy", UpstreamContentRejected),
        (400, "invalid_request_error", "invalid_request_error", "Content Exists Risk", UpstreamContentRejected),
        (403, None, "403", "Your input was flagged by moderation.", UpstreamContentRejected),
        (400, "invalid_request_error", None, "Your credit balance is too low to access it.", UpstreamQuotaExhausted),
        (413, "request_too_large", None, "Request exceeds the maximum size", UpstreamTooLarge),
        (400, "invalid_request_error", None, "messages: at least one message is required", None),
        (404, "not_found_error", None, "model: claude-9", None),
        (500, "api_error", None, "Internal server error", None),
        (401, "authentication_error", "content_filter", "prompt is too long", None),
    ],
)
def test_the_closer_kind_of_a_reply_is_known_by_its_code_or_else_by_its_sentence(
    status: int, type: str | None, code: str | None, sentence: str | None, kind: type[UpstreamError] | None
) -> None:
    assert vendor_errors.closer_kind(status, (code, type), sentence) is kind


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("overloaded_error",), UpstreamOverloaded),
        (("529",), UpstreamOverloaded),
        (("RESOURCE_EXHAUSTED", "429"), UpstreamRateLimited),
        (("insufficient_quota",), UpstreamQuotaExhausted),
        (("402",), UpstreamQuotaExhausted),
        (("invalid_request_error",), UpstreamRejected),
        (("something_new", None), None),
    ],
)
def test_the_codes_of_every_vendor_are_known_in_every_stream(
    words: tuple[str | None, ...], kind: type[UpstreamError] | None
) -> None:
    assert vendor_errors.kind_of(words, None) is kind


TOO_LONG = UpstreamContextExceeded(input_tokens=130, maximum=128)
BOTH = UpstreamContextExceeded(input_tokens=120, output_tokens=10, maximum=128)
UNKNOWN = UpstreamContextExceeded()


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (TOO_LONG, "prompt is too long: 130 tokens > 128 maximum"),
        (
            BOTH,
            "input length and `max_tokens` exceed context limit: 120 + 10 > 128, decrease input length or `max_tokens` "
            "and try again",
        ),
        (UNKNOWN, "prompt is too long: the request is longer than the model's context window"),
        (
            UpstreamContextExceeded(input_tokens=5, maximum=128),  # the numbers prove nothing
            "prompt is too long: the request is longer than the model's context window",
        ),
    ],
)
def test_anthropic_s_clients_read_that_the_prompt_is_too_long(failure: UpstreamContextExceeded, sentence: str) -> None:
    written = anthropic_messages.error(failure, "r")["error"]
    assert (written["type"], written["message"]) == ("invalid_request_error", sentence)
    assert written["details"]["error_code"] == "context_length_exceeded"
    assert anthropic_messages.status(failure) == 400


@pytest.mark.parametrize("format", [openai_chat, openai_responses])
@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (
            TOO_LONG,
            "This model's maximum context length is 128 tokens. However, your messages resulted in 130 tokens. Please "
            "reduce the length of the messages.",
        ),
        (
            BOTH,
            "This model's maximum context length is 128 tokens. However, you requested 130 tokens (120 in the "
            "messages, 10 in the completion). Please reduce the length of the messages or completion.",
        ),
        (UNKNOWN, "Your input exceeds the context window of this model. Please adjust your input and try again."),
    ],
)
def test_openai_s_clients_read_context_length_exceeded(
    format: object, failure: UpstreamContextExceeded, sentence: str
) -> None:
    written = format.error(failure, "r")["error"]  # type: ignore[attr-defined]
    assert (written["type"], written["code"]) == ("invalid_request_error", "context_length_exceeded")
    assert written["message"] == sentence


def test_content_policy_has_each_api_s_own_code() -> None:
    failure = UpstreamContentRejected("x")
    assert openai_chat.error(failure, "r")["error"]["code"] == "content_policy_violation"
    assert openai_responses.error(failure, "r")["error"]["code"] == "invalid_prompt"
    azure = UpstreamContentRejected("x", vendor={"format": "chat", "type": "x", "code": "content_filter"})
    assert openai_chat.error(azure, "r")["error"]["code"] == "content_filter"
    written = anthropic_messages.error(failure, "r")["error"]
    assert (written["type"], written["message"]) == (
        "invalid_request_error",
        "Output blocked by content filtering policy",
    )


def test_words_of_a_compatible_server_are_kept_only_if_openai_has_them() -> None:
    vendor = {"format": "chat", "type": "rate_limited", "code": "1300"}
    limited = openai_chat.error(UpstreamRateLimited("x", vendor=vendor), "r")["error"]
    assert (limited["type"], limited["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    rejected = openai_chat.error(UpstreamRejected("x", vendor={**vendor, "type": "odd"}), "r")["error"]
    assert (rejected["type"], rejected["code"]) == ("odd", "1300")


FINAL = [
    errors.InvalidRequest("x"),
    errors.Unauthenticated("x"),
    errors.BudgetExceeded("x", retry_after=60),
    errors.Forbidden("x"),
    errors.ModelNotFound("x"),
    errors.PayloadTooLarge("x"),
    errors.UpstreamRejected("x"),
    UpstreamContextExceeded(),
    errors.UpstreamRateLimited("x"),
    errors.UpstreamFailed("x"),
]
NOT_FINAL = [
    errors.RateLimited("x", retry_after=3),
    errors.Unavailable("x"),
    errors.Stopping("x"),
    errors.InternalError("x"),
]


@pytest.mark.parametrize("failure", [*FINAL, *NOT_FINAL], ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("format", [openai_chat, openai_responses, anthropic_messages])
def test_only_a_final_failure_tells_the_sdks_not_to_retry(format: object, failure: errors.ServiceError) -> None:
    headers = format.error_headers(failure, None)  # type: ignore[attr-defined]
    assert headers == ({"x-should-retry": "false"} if failure in FINAL else {})
