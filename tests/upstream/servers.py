"""The strict servers of ready rows: ``/servers/ROW/...`` plays the server of that row of the catalogue.

Each takes only what its vendor takes; docs/providers.md says how sure that is. The rest of the path, after the row's
name, decides the format of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.upstream.http1 import Request
from tests.upstream.rejection import Rejected, bearer, parse

PREFIX = "/servers/"
KEY = "key-of-the-row"
INVALID = "invalid_request_error"
Rule = Callable[[Request, Mapping[str, Any]], None]


def _refuse(message: str, status: int = 400) -> None:
    raise Rejected(status, INVALID, message)


def refuses(*fields: str, status: int = 400) -> Rule:
    def check(request: Request, body: Mapping[str, Any]) -> None:
        for field in fields:
            if field in body:
                _refuse(f"Unknown parameter: {field}", status)

    return check


def no_developer(request: Request, body: Mapping[str, Any]) -> None:
    if any(message["role"] == "developer" for message in body.get("messages", ())):
        _refuse("developer is not one of ['system', 'assistant', 'user', 'tool']")


def header(name: str, value: str) -> Rule:
    def check(request: Request, body: Mapping[str, Any]) -> None:
        if request.headers.get(name) != value:
            _refuse(f"the header {name} is missing or wrong")

    return check


def key_in(name: str) -> Rule:
    def check(request: Request, body: Mapping[str, Any]) -> None:
        if request.headers.get(name) != KEY or "authorization" in request.headers:
            _refuse("the key is not where it belongs", 401)

    return check


def thoughts_back(request: Request, body: Mapping[str, Any]) -> None:
    for message in body.get("messages", ()):
        if message.get("tool_calls") and not isinstance(message.get("reasoning_content"), str):
            _refuse("The reasoning_content in the thinking mode must be passed back to the API.")


def signatures_back(request: Request, body: Mapping[str, Any]) -> None:
    for message in body.get("messages", ()):
        for call in (message.get("tool_calls") or ())[:1]:
            if not call.get("extra_content", {}).get("google", {}).get("thought_signature"):
                _refuse("Function call is missing a thought_signature in functionCall parts.")


def model_in_path(request: Request, body: Mapping[str, Any]) -> None:
    if "model" in body and "count-tokens" not in request.path:
        _refuse("model: Extra inputs are not permitted")


def vertex_version(request: Request, body: Mapping[str, Any]) -> None:
    if body.get("anthropic_version") != "vertex-2023-10-16":
        _refuse("anthropic_version: Field required")


def dated_version(request: Request, body: Mapping[str, Any]) -> None:
    if request.query != "api-version=2024-10-21":
        _refuse("the api-version is missing", 404)


def no_message_names(request: Request, body: Mapping[str, Any]) -> None:
    if any("name" in message for message in body.get("messages", ())):
        _refuse("'messages.0' : property 'name' is unsupported")


OLD_VERSION = header("anthropic-version", "2023-06-01")
OLDER = (refuses("store", "max_completion_tokens"), no_developer)
RULES: Mapping[str, tuple[Rule, ...]] = {
    "azure-dated": (key_in("api-key"), dated_version, model_in_path),
    "foundry": (key_in("x-api-key"),),
    "bedrock-messages": (OLD_VERSION,),
    "anthropic-aws": (header("anthropic-workspace-id", "value-of-ANTHROPIC_AWS_WORKSPACE_ID"),),
    "gemini": (*OLDER, signatures_back),
    "vertex": (*OLDER, signatures_back),
    "vertex-claude": (model_in_path, vertex_version),
    "mistral": (
        *OLDER,
        refuses("stream_options", "user", "metadata", "prompt_cache_key", "frequency_penalty", status=422),
    ),
    "deepseek": (*OLDER, thoughts_back),
    "deepseek-messages": (key_in("x-api-key"),),
    "cohere": OLDER,
    "moonshot": (*OLDER, thoughts_back),
    "moonshot-messages": (OLD_VERSION,),
    "zai": (*OLDER, thoughts_back),
    "zai-messages": (OLD_VERSION,),
    "qwen": OLDER,
    "qwen-messages": (OLD_VERSION,),
    "minimax": (refuses("store"), no_developer),
    "minimax-messages": (OLD_VERSION,),
    "groq": (*OLDER, no_message_names),
    "openrouter": (refuses("max_completion_tokens"),),
    "openrouter-messages": (OLD_VERSION,),
    "together": OLDER,
    "fireworks": (*OLDER, thoughts_back),
    "fireworks-messages": (OLD_VERSION,),
    "cerebras": (
        refuses("store", "parallel_tool_calls", "service_tier", "frequency_penalty", "logit_bias"),
        no_developer,
    ),
    "huggingface": OLDER,
    "cloudflare": OLDER,
    "cloudflare-gateway": (*OLDER, header("cf-aig-authorization", "Bearer value-of-CF_AIG_TOKEN")),
    "databricks": (*OLDER, refuses("stream_options")),
    "databricks-messages": (OLD_VERSION,),
    "nvidia": OLDER,
    "ollama": OLDER,
    "vllm": OLDER,
    "lmstudio": OLDER,
    "llamacpp": OLDER,
    "sglang": OLDER,
    "litellm": (refuses("store"),),
}


def row_of(path: str) -> str:
    return path.removeprefix(PREFIX).partition("/")[0]


def check(request: Request) -> dict[str, Any]:
    """The body of a request that the server takes. Raises Rejected."""
    body = parse(request.body)
    if not isinstance(body, dict):
        raise Rejected(400, INVALID, "The body is not JSON")
    row = row_of(request.path)
    given = bearer(request) or request.headers.get("x-api-key") or request.headers.get("api-key")
    if given != KEY:
        raise Rejected(401, "authentication_error", "The key is wrong")
    for name in request.headers:
        if name.startswith(("openai-", "x-of-")):
            raise Rejected(400, INVALID, f"The header {name} belongs to another vendor")
    for rule in RULES.get(row, ()):
        rule(request, body)
    return body
