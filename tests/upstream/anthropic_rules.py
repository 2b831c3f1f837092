"""Requests that api.anthropic.com rejects, with its own messages.

Sources: the recordings and pages that the fixtures come from, and error bodies quoted in public issue trackers.
The generation of a model is read from its name (``claude-opus-4-7`` is (4, 7)).
"""

from __future__ import annotations

import re
from typing import Any

from tests.upstream.anthropic_content import check_content
from tests.upstream.http1 import Request
from tests.upstream.rejection import Account, Rejected, bearer, is_int, parse

OLD_VERSION, NEW_VERSION = "2023-06-01", "2026-10-21"
SAMPLING = ("temperature", "top_p", "top_k")
SHARED_FIELDS = frozenset(
    {"messages", "model", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control", "speed"}
)
MESSAGES_FIELDS = SHARED_FIELDS | {
    "max_tokens",
    "stream",
    "stop_sequences",
    "metadata",
    "service_tier",
    "container",
    "diagnostics",
    "inference_geo",
}
BETA_FIELDS = frozenset(
    {
        "billing_policy",
        "compaction",
        "context_management",
        "fallback_credit_token",
        "fallbacks",
        "mcp_servers",
        "output_format",  # the older name of output_config.format, which LiteLLM still sends
        "thread",
    }
)
MAX_OUTPUT = {  # the first entry whose name is a part of the model's name applies
    "claude-3-5": 8_192,
    "claude-3-7": 64_000,
    "claude-3": 4_096,
    "opus-4-5": 64_000,
    "opus-4-1": 32_000,
    "sonnet-4-5": 64_000,
    "haiku-4-5": 64_000,
}


def check_access(request: Request, account: Account) -> None:
    """Check the key and the version header."""
    # If both headers are sent, x-api-key is used.
    key = request.headers.get("x-api-key") or bearer(request)
    if not key:
        raise Rejected(401, "authentication_error", "x-api-key header is required")
    if not account.admits(key):
        raise Rejected(401, "authentication_error", "invalid x-api-key")
    version = request.headers.get("anthropic-version")
    if version is None:
        raise Rejected(400, "invalid_request_error", "anthropic-version: header is required")
    if version not in (OLD_VERSION, NEW_VERSION):
        raise Rejected(400, "invalid_request_error", f'anthropic-version: "{version}" is not a valid version')


def read_body(request: Request) -> dict[str, Any]:
    body = parse(request.body)
    if body is None:
        raise Rejected(400, "invalid_request_error", "The request body is not valid JSON")
    if not isinstance(body, dict):
        raise Rejected(400, "invalid_request_error", "Input should be a valid dictionary")
    return body


def check_body(request: Request, body: dict[str, Any], account: Account, counting: bool = False) -> None:
    """Check the fields, their types and the model's own limits."""
    _fields(request, body, account, counting)
    model = body["model"]
    if not model.startswith("claude-") and model not in account.models:
        raise Rejected(404, "not_found_error", f"model: {model}")
    if not counting:
        _max_tokens(body)
    _messages(body)
    system = body.get("system")
    if system:
        _not_blank([{"type": "text", "text": system}] if isinstance(system, str) else system, "system")
    for stop in body.get("stop_sequences") or ():
        if not stop.strip():
            raise _invalid("stop_sequences: each stop sequence must contain non-whitespace")
    _sampling(body, generation(model))
    _thinking(body, generation(model))
    check_content(body)


def generation(model: str) -> tuple[int, int]:
    """``claude-haiku-4-5-20251001`` -> (4, 5); ``claude-3-opus`` -> (3, 0)."""
    match = re.match(r"claude-(?:[a-z]+-)?(\d+)(?:-(\d{1,2})(?!\d))?", model)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


def _invalid(message: str) -> Rejected:
    return Rejected(400, "invalid_request_error", message)


def _fields(request: Request, body: dict[str, Any], account: Account, counting: bool) -> None:
    for name in ("max_tokens", "messages", "model"):
        if name not in body and not (counting and name == "max_tokens"):
            raise _invalid(f"{name}: Field required")
    known = SHARED_FIELDS if counting else MESSAGES_FIELDS
    allowed = known | account.fields
    if "anthropic-beta" in request.headers:
        allowed |= BETA_FIELDS
    if request.headers["anthropic-version"] == OLD_VERSION and not counting:
        allowed |= set(SAMPLING)
    for name in body:
        if name not in allowed:
            raise _invalid(f"{name}: Extra inputs are not permitted")
    if not isinstance(body["model"], str):
        raise _invalid("model: Input should be a valid string")
    if not isinstance(body.get("stream", False), bool):
        raise _invalid("stream: Input should be a valid boolean")


def _max_tokens(body: dict[str, Any]) -> None:
    value = body["max_tokens"]
    if not is_int(value):
        raise _invalid("max_tokens: Input should be a valid integer")
    if value < 0:
        raise _invalid("max_tokens: Input should be greater than or equal to 0")
    limit = next((tokens for part, tokens in MAX_OUTPUT.items() if part in body["model"]), 128_000)
    if value > limit:
        raise _invalid(
            f"max_tokens: {value} > {limit}, which is the maximum allowed number of output tokens for {body['model']}"
        )


def _messages(body: dict[str, Any]) -> None:
    messages = body["messages"]
    if not isinstance(messages, list):
        raise _invalid("messages: Input should be a valid list")
    if not messages:
        raise _invalid("messages: at least one message is required")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or "role" not in message:
            raise _invalid(f"messages.{index}.role: Field required")
        if message["role"] == "system" and (index == 0 or generation(body["model"]) < (4, 8)):
            raise _invalid("role 'system' is not supported on this model")
        if message["role"] not in ("user", "assistant", "system"):
            raise _invalid(f'messages: Unexpected role "{message["role"]}". Allowed roles are "user" or "assistant"')
        _content(body, index, message)
    if messages[0]["role"] != "user":
        raise _invalid('messages: first message must use the "user" role')
    if messages[-1]["role"] == "assistant" and generation(body["model"]) >= (4, 6):
        raise _invalid(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )


def _content(body: dict[str, Any], index: int, message: dict[str, Any]) -> None:
    content = message.get("content")
    last_assistant = message["role"] == "assistant" and index == len(body["messages"]) - 1
    if content in ("", []) and not last_assistant:
        raise _invalid(
            "messages: all messages must have non-empty content except for the optional final assistant message"
        )
    if last_assistant and _text_of_last(content).rstrip() != _text_of_last(content):
        raise _invalid("messages: final assistant content cannot end with trailing whitespace")
    if isinstance(content, str):
        _not_blank([{"type": "text", "text": content}], "messages")
        return
    if not isinstance(content, list):
        raise _invalid(f"messages.{index}.content: Input should be a valid list")
    for number, block in enumerate(content):
        if not isinstance(block, dict) or "type" not in block:
            raise _invalid(f"messages.{index}.content.{number}: Input should be a valid dictionary")
    _not_blank(content, "messages")
    if content and message["role"] == "assistant" and content[-1]["type"] in ("thinking", "redacted_thinking"):
        raise _invalid(f"messages.{index}: The final block in an assistant message cannot be `thinking`.")


def _not_blank(blocks: list[dict[str, Any]], where: str) -> None:
    """Of several blocks only one must say something (experiential#804 lists what the API answered to each)."""
    texts = [block.get("text") for block in blocks if block["type"] == "text"]
    if not all(texts):
        raise _invalid(f"{where}: text content blocks must be non-empty")
    if texts and len(texts) == len(blocks) and not any(str(text).strip() for text in texts):
        raise _invalid(f"{where}: text content blocks must contain non-whitespace text")


def _text_of_last(content: Any) -> str:
    last = content[-1] if isinstance(content, list) and content else {"text": content}
    return str(last.get("text") or "")


def _sampling(body: dict[str, Any], version: tuple[int, int]) -> None:
    sent = [name for name in SAMPLING if name in body]
    if sent and version >= (4, 7):
        raise _invalid(f"`{sent[0]}` is deprecated for this model.")
    if "temperature" in sent and "top_p" in sent and version >= (4, 0):
        raise _invalid("`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
    value = body.get("temperature", 1.0)
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise _invalid("temperature: range: 0..1")


def _thinking(body: dict[str, Any], version: tuple[int, int]) -> None:
    thinking = body.get("thinking")
    if not isinstance(thinking, dict) or thinking.get("type") != "enabled":
        return
    if version >= (4, 7):
        raise _invalid('"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive".')
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int) or isinstance(budget, bool) or budget < 1024:
        raise _invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    if budget >= body.get("max_tokens", budget + 1):
        raise _invalid("`max_tokens` must be greater than `thinking.budget_tokens`")
