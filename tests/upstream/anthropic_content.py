"""Content blocks, tools and output formats that api.anthropic.com rejects, with its own messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.upstream.rejection import Rejected
from tests.upstream.tool_schemas import anthropic_problem

IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
SOURCES = {
    "image": {"base64": ("data", "media_type"), "url": ("url",), "file": ("file_id",)},
    "document": {
        "base64": ("data", "media_type"),
        "text": ("data", "media_type"),
        "content": ("content",),
        "url": ("url",),
        "file": ("file_id",),
    },
}
# The vendor's own signatures are base64.
SIGNED = re.compile(r"[A-Za-z0-9+/=_-]+\Z")
REQUIRED_FIELDS = {
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
    "thinking": ("thinking", "signature"),
    "redacted_thinking": ("data",),
    "image": ("source",),
    "document": ("source",),
    "text": ("text",),
}
# Models that reject a forced tool beside adaptive thinking (langchain-aws#1141 says which newer ones accept it), and
# those that reject it in any case (platform.claude.com, "What's new in Claude Opus 5.5" and "... Sonnet 5.5").
FORCED_WITHOUT_THINKING = re.compile(r"-4-[567]")
NEVER_FORCED = re.compile(r"-5-5|fable-5-1")
NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
UNSUPPORTED_KEYWORDS = ("minLength", "maxLength", "minimum", "maximum", "pattern", "maxItems", "oneOf")


def invalid(message: str) -> Rejected:
    return Rejected(400, "invalid_request_error", message)


def check_content(body: dict[str, Any]) -> None:
    _blocks(body)
    _tool_calls_and_results(body["messages"])
    _cache_controls(body)
    _tools(body)
    _output(body)


def _blocks(body: dict[str, Any]) -> None:
    for index, message in enumerate(body["messages"]):
        if not isinstance(message.get("content"), list):
            continue
        for number, block in enumerate(message["content"]):
            path = f"messages.{index}.content.{number}"
            _block(block, path)
            if block["type"] == "tool_use" and message["role"] != "assistant":
                raise invalid(f"{path}: `tool_use` blocks can only be in `assistant` messages")
            if block["type"] == "document" and message["role"] == "assistant":
                raise invalid(f"{path}: `document` blocks can only be in `user` messages")


def _block(block: dict[str, Any], path: str) -> None:
    kind = block["type"]
    for name in REQUIRED_FIELDS.get(kind, ()):
        if name not in block:
            raise invalid(f"{path}.{kind}.{name}: Field required")
    if kind in SOURCES:
        source = block["source"]
        required = SOURCES[kind].get(source.get("type"))
        if required is None or any(name not in source for name in required):
            raise invalid(f"{path}.{kind}.source: Input should be a valid source")
        if kind == "image" and source["type"] == "base64" and source["media_type"] not in IMAGES:
            raise invalid(f"{path}.image.source.base64.media_type: Input should be 'image/jpeg', 'image/png', ...")
    if kind == "thinking" and not SIGNED.match(block["signature"] or ""):
        raise invalid(f"{path}: Invalid `signature` in `thinking` block")
    if kind == "tool_use" and not isinstance(block["input"], dict):
        raise invalid(f"{path}.tool_use.input: Input should be a valid dictionary")
    if kind == "tool_use" and not NAME.fullmatch(block["name"]):
        raise invalid(f"{path}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    id_field = {"tool_use": "id", "tool_result": "tool_use_id"}.get(kind)
    if id_field is not None and not re.fullmatch(r"[a-zA-Z0-9_-]+", block[id_field]):
        raise invalid(f"{path}.{kind}.{id_field}: String should match pattern '^[a-zA-Z0-9_-]+$'")
    if kind == "tool_result" and block.get("is_error") and not block.get("content"):
        raise invalid(f"{path}.tool_result: content cannot be empty if `is_error` is true")
    if kind == "tool_result" and isinstance(block.get("content"), list):
        for number, inner in enumerate(block["content"]):
            _block(inner, f"{path}.tool_result.content.{number}")


def _tool_calls_and_results(messages: list[dict[str, Any]]) -> None:
    """Check that tool calls and results match. The API treats consecutive turns of one role as one turn."""
    turns: list[tuple[str, list[dict[str, Any]]]] = []
    for message in messages:
        content = message["content"]
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        if turns and turns[-1][0] == message["role"]:
            turns[-1] = (message["role"], [*turns[-1][1], *blocks])
        else:
            turns.append((message["role"], blocks))
    open_calls: list[str] = []
    seen: set[str] = set()
    for index, (role, blocks) in enumerate(turns):
        if role == "assistant" and blocks and blocks[-1]["type"] in ("thinking", "redacted_thinking"):
            raise invalid(f"messages.{index}: The final block in an assistant message cannot be `thinking`.")
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if set(results) - set(open_calls):
            raise invalid(f"messages.{index}: unexpected `tool_use_id` found in `tool_result` blocks")
        if set(open_calls) - set(results):
            raise invalid(f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after")
        if results and any(block["type"] != "tool_result" for block in blocks[: len(results)]):
            raise invalid(f"messages.{index}: `tool_result` blocks must come first")
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if len(set(open_calls)) < len(open_calls) or seen.intersection(open_calls):
            raise invalid(f"messages.{index}: `tool_use` ids must be unique")
        seen.update(open_calls)


def _cache_controls(value: Any) -> None:
    if sum(1 for _ in _find_cache_controls(value)) > 4:
        raise invalid("A maximum of 4 blocks with cache_control may be provided.")


def _find_cache_controls(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        if "cache_control" in value:
            cache_control = value["cache_control"]
            if cache_control.get("type") != "ephemeral" or cache_control.get("ttl", "5m") not in ("5m", "1h"):
                raise invalid("cache_control: Input should be a valid cache control")
            yield cache_control
        for inner in value.values():
            yield from _find_cache_controls(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _find_cache_controls(inner)


def _tools(body: dict[str, Any]) -> None:
    tools = body.get("tools") or []
    for index, tool in enumerate(tools):
        if tool.get("type", "custom") == "custom":
            if not NAME.fullmatch(tool["name"]):
                raise invalid(f"tools.{index}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
            problem = anthropic_problem(tool.get("input_schema"))
            if problem is not None:
                raise invalid(f"tools.{index}.custom.input_schema{problem}")
        if tool.get("strict"):
            _schema(tool["input_schema"], f"tools.{index}.custom.input_schema")
    if len({tool["name"] for tool in tools}) < len(tools):
        raise invalid("tools: Tool names must be unique.")
    if not tools and any(block["type"] in ("tool_use", "tool_result") for block in _find_blocks(body["messages"])):
        raise invalid("Requests which include `tool_use` or `tool_result` blocks must define tools.")
    choice = body.get("tool_choice")
    if choice is not None and not tools:
        raise invalid("tool_choice: may only be specified while providing `tools`.")
    if choice is not None and choice.get("type") not in ("auto", "any", "tool", "none"):
        raise invalid("tool_choice: Input tag does not match any of the expected tags")
    if choice is not None and choice["type"] == "none" and "disable_parallel_tool_use" in choice:
        raise invalid("tool_choice.none.disable_parallel_tool_use: Extra inputs are not permitted")
    kind = body["thinking"].get("type") if isinstance(body.get("thinking"), dict) else None
    is_thinking = kind == "enabled"
    forced = choice is not None and choice["type"] in ("any", "tool")
    if forced and NEVER_FORCED.search(body["model"]):
        raise invalid("tool_choice: forced tool use is not supported on this model.")
    if forced and (is_thinking or (kind == "adaptive" and FORCED_WITHOUT_THINKING.search(body["model"]))):
        raise invalid("Thinking may not be enabled when tool_choice forces tool use.")
    if is_thinking:
        _begins_with_thinking(body["messages"])
        if any(name in body for name in ("temperature", "top_k")):
            raise invalid("`temperature` may only be set to 1 when thinking is enabled.")


def _find_blocks(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if isinstance(message["content"], list):
            yield from message["content"]


def _begins_with_thinking(messages: list[dict[str, Any]]) -> None:
    for message in reversed(messages):
        if message["role"] == "assistant" and isinstance(message["content"], list):
            kinds = [block["type"] for block in message["content"]]
            if "tool_use" in kinds and kinds[0] not in ("thinking", "redacted_thinking"):
                raise invalid("Expected `thinking` or `redacted_thinking`, but found `tool_use`.")
            return


def _output(body: dict[str, Any]) -> None:
    config = body.get("output_config") or {}
    if set(config) - {"effort", "format"}:
        raise invalid("output_config: Extra inputs are not permitted")
    if config.get("effort") not in (None, "low", "medium", "high", "xhigh", "max"):
        raise invalid("output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    if config.get("effort") and any(name in body["model"] for name in ("sonnet-4-5", "haiku-4-5")):
        raise invalid("This model does not support the effort parameter.")
    format = config.get("format")
    if format is not None:
        if format.get("type") != "json_schema" or "schema" not in format:
            raise invalid("output_config.format: Input should be a valid format")
        _schema(format["schema"], "output_config.format.schema")


def _schema(schema: Any, path: str) -> None:
    if isinstance(schema, list):
        for item in schema:
            _schema(item, path)
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            raise invalid(f"{path}: For 'object' type, 'additionalProperties' must be explicitly set to false")
        for name in UNSUPPORTED_KEYWORDS:
            if name in schema:
                raise invalid(f"{path}: For '{schema.get('type')}' type, property '{name}' is not supported")
        for name, inner in schema.items():
            if name in ("properties", "$defs"):
                _schema(list(inner.values()), path)
            elif name in ("items", "anyOf", "allOf"):
                _schema(inner, path)
