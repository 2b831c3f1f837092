"""Chat requests that api.openai.com rejects, with its own messages.

Sources: the recordings and pages that the fixtures come from, and error bodies quoted in public issue trackers.
"""

from __future__ import annotations

import re
from typing import Any

from tests.upstream.http1 import Request
from tests.upstream.openai_content import check_content
from tests.upstream.rejection import Account, Rejected, bearer, is_int, parse

CHAT_FIELDS = frozenset(
    {
        "messages",
        "model",
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "modalities",
        "moderation",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
        "stream",
    }
)
ROLES = ("developer", "system", "user", "assistant", "tool", "function")
KNOWN_MODELS = re.compile(r"(ft:)?(gpt-|chatgpt-|o\d|text-embedding-)")
REASONING_MODELS = re.compile(r"(gpt-[56789]|o\d)")
NO_TOOLS_WITH_EFFORT = re.compile(r"gpt-(5\.([4-9]|\d\d)|[6-9])")
# Of these the models that do not reason unless they are asked to.
NO_EFFORT_BY_DEFAULT = re.compile(r"gpt-5\.[45]")
NO_TOOLS = re.compile(r"gpt-(6\.|6-astra|6-rosalind)")
ONLY_RESPONSES = re.compile(r".*-(pro|codex)")
RANGES = {"temperature": (0, 2), "top_p": (0, 1), "frequency_penalty": (-2, 2), "presence_penalty": (-2, 2)}

INVALID = "invalid_request_error"


def check_access(request: Request, account: Account) -> None:
    key = bearer(request)
    if not key:
        raise Rejected(
            401,
            INVALID,
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if you're "
            "accessing the API from your browser and are prompted for a username and password. You can obtain an API "
            "key from https://platform.openai.com/account/api-keys.",
        )
    if not account.admits(key):
        # The real vendor sends a part of the key back too.
        shown = f"{key[:8]}{'*' * 20}{key[-4:]}"
        raise Rejected(
            401,
            INVALID,
            f"Incorrect API key provided: {shown}. You can find your API key at "
            "https://platform.openai.com/account/api-keys.",
            code="invalid_api_key",
        )


def read_body(request: Request) -> dict[str, Any]:
    body = parse(request.body)
    if not isinstance(body, dict):
        raise Rejected(
            400,
            INVALID,
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
            "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON. If you "
            "have trouble figuring out how to fix this, please contact us through our help center at help.openai.com.)",
        )
    return body


