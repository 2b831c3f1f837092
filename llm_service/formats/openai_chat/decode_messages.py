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
from llm_service.formats.openai_chat.decode_tools import Dropped
from llm_service.formats.openai_chat.schema import PROVIDERS_OWN, THINKING, UNSIGNED_THOUGHTS
from llm_service.formats.rules import DROP, TRANSLATE, FieldRule, drop_unless

_TURNS: Mapping[str, Role] = {
    "developer": "system",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
}
# What happens to the members of a message. ``rules.cross_turn`` says what happens to any other member.
MESSAGE_CROSSING: Mapping[str, FieldRule] = {
    **dict.fromkeys(("role", "content", "refusal", "tool_calls", "tool_call_id", "function_call", "audio"), TRANSLATE),
    **dict.fromkeys(("cache_control", "prompt_cache_breakpoint", THINKING), TRANSLATE),
    "name": DROP,
    "annotations": drop_unless([]),
    # The reasoning of earlier answers, as other servers and LiteLLM write it. Nobody signed it.
    **dict.fromkeys(UNSIGNED_THOUGHTS, DROP),
}
FUNCTION_MESSAGE_CROSSING: Mapping[str, FieldRule] = dict.fromkeys(("role", "name", "content"), TRANSLATE)
PART_CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
    kind: dict.fromkeys(("type", kind, "prompt_cache_breakpoint", "cache_control"), TRANSLATE)
    for kind in ("text", "image_url", "file", "refusal")
}
# Any other member of an image or a file says how to read it, and is dropped.
IMAGE_CROSSING: Mapping[str, FieldRule] = {"url": TRANSLATE, "detail": TRANSLATE}
FILE_CROSSING: Mapping[str, FieldRule] = dict.fromkeys(("file_data", "filename", "file_id"), TRANSLATE)
FORMAT_CROSSING: Mapping[str, FieldRule] = {"type": TRANSLATE, "json_schema": TRANSLATE}
SCHEMA_CROSSING: Mapping[str, FieldRule] = {
    "name": TRANSLATE,
    "description": TRANSLATE,
    "schema": TRANSLATE,
    "strict": TRANSLATE,
}


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
            _check_members(message, path, dropped)
        if role in ("tool", "function"):
            older = role == "function"
            if older:
                id = decode_tools.answered_id(given, index)
            else:
                id = validation.text_at(message, path, "tool_call_id")
            results.append(_read_result(message, path, id, dropped))
            paths.append(path)
            continue
        turn = _TURNS[role]
        parts, turn_paths = _read_turn(message, path, turn, dropped)
        if not parts:
            continue  # an empty turn of the assistant says nothing
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


def _check_members(message: Mapping[str, Any], path: str, dropped: Dropped) -> None:
    role = message["role"]
    crossing = FUNCTION_MESSAGE_CROSSING if role == "function" else MESSAGE_CROSSING
    names = rules.cross_turn(message, crossing, f"{path}.", answered=role == "assistant")
    own = PROVIDERS_OWN if _thoughts_of(message) is not message.get(THINKING) else None
    rules.name_dropped(dropped, "messages[]", [name for name in names if name != own])


def _thoughts_of(message: Mapping[str, Any]) -> Any:
    """Our own field with Claude's thinking. LiteLLM keeps a field that it does not know in a field of its own."""
    thoughts, own = message.get(THINKING), message.get(PROVIDERS_OWN)
    return own.get(THINKING) if thoughts is None and isinstance(own, dict) else thoughts


def _read_turn(message: Mapping[str, Any], path: str, role: Role, dropped: Dropped) -> tuple[list[Part], list[str]]:
    content = message.get("content")
    if isinstance(content, str) and len(message) == 2 and (content or role != "assistant"):
        return [Text(content)], [f"{path}.content"]
    parts: list[Part] = []
    paths: list[str] = []
    if role == "assistant":
        _read_thinking(_thoughts_of(message), f"{path}.{THINKING}", parts, paths)
    if isinstance(content, str):
        if content or role != "assistant":
            parts.append(Text(content))
            paths.append(f"{path}.content")
    elif content is not None:
        _read_content(content, f"{path}.content", role, dropped, parts, paths)
    if message.get("refusal") is not None:
        parts.append(Refusal(validation.text_of(message, path, "refusal")))
        paths.append(f"{path}.refusal")
    if message.get("audio") is not None:
        _read_audio(message, path, parts, paths)
    decode_tools.read_calls(message, path, dropped, parts, paths)
    if not parts and role != "assistant":
        raise errors.InvalidRequest(f"{path}.content is required.", param=f"{path}.content")
    cache = media.read_part_cache(message, dropped)
    if cache is not None and parts:
        parts[-1] = media.with_cache(parts[-1], cache)
    return parts, paths


