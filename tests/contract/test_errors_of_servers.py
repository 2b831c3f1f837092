"""Errors of compatible servers, as they send them: each reaches the clients of both vendors as the failure that it is.

The bodies are those of public reports: issues of opencode (17762, 44888), pi (2626, 5930), openclaw (64180, 133860),
LiteLLM (10793, 15968, 17751, 21558, 28063) and Brokk (540), and the servers' documents.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import MakeService
from tests.contract.cases import HELLO
from tests.support.server import Server
from tests.upstream import Step, Upstream

CATALOGUE = """
[tiers.default]
rpm = 100000
[providers.local]
kind = "openai"
base_url = "{url}"
keyless = true
max_tokens_field = "max_tokens"
"""

CONTEXT, CONTENT, CREDIT = "context_length_exceeded", "content_policy_violation", "upstream_quota_exhausted"
TOO_LARGE, LIMITED = "upstream_too_large", "upstream_rate_limited"
BODIES: dict[str, tuple[int, Any, str]] = {
    "vLLM": (
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (1000 "
            "in the messages, 4000 in the completion).",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        CONTEXT,
    ),
    "FastAPI": (400, {"detail": "This model's maximum context length is 4096 tokens."}, CONTEXT),
    "llama.cpp": (
        400,
        {
            "error": {
                "code": 400,
                "message": "request (66202 tokens) exceeds the available context size (65536 tokens)",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 66202,
                "n_ctx": 65536,
            }
        },
        CONTEXT,
    ),
    "llama.cpp, a server error": (
        500,
        {"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}},
        CONTEXT,
    ),
    "llama.cpp, with status 200": (
        200,
        {"error": {"message": "Context size has been exceeded.", "code": 400}},
        CONTEXT,
    ),
    "TGI": (
        422,
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.", "error_type": "x"},
        CONTEXT,
    ),
    "Bedrock": (400, {"message": "Input is too long for requested model."}, CONTEXT),
    "Mistral": (
        400,
        {
            "object": "error",
            "message": "Prompt contains 40159 tokens and 0 draft tokens, too large for model with 32768 maximum "
            "context length",
            "type": "invalid_request_prompt",
            "code": "3051",
        },
        CONTEXT,
    ),
    "a validation error": (
        422,
        {"detail": [{"type": "value_error", "loc": ["body"], "msg": "Prompt exceeds max length"}]},
        CONTEXT,
    ),
    "Gemini": (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (1196265) exceeds the maximum number of tokens allowed",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
        CONTEXT,
    ),
    "Cloudflare": (
        400,
        {
            "success": False,
            "errors": [{"message": "... exceeded this model context window limit (8192).", "code": 5021}],
        },
        CONTEXT,
    ),
    "Ollama": (400, {"error": "the input length exceeds the context length"}, CONTEXT),
    "LM Studio": (
        400,
        {"error": "Trying to keep the first 5000 tokens when context the overflows."},
        CONTEXT,
    ),
    "LiteLLM": (
        400,
        {"error": {"message": "litellm.ContextWindowExceededError: prompt is too long", "type": None, "code": "400"}},
        CONTEXT,
    ),
    "OpenRouter": (
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": '{"error":{"message":"prompt is too long: 213462 tokens > 200000 maximum"}}'},
            }
        },
        CONTEXT,
    ),
    "xAI": (
        400,
        {"code": "Client specified an invalid argument", "error": "This model's maximum prompt length is 131072 but"},
        CONTEXT,
    ),
    "MiniMax, with status 200": (
        200,
        {"base_resp": {"status_code": 2013, "status_msg": "invalid params, context window exceeds limit (2013)"}},
        CONTEXT,
    ),
    "Z.ai": (400, {"error": {"code": "1261", "message": "Prompt exceeds max length"}}, CONTEXT),
    "Azure": (
        400,
        {"error": {"message": "The response was filtered.", "type": None, "param": "prompt", "code": "content_filter"}},
        CONTENT,
    ),
    "xAI, policy": (403, {"code": "x", "error": "Content violates usage guidelines. Failed check: SAFETY"}, CONTENT),
    "OpenRouter, policy": (403, {"error": {"code": 403, "message": "Your input was flagged"}}, CONTENT),
    "Qwen, policy": (
        400,
        {"error": {"code": "data_inspection_failed", "message": "Output data may contain inappropriate content."}},
        CONTENT,
    ),
    "DeepSeek, credit": (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}, CREDIT),
    "Groq, one call over the limit": (
        413,
        {
            "error": {
                "message": "Request too large on tokens per minute",
                "type": "tokens",
                "code": "rate_limit_exceeded",
            }
        },
        TOO_LARGE,
    ),
    "a proxy": (413, "<html><title>413 Request Entity Too Large</title></html>", TOO_LARGE),
    "Bedrock, throttled": (429, {"message": "Too many tokens, please wait before trying again."}, LIMITED),
}
# What clients of OpenAI and of Anthropic see for each code: the status, and OpenAI's code or Anthropic's type.
SEEN = {
    CONTEXT: ((400, "context_length_exceeded"), (400, "invalid_request_error")),
    CONTENT: ((400, "content_policy_violation"), (400, "invalid_request_error")),
    CREDIT: ((429, "insufficient_quota"), (429, "rate_limit_error")),
    TOO_LARGE: ((413, "request_too_large"), (413, "request_too_large")),
    LIMITED: ((429, "rate_limit_exceeded"), (429, "rate_limit_error")),
}


@pytest.fixture
def service(make_service: MakeService, upstream: Upstream) -> Server:
    return make_service(models=CATALOGUE.format(url=upstream.compatible_url))


def test_each_error_of_a_compatible_server_is_the_failure_that_it_is(service: Server, upstream: Upstream) -> None:
    client, wrong = service.http(), []
    for name, (status, body, code) in BODIES.items():
        text = body if isinstance(body, str) else json.dumps(body)
        upstream.script(Step(status=status, body=text, headers={"retry-after": "30"}, times=2))
        request = {"model": "local/m", "messages": HELLO}
        chat = client.post("/v1/chat/completions", json=request)
        claude = client.post("/v1/messages", json={**request, "max_tokens": 9})
        error = claude.json()["error"]
        seen = (
            (chat.status_code, chat.json()["error"]["code"]),
            (claude.status_code, error["type"]),
            error["details"]["error_code"],
        )
        if seen != (*SEEN[code], code) or (code == CONTEXT and not says_it(error["message"])):
            wrong.append((name, seen, error["message"]))
    assert wrong == []


def says_it(sentence: str) -> bool:
    return "prompt is too long" in sentence or "exceed context limit" in sentence