def check_chat(body: dict[str, Any], account: Account) -> None:
    for name in ("model", "messages"):
        if name not in body:
            raise _rejection(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    for name in body:
        if name not in CHAT_FIELDS | account.fields:
            raise _rejection(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    model = body["model"]
    if not isinstance(model, str):
        raise _type("model", "a string", model)
    if not KNOWN_MODELS.match(model) and model not in account.models:
        raise Rejected(
            404,
            INVALID,
            f"The model `{model}` does not exist or you do not have access to it.",
            code="model_not_found",
        )
    _messages(body["messages"])
    _numbers(body)
    if REASONING_MODELS.match(model):
        _reasoning(body)
    elif body.get("reasoning_effort") is not None:
        raise _rejection(
            "Unrecognized request argument supplied: reasoning_effort", "reasoning_effort", "unknown_parameter"
        )
    check_content(body)


def _rejection(message: str, param: str | None, code: str | None) -> Rejected:
    return Rejected(400, INVALID, message, param, code)


def _type(name: str, wanted: str, value: Any) -> Rejected:
    kinds = {str: "a string", bool: "a boolean", int: "an integer", float: "a decimal number", list: "an array"}
    got = "null" if value is None else kinds.get(type(value), "an object")
    return _rejection(f"Invalid type for '{name}': expected {wanted}, but got {got} instead.", name, "invalid_type")


def _messages(messages: Any) -> None:
    if not isinstance(messages, list):
        raise _type("messages", "an array of objects", messages)
    if not messages:
        raise _rejection(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            "messages",
            "empty_array",
        )
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        if not isinstance(message, dict):
            raise _type(path, "an object", message)
        if "role" not in message:
            raise _rejection(
                f"Missing required parameter: '{path}.role'.", f"{path}.role", "missing_required_parameter"
            )
        if message["role"] not in ROLES:
            supported = ", ".join(f"'{role}'" for role in ("system", "assistant", "user", "function", "tool"))
            raise _rejection(
                f"Invalid value: '{message['role']}'. Supported values are: {supported}, and 'developer'.",
                f"{path}.role",
                "invalid_value",
            )
        if message["role"] in ("user", "system", "developer", "tool") and message.get("content") is None:
            raise _rejection("Invalid value for 'content': expected a string, got null.", f"{path}.content", None)
        if message["role"] == "tool" and "tool_call_id" not in message:
            raise _rejection(
                f"Missing required parameter: '{path}.tool_call_id'.",
                f"{path}.tool_call_id",
                "missing_required_parameter",
            )


def _numbers(body: dict[str, Any]) -> None:
    for name in ("max_tokens", "max_completion_tokens", "n"):
        value = body.get(name)
        if value is None:
            continue
        if not is_int(value):
            raise _type(name, "an integer", value)
        if value < 1:
            raise _rejection(
                f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value} instead.",
                name,
                "integer_below_min_value",
            )
    for name, (low, high) in RANGES.items():
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _type(name, "a decimal number", value)
        if not low <= value <= high:
            above = value > high
            raise _rejection(
                f"Invalid '{name}': decimal {'above maximum' if above else 'below minimum'} value. Expected a value "
                f"{'<=' if above else '>='} {high if above else low}, but got {value} instead.",
                name,
                "decimal_above_max_value" if above else "decimal_below_min_value",
            )
    if body.get("top_logprobs") is not None and body.get("logprobs") is not True:
        raise _rejection(
            "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", "top_logprobs", None
        )
    if "stream_options" in body and body["stream_options"] is not None and not body.get("stream"):
        raise _rejection(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options", None
        )


def _reasoning(body: dict[str, Any]) -> None:
    """Reject max_tokens, and sampling fields unless the effort is "none": reasoning models do not support them."""
    if body.get("max_tokens") is not None:
        raise _rejection(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        )
    effort, model = body.get("reasoning_effort"), body["model"]
    tools = body.get("tools") or body.get("functions")
    if ONLY_RESPONSES.match(model):
        raise Rejected(
            404, INVALID, "This model is only supported in v1/responses and not in v1/chat/completions.", "model"
        )
    if tools and NO_TOOLS.match(model):
        raise _rejection(
            f"Function tools are not supported for {model} in /v1/chat/completions. Please use /v1/responses instead.",
            "tools",
            None,
        )
    by_default = "none" if NO_EFFORT_BY_DEFAULT.match(model) else "medium"
    if tools and (effort or by_default) != "none" and NO_TOOLS_WITH_EFFORT.match(model):
        raise _rejection(
            f"Function tools with reasoning_effort are not supported for {body['model']} in /v1/chat/completions. "
            "To use function tools, use /v1/responses or set reasoning_effort to 'none'.",
            "reasoning_effort",
            None,
        )
    if effort == "none":
        return
    temperature = body.get("temperature")
    if temperature not in (None, 1):
        raise _rejection(
            f"Unsupported value: 'temperature' does not support {temperature} with this model. Only the default (1) "
            "value is supported.",
            "temperature",
            "unsupported_value",
        )
    for name in ("top_p", "frequency_penalty", "presence_penalty", "logprobs", "top_logprobs", "logit_bias", "stop"):
        if body.get(name) not in (None, 0, False) and not (name == "top_p" and body[name] == 1):
            raise _rejection(
                f"Unsupported parameter: '{name}' is not supported with this model.", name, "unsupported_parameter"
            )
