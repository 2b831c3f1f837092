"""Content parts, tools and response formats that api.openai.com rejects, with its own messages."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.upstream.rejection import Rejected
from tests.upstream.tool_schemas import openai_problem

PARTS = {
    "user": ("text", "image_url", "input_audio", "file"),
    "assistant": ("text", "refusal"),
    "tool": ("text",),
    "system": ("text",),
    "developer": ("text",),
}
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
MAX_ID = 64
MESSAGE_FIELDS = frozenset(
    {"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio", "function_call", "annotations"}
)


def rejection(message: str, param: str | None, code: str | None = "invalid_value") -> Rejected:
    return Rejected(400, "invalid_request_error", message, param, code)


def check_content(body: dict[str, Any]) -> None:
    _parts(body["messages"])
    _tool_calls_and_results(body["messages"])
    _tools(body)
    _format(body.get("response_format"))


def _parts(messages: list[dict[str, Any]]) -> None:
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        for name in message:
            if name not in MESSAGE_FIELDS:
                raise rejection(f"Unknown parameter: '{path}.{name}'.", f"{path}.{name}", "unknown_parameter")
        content = message.get("content")
        if not isinstance(content, list):
            continue
        for number, part in enumerate(content):
            part_path = f"{path}.content[{number}]"
            if part.get("type") not in PARTS.get(message["role"], ()):
                raise rejection(f"Invalid value: '{part.get('type')}'.", f"{part_path}.type")
            if part["type"] == "image_url":
                url = part["image_url"]["url"]
                if not re.match(r"https?://|data:image/(png|jpeg|gif|webp);base64,", url):
                    raise rejection("Invalid image URL.", f"{part_path}.image_url.url", "invalid_image_url")
            if part["type"] == "file" and not {"file_data", "filename"} <= set(part["file"]):
                raise rejection(
                    f"Missing required parameter: '{part_path}.file.filename'.", f"{part_path}.file.filename"
                )


def _tool_calls_and_results(messages: list[dict[str, Any]]) -> None:
    open_calls: list[str] = []
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                raise rejection(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                    "'tool_calls'.",
                    f"messages.[{index}].role",
                    None,
                )
            open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            raise _unanswered_calls(index, open_calls)
        for number, call in enumerate(message.get("tool_calls") or ()):
            path = f"messages[{index}].tool_calls[{number}]"
            if call["type"] == "function":
                json.loads(call["function"]["arguments"])
                check_name(call["function"]["name"], f"{path}.function.name")
            check_length(call["id"], f"{path}.id", MAX_ID)
            open_calls.append(call["id"])
    if open_calls:
        raise _unanswered_calls(len(messages), open_calls)


def _unanswered_calls(index: int, ids: list[str]) -> Rejected:
    return rejection(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {', '.join(ids)}",
        f"messages.[{index}].role",
        None,
    )


def _tools(body: dict[str, Any]) -> None:
    tools = body.get("tools")
    for name in ("tool_choice", "parallel_tool_calls"):
        if body.get(name) is not None and not tools:
            raise rejection(
                f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified.", name, None
            )
    for index, tool in enumerate(tools or ()):
        if tool.get("type") != "function":
            continue
        function, path = tool["function"], f"tools[{index}].function"
        check_name(function.get("name", ""), f"{path}.name")
        check_parameters(function["name"], function.get("parameters"), f"{path}.parameters")
        if function.get("strict"):
            _strict(function.get("parameters", {}), f"{path}.parameters", "invalid_function_parameters")


def check_name(name: str, path: str) -> None:
    check_length(name, path, 64)
    if not NAME.match(name):
        raise rejection(
            f"Invalid '{path}': string does not match pattern. Expected a string that matches the pattern "
            "'^[a-zA-Z0-9_-]+$'.",
            path,
        )


def check_length(value: str, path: str, most: int) -> None:
    if len(value) > most:
        raise rejection(
            f"Invalid '{path}': string too long. Expected a string with maximum length {most}, but got a string with "
            f"length {len(value)} instead.",
            path,
            "string_above_max_length",
        )


def check_parameters(name: str, schema: Any, path: str) -> None:
    problem = openai_problem(schema) if schema is not None else None
    if problem is not None:
        raise rejection(f"Invalid schema for function '{name}': {problem}", path, "invalid_function_parameters")


def _format(format: Any) -> None:
    if format is None or format.get("type") != "json_schema":
        return
    json_schema = format["json_schema"]
    if not NAME.match(json_schema.get("name", "")):
        raise rejection(
            "Missing required parameter: 'response_format.json_schema.name'.", "response_format.json_schema.name"
        )
    if json_schema.get("strict"):
        _strict(json_schema["schema"], "response_format", None)


def _strict(schema: Any, param: str, code: str | None) -> None:
    if isinstance(schema, list):
        for item in schema:
            _strict(item, param, code)
    elif isinstance(schema, dict):
        if schema.get("type") == "object":
            if schema.get("additionalProperties") is not False:
                raise rejection("'additionalProperties' is required to be supplied and to be false.", param, code)
            if set(schema.get("required", ())) != set(schema.get("properties", {})):
                raise rejection(
                    "'required' is required to be supplied and to be an array including every key.", param, code
                )
        for name, inner in schema.items():
            if name in ("properties", "$defs"):
                _strict(list(inner.values()), param, code)
            elif name in ("items", "anyOf"):
                _strict(inner, param, code)