def _read_audio(message: Mapping[str, Any], path: str, parts: list[Part], paths: list[str]) -> None:
    """A spoken answer: its transcript, where the message does not have the text besides."""
    transcript = validation.object_at(message, path, "audio").get("transcript")
    if isinstance(transcript, str) and not parts:
        parts.append(Text(transcript))
        paths.append(f"{path}.audio")
    elif not parts:
        validation.unsupported(f"{path}.audio", "only OpenAI has the spoken answer: send its transcript as content")


def _read_content(content: Any, path: str, role: str, dropped: Dropped, parts: list[Part], paths: list[str]) -> None:
    answered = role == "assistant"
    if not content and not answered:
        raise errors.InvalidRequest(f"{path} must not be empty.", param=path)
    for index, part in enumerate(content):
        part_path, kind = f"{path}[{index}]", part["type"]
        read = _PARTS[role].get(kind)
        if read is None:
            if not answered:
                validation.unsupported(part_path)
            rules.name_dropped(dropped, "messages[].content[]", [kind])
            continue
        if len(part) > 2:
            names = rules.cross_turn(part, PART_CROSSING[kind], f"{part_path}.", answered=answered)
            rules.name_dropped(dropped, "messages[].content[]", names)
        parts.append(read(part, part_path, dropped, media.read_part_cache(part, dropped)))
        paths.append(part_path)


def _read_text(part: Mapping[str, Any], part_path: str, dropped: Dropped, cache: int | None) -> Part:
    return Text(validation.text_of(part, part_path), cache)


def _read_refusal(part: Mapping[str, Any], part_path: str, dropped: Dropped, cache: int | None) -> Part:
    return Refusal(validation.text_of(part, part_path, "refusal"))


def _read_image(part: Mapping[str, Any], part_path: str, dropped: Dropped, cache: int | None) -> Part:
    path = f"{part_path}.image_url"
    image = validation.object_at(part, part_path, "image_url")
    rules.name_dropped(dropped, "image_url", rules.cross(image, IMAGE_CROSSING, f"{path}.", DROP))
    url = validation.text_at(image, path, "url")
    detail = image.get("detail") if isinstance(image.get("detail"), str) else None
    if not url.startswith("data:"):
        return Image(url=media.check_url(url, f"{path}.url"), cache=cache, detail=detail)
    kind, data = media.read_data_url(url, f"{path}.url")
    return Image(data=data, media_type=media.check_image(kind, f"{path}.url"), cache=cache, detail=detail)


def _read_file(part: Mapping[str, Any], part_path: str, dropped: Dropped, cache: int | None) -> Part:
    path = f"{part_path}.file"
    file = validation.object_at(part, part_path, "file")
    rules.name_dropped(dropped, "file", rules.cross(file, FILE_CROSSING, f"{path}.", DROP))
    if file.get("file_id") is not None:
        return Document(file_id=validation.text_at(file, path, "file_id"), cache=cache)
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
    # OpenAI takes only text here. Other vendors also take what a tool shows.
    "tool": {"text": _read_text, "image_url": _read_image, "file": _read_file},
}


def _read_result(message: Mapping[str, Any], path: str, id: str, dropped: Dropped) -> ToolResult:
    parts: list[Any] = []
    content = message.get("content")
    if isinstance(content, str):
        parts = [Text(content)] if content else []
    elif content:
        _read_content(content, f"{path}.content", "tool", dropped, parts, [])
    return ToolResult(id, tuple(parts), cache=media.read_part_cache(message, dropped))


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
            data, vendor = reasoning.unsign(validation.text_at(block, part_path, "data"))
            parts.append(RedactedThinking(data, vendor))
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
