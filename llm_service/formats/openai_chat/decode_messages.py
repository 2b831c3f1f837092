"""OpenAI Chat Completions, the client's side: reads messages, their parts and the answer's format for translation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from llm_service.core import errors
from llm_service.core.content import (
    Document,
    Image,
    JsonFormat,
    Message,
    Part,
    RedactedThinking,
    Refusal,
    Role,
    Text,
    Thinking,
    ToolResult,
)
from llm_service.formats import media, reasoning, rules, tool_calls, validation
from llm_service.formats.openai_chat import decode_tools
from llm_service.formats.openai_chat.schema import THINKING
from llm_service.formats.rules import REJECT, TRANSLATE, FieldRule, drop_unless

_TURNS: Mapping[str, Role] = {
    "developer": "system",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
}
MESSAGE_CROSSING: Mapping[str, FieldRule] = {
    "role": TRANSLATE,
    "content": TRANSLATE,
    "refusal": TRANSLATE,
    "tool_calls": TRANSLATE,
    "tool_call_id": TRANSLATE,
    THINKING: TRANSLATE,
    "name": drop_unless(),
    "annotations": drop_unless([]),
    "function_call": TRANSLATE,
    "audio": REJECT,
}
FUNCTION_MESSAGE_CROSSING: Mapping[str, FieldRule] = dict.fromkeys(("role", "name", "content"), TRANSLATE)
PART_CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
    kind: dict.fromkeys(("type", kind, "prompt_cache_breakpoint", "cache_control"), TRANSLATE)
    for kind in ("text", "image_url", "file", "refusal")
}
IMAGE_CROSSING: Mapping[str, FieldRule] = {"url": TRANSLATE, "detail": drop_unless("auto")}
FILE_CROSSING: Mapping[str, FieldRule] = {"file_data": TRANSLATE, "filename": TRANSLATE, "file_id": REJECT}
FORMAT_CROSSING: Mapping[str, FieldRule] = {"type": TRANSLATE, "json_schema": TRANSLATE}
SCHEMA_CROSSING: Mapping[str, FieldRule] = {
    "name": TRANSLATE,
    "description": TRANSLATE,
    "schema": TRANSLATE,
    "strict": TRANSLATE,
}

Dropped: TypeAlias = dict[str, None]


def read_messages(given: Sequence[Mapping[str, Any]], dropped: Dropped) -> tuple[list[Text], list[Message]]:
    """The leading system prompt and the turns. The results of tools and the user's next message are one turn.

    Raises InvalidRequest and UnsupportedParameter naming the path.
    """
    system: list[Text] = []
    messages: list[Message] = []
    results: list[Part] = []
    paths: list[str] = []
    for index, message in enumerate(given):
        path = f"messages[{index}]"
        role = message["role"]
        # A turn with a role and a content only, the usual case, needs no check.
        if len(message) > 2 or "content" not in message:
            crossing = FUNCTION_MESSAGE_CROSSING if role == "function" else MESSAGE_CROSSING
            names = rules.cross(message, crossing, f"{path}.")
            dropped.update((f"messages[].{name}", None) for name in names)
        if role in ("tool", "function"):
            older = role == "function"
            id = decode_tools.answered_id(given, index) if older else validation.text_at(message, path, "tool_call_id")
            results.append(_read_result(message, path, id))
            paths.append(path)
            continue
        turn = _TURNS[role]
        parts, turn_paths = _read_turn(message, path, turn, dropped)
        if results and turn == "user":
            parts, turn_paths = [*results, *parts], [*paths, *turn_paths]
            results, paths = [], []
        elif results:
            messages.append(Message("user", tuple(results), tuple(paths)))
            results, paths = [], []
        if turn == "system" and not messages:
            system += [part for part in parts if type(part) is Text]
        else:
            messages.append(Message(turn, tuple(parts), tuple(turn_paths)))
    if results:
        messages.append(Message("user", tuple(results), tuple(paths)))
    tool_calls.check_pairs(messages, "tool_call_id")
    return system, messages


def _read_turn(message: Mapping[str, Any], path: str, role: Role, dropped: Dropped) -> tuple[list[Part], list[str]]:
    content = message.get("content")
    if isinstance(content, str) and len(message) == 2:
        return [Text(content)], [f"{path}.content"]
    parts: list[Part] = []
    paths: list[str] = []
    if role == "assistant":
        _read_thinking(message.get(THINKING), f"{path}.{THINKING}", parts, paths)
    if isinstance(content, str):
        if content or not (message.get("tool_calls") or message.get("function_call")):
            parts.append(Text(content))
            paths.append(f"{path}.content")
    elif content is not None:
        _read_content(content, f"{path}.content", role, dropped, parts, paths)
    if message.get("refusal") is not None:
        parts.append(Refusal(validation.text_of(message, path, "refusal")))
        paths.append(f"{path}.refusal")
    decode_tools.read_calls(message, path, parts, paths)
    if not parts:
        raise errors.InvalidRequest(f"{path}.content is required.", param=f"{path}.content")
    return parts, paths


def _read_content(content: Any, path: str, role: Role, dropped: Dropped, parts: list[Part], paths: list[str]) -> None:
    if not content:
        raise errors.InvalidRequest(f"{path} must not be empty.", param=path)
    known = _PARTS[role]
    for index, part in enumerate(content):
        part_path = f"{path}[{index}]"
        read = known.get(part["type"])
        if read is None:
            validation.unsupported(part_path)
        if len(part) > 2:
            rules.cross(part, PART_CROSSING[part["type"]], f"{part_path}.")
        parts.append(read(part, part_path, dropped, media.read_part_cache(part, part_path)))
        paths.append(part_path)


def _read_text(part: Mapping[str, Any], part_path: str, dropped: Dropped, cache: int | None) -> Part:
    return Text(validation.text_of(part, part_path), cache)


def _read_refusal(part: Mapping[str, Any], part_path: str, dropped: Dropped, cache: int | None) -> Part:
    return Refusal(validation.text_of(part, part_path, "refusal"))


def _read_image(part: Mapping[str, Any], part_path: str, dropped: Dropped, cache: int | None) -> Part:
    path = f"{part_path}.image_url"
    image = validation.object_at(part, part_path, "image_url")
    dropped.update((f"image_url.{name}", None) for name in rules.cross(image, IMAGE_CROSSING, f"{path}."))
    url = validation.text_at(image, path, "url")
    if not url.startswith("data:"):
        return Image(url=media.check_url(url, f"{path}.url"), cache=cache)
    kind, data = media.read_data_url(url, f"{path}.url")
    return Image(data=data, media_type=media.check_image(kind, f"{path}.url"), cache=cache)


def _read_file(part: Mapping[str, Any], part_path: str, dropped: Dropped, cache: int | None) -> Part:
    path = f"{part_path}.file"
    file = validation.object_at(part, part_path, "file")
    rules.cross(file, FILE_CROSSING, f"{path}.")
    data = validation.text_at(file, path, "file_data")
    kind = media.PDF
    if data.startswith("data:"):
        kind, data = media.read_data_url(data, f"{path}.file_data")
    if kind != media.PDF:
        validation.unsupported(f"{path}.file_data", f"a file must be of type {media.PDF}")
    title = validation.text_at(file, path, "filename") if file.get("filename") is not None else None
    return Document(data=data, media_type=kind, title=title, cache=cache)


_Reader: TypeAlias = Callable[[Mapping[str, Any], str, Dropped, int | None], Part]
# One row per content part that can be translated, by the role of its message.
_PARTS: Mapping[str, Mapping[str, _Reader]] = {
    "system": {"text": _read_text},
    "user": {"text": _read_text, "image_url": _read_image, "file": _read_file},
    "assistant": {"text": _read_text, "refusal": _read_refusal},
    "tool": {"text": _read_text},
}


def _read_result(message: Mapping[str, Any], path: str, id: str) -> ToolResult:
    parts: list[Any] = []
    content = message.get("content")
    if isinstance(content, str):
        parts = [Text(content)] if content else []
    elif content:
        for index, part in enumerate(content):
            part_path = f"{path}.content[{index}]"
            if part["type"] != "text":
                validation.unsupported(part_path, "the answer of a tool must be text")
            rules.cross(part, PART_CROSSING["text"], f"{part_path}.")
            parts.append(Text(validation.text_of(part, part_path), media.read_part_cache(part, part_path)))
    return ToolResult(id, tuple(parts))


def _read_thinking(given: Any, path: str, parts: list[Part], paths: list[str]) -> None:
    if given is None:
        return
    if not isinstance(given, list):
        validation.invalid(path, "must be a list")
    for index, block in enumerate(given):
        part_path = f"{path}[{index}]"
        if not isinstance(block, dict):
            validation.invalid(part_path, "must be an object")
        if block.get("type") == "redacted_thinking":
            parts.append(RedactedThinking(validation.text_at(block, part_path, "data"), "messages"))
        elif block.get("type") == "thinking":
            signature, vendor = reasoning.unsign(str(block.get("signature") or ""))
            parts.append(Thinking(validation.text_at(block, part_path, "thinking", filled=False), signature, vendor))
        else:
            validation.invalid(f"{part_path}.type", "must be thinking or redacted_thinking")
        paths.append(part_path)


def read_format(given: Any) -> JsonFormat | None:
    """The JSON that the answer must be. Raises InvalidRequest and UnsupportedParameter naming the path."""
    if given is None or given.get("type") == "text":
        return None
    if given.get("type") == "json_object":
        return JsonFormat()
    if given.get("type") != "json_schema":
        validation.unsupported("response_format.type")
    rules.cross(given, FORMAT_CROSSING, "response_format.")
    path = "response_format.json_schema"
    wanted = validation.object_at(given, "response_format", "json_schema")
    rules.cross(wanted, SCHEMA_CROSSING, f"{path}.")
    schema = validation.object_at(wanted, path, "schema")
    return JsonFormat(
        schema,
        validation.text_at(wanted, path, "name"),
        wanted.get("description"),
        wanted.get("strict"),
        path=f"{path}.schema",
    )
