"""OpenAI Chat Completions, the client's side: messages, their parts and formats, read for crossing."""

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
    kind: {"type": TRANSLATE, kind: TRANSLATE, "prompt_cache_breakpoint": TRANSLATE}
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
    """The leading system prompt and the turns. What tools answered and what the user says next are one turn.

    Raises InvalidRequest and UnsupportedParameter naming the place.
    """
    system: list[Text] = []
    messages: list[Message] = []
    results: list[Part] = []
    places: list[str] = []
    for index, message in enumerate(given):
        path = f"messages[{index}]"
        role = message["role"]
        # A plain turn, the usual case, has nothing to look for.
        if len(message) > 2 or "content" not in message:
            crossing = FUNCTION_MESSAGE_CROSSING if role == "function" else MESSAGE_CROSSING
            lost = rules.cross(message, crossing, f"{path}.")
            dropped.update((f"messages[].{name}", None) for name in lost)
        if role in ("tool", "function"):
            older = role == "function"
            id = decode_tools.answered_id(given, index) if older else validation.text_at(message, path, "tool_call_id")
            results.append(_read_result(message, path, id))
            places.append(path)
            continue
        turn = _TURNS[role]
        parts, where = _read_turn(message, path, turn, dropped)
        if results and turn == "user":
            parts, where = [*results, *parts], [*places, *where]
            results, places = [], []
        elif results:
            messages.append(Message("user", tuple(results), tuple(places)))
            results, places = [], []
        if turn == "system" and not messages:
            system += [part for part in parts if type(part) is Text]
        else:
            messages.append(Message(turn, tuple(parts), tuple(where)))
    if results:
        messages.append(Message("user", tuple(results), tuple(places)))
    tool_calls.check_pairs(messages, "tool_call_id")
    return system, messages


def _read_turn(message: Mapping[str, Any], path: str, role: Role, dropped: Dropped) -> tuple[list[Part], list[str]]:
    content = message.get("content")
    if isinstance(content, str) and len(message) == 2:
        return [Text(content)], [f"{path}.content"]
    parts: list[Part] = []
    places: list[str] = []
    if role == "assistant":
        _read_thinking(message.get(THINKING), f"{path}.{THINKING}", parts, places)
    if isinstance(content, str):
        if content or not (message.get("tool_calls") or message.get("function_call")):
            parts.append(Text(content))
            places.append(f"{path}.content")
    elif content is not None:
        _read_content(content, f"{path}.content", role, dropped, parts, places)
    if message.get("refusal") is not None:
        parts.append(Refusal(validation.text_of(message, path, "refusal")))
        places.append(f"{path}.refusal")
    decode_tools.read_calls(message, path, parts, places)
    if not parts:
        raise errors.InvalidRequest(f"{path}.content is required.", param=f"{path}.content")
    return parts, places


def _read_content(content: Any, path: str, role: Role, dropped: Dropped, parts: list[Part], places: list[str]) -> None:
    if not content:
        raise errors.InvalidRequest(f"{path} must not be empty.", param=path)
    known = _PARTS[role]
    for index, part in enumerate(content):
        place = f"{path}[{index}]"
        read = known.get(part["type"])
        if read is None:
            validation.unsupported(place)
        if len(part) > 2:
            rules.cross(part, PART_CROSSING[part["type"]], f"{place}.")
        hint = part.get("prompt_cache_breakpoint")
        cache = media.read_cache(hint, media.EXPLICIT, media.OPENAI_TTL, f"{place}.prompt_cache_breakpoint")
        parts.append(read(part, place, dropped, cache))
        places.append(place)


def _read_text(part: Mapping[str, Any], place: str, dropped: Dropped, cache: int | None) -> Part:
    return Text(validation.text_of(part, place), cache)


def _read_refusal(part: Mapping[str, Any], place: str, dropped: Dropped, cache: int | None) -> Part:
    return Refusal(validation.text_of(part, place, "refusal"))


def _read_image(part: Mapping[str, Any], place: str, dropped: Dropped, cache: int | None) -> Part:
    path = f"{place}.image_url"
    image = validation.object_at(part, place, "image_url")
    dropped.update((f"image_url.{name}", None) for name in rules.cross(image, IMAGE_CROSSING, f"{path}."))
    url = validation.text_at(image, path, "url")
    if not url.startswith("data:"):
        return Image(url=media.check_url(url, f"{path}.url"), cache=cache)
    kind, data = media.read_data_url(url, f"{path}.url")
    return Image(data=data, media_type=media.check_image(kind, f"{path}.url"), cache=cache)


def _read_file(part: Mapping[str, Any], place: str, dropped: Dropped, cache: int | None) -> Part:
    path = f"{place}.file"
    file = validation.object_at(part, place, "file")
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
# One row per content part that can cross, by who says it.
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
            place = f"{path}.content[{index}]"
            if part["type"] != "text":
                validation.unsupported(place, "a tool's answer is text")
            rules.cross(part, PART_CROSSING["text"], f"{place}.")
            hint = part.get("prompt_cache_breakpoint")
            cache = media.read_cache(hint, media.EXPLICIT, media.OPENAI_TTL, f"{place}.prompt_cache_breakpoint")
            parts.append(Text(validation.text_of(part, place), cache))
    return ToolResult(id, tuple(parts))


def _read_thinking(given: Any, path: str, parts: list[Part], places: list[str]) -> None:
    if given is None:
        return
    if not isinstance(given, list):
        validation.invalid(path, "must be a list")
    for index, block in enumerate(given):
        place = f"{path}[{index}]"
        if not isinstance(block, dict):
            validation.invalid(place, "must be an object")
        if block.get("type") == "redacted_thinking":
            parts.append(RedactedThinking(validation.text_at(block, place, "data"), "messages"))
        elif block.get("type") == "thinking":
            signature, vendor = reasoning.unsign(str(block.get("signature") or ""))
            parts.append(Thinking(validation.text_at(block, place, "thinking", filled=False), signature, vendor))
        else:
            validation.invalid(f"{place}.type", "must be thinking or redacted_thinking")
        places.append(place)


def read_format(given: Any) -> JsonFormat | None:
    """Raises InvalidRequest and UnsupportedParameter naming the place."""
    if given is None or given.get("type") == "text":
        return None
    if given.get("type") == "json_object":
        return JsonFormat()
    if given.get("type") != "json_schema":
        validation.unsupported("response_format.type")
    rules.cross(given, FORMAT_CROSSING, "response_format.")
    path = "response_format.json_schema"
    told = validation.object_at(given, "response_format", "json_schema")
    rules.cross(told, SCHEMA_CROSSING, f"{path}.")
    schema = validation.object_at(told, path, "schema")
    return JsonFormat(
        schema,
        validation.text_at(told, path, "name"),
        told.get("description"),
        told.get("strict"),
        place=f"{path}.schema",
    )
