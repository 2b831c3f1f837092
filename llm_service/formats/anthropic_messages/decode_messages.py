"""Anthropic Messages, the client's side: messages and their content blocks, for a model of another format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from llm_service.core import errors
from llm_service.core.content import (
    Document,
    Image,
    Message,
    Part,
    RedactedThinking,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from llm_service.core.identifiers import field_name
from llm_service.formats import media, reasoning, rules, tool_calls, validation
from llm_service.formats.rules import DROP, TRANSLATE, FieldRule, drop_unless, reject_unless

# The names of the fields that are dropped, in their order.
Dropped: TypeAlias = dict[str, None]

MESSAGE_CROSSING: Mapping[str, FieldRule] = {"role": TRANSLATE, "content": TRANSLATE, "cache_control": DROP}
# Clients send it back when they return a block of an answer unchanged.
_CALLER: FieldRule = drop_unless({"type": "direct"})
# Without it the answer would not say where its statements come from.
_CITATIONS: FieldRule = reject_unless({"enabled": False})
# What happens to the members of each block. ``rules.cross_turn`` says what happens to any other member.
BLOCK_CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
    "text": {**dict.fromkeys(("type", "text", "cache_control"), TRANSLATE), "citations": drop_unless([])},
    "image": {
        **dict.fromkeys(("type", "source", "cache_control"), TRANSLATE),
        "transformations": drop_unless(),
    },
    "document": {
        **dict.fromkeys(("type", "source", "title", "context", "cache_control"), TRANSLATE),
        "citations": _CITATIONS,
    },
    "search_result": {
        **dict.fromkeys(("type", "source", "title", "content", "cache_control"), TRANSLATE),
        "citations": _CITATIONS,
    },
    "tool_use": {
        **dict.fromkeys(("type", "id", "name", "input", "cache_control"), TRANSLATE),
        "caller": _CALLER,
        "toolset_name": DROP,
    },
    "tool_result": {
        **dict.fromkeys(("type", "tool_use_id", "content", "is_error", "cache_control"), TRANSLATE),
        "toolset_name": DROP,
    },
    "tool_reference": dict.fromkeys(("type", "tool_name", "cache_control"), TRANSLATE),
    "thinking": dict.fromkeys(("type", "thinking", "signature"), TRANSLATE),
    "redacted_thinking": dict.fromkeys(("type", "data"), TRANSLATE),
}


def read_messages(given: Iterable[Mapping[str, Any]], dropped: Dropped) -> tuple[Message, ...]:
    """The turns of a request. An empty turn of the assistant says nothing, so it is left out.

    Raises InvalidRequest and UnsupportedParameter with the path of what is wrong.
    """
    messages: list[Message] = []
    for index, message in enumerate(given):
        path = f"messages[{index}]"
        role, content = message["role"], message["content"]
        if len(message) > 2:
            names = rules.cross_turn(message, MESSAGE_CROSSING, f"{path}.", answered=role == "assistant")
            rules.name_dropped(dropped, "messages[]", names)
        parts: tuple[Part, ...] = (Text(content),) if isinstance(content, str) else ()
        paths: tuple[str, ...] = (f"{path}.content",)
        if not isinstance(content, str):
            parts, paths = read_blocks(content, f"{path}.content", role, dropped)
            _check_order(parts, paths)
        if parts and (content or role != "assistant"):
            _add(messages, Message(role, parts, paths))
    tool_calls.check_pairs(messages, "tool_use_id")
    return tuple(messages)


def _add(messages: list[Message], message: Message) -> None:
    """Add a turn. Anthropic reads turns of one role in a row as one turn.

    Here that matters where tool calls or their results are spread over such turns. Other turns stay apart.
    """
    last = messages[-1] if messages else None
    if last is not None and last.role == message.role and _goes_on(last, message):
        message = Message(last.role, last.parts + message.parts, last.paths + message.paths)
        messages.pop()
    messages.append(message)


def _goes_on(last: Message, message: Message) -> bool:
    if message.role == "assistant":
        return any(type(part) is ToolCall for part in last.parts)
    return type(last.parts[-1]) is ToolResult and type(message.parts[0]) is ToolResult


def read_system(given: Any, dropped: Dropped) -> tuple[Text, ...]:
    """The system prompt. Raises InvalidRequest and UnsupportedParameter with the path of what is wrong."""
    if not given:
        return ()
    if isinstance(given, str):
        return (Text(given),)
    parts, _ = read_blocks(given, "system", "system", dropped)
    return tuple(part for part in parts if type(part) is Text)


def _check_order(parts: Iterable[Part], paths: tuple[str, ...]) -> None:
    """Tool results must come before everything else in the user's message."""
    other_content = False
    for part, path in zip(parts, paths, strict=True):
        if type(part) is not ToolResult:
            other_content = True
        elif other_content:
            validation.invalid(path, "must come before all other content of its message")


# Blocks with which a client's search for tools offers a tool in the middle of a conversation, or takes it back. A model
# of another vendor is offered every tool of the request from the start.
TOOL_CHANGES = ("tool_addition", "tool_removal")


def read_blocks(content: Any, path: str, where: str, dropped: Dropped) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """The parts of ``content`` and their paths.

    ``path`` is the path of the list. ``where`` is a key of ``BLOCKS``: the role of the message, or ``tool_result``. A
    block of the assistant that only Anthropic's servers make, such as the result of a tool that they ran, is dropped
    and named, and so is each member of the assistant's blocks that is not known here.
    """
    parts: list[Part] = []
    paths: list[str] = []
    answered = where == "assistant"
    for index, block in enumerate(content):
        block_path = f"{path}[{index}]"
        kind = block["type"]
        read = BLOCKS[where].get(kind)
        if read is None:
            if not answered and kind not in TOOL_CHANGES:
                validation.unsupported(block_path)
            dropped[f"messages[].{field_name(kind)}"] = None
            continue
        if len(block) > 2:
            names = rules.cross_turn(block, BLOCK_CROSSING[kind], f"{block_path}.", answered=answered)
            rules.name_dropped(dropped, kind, [name for name in names if name != "caller"])
        hint = block.get("cache_control")
        cache = None
        if hint is not None:
            cache = media.read_cache(hint, media.EPHEMERAL, media.ANTHROPIC_TTL, "cache_control", dropped)
        parts.append(read(block, block_path, dropped, cache))
        paths.append(block_path)
    if not parts and not answered and not any(block["type"] in TOOL_CHANGES for block in content):
        raise errors.UnsupportedParameter(
            f"{path} has no content that the model can read: add a content block.", param=path
        )
    return tuple(parts), tuple(paths)


def _read_text(block: Mapping[str, Any], path: str, dropped: Dropped, cache: int | None) -> Part:
    return Text(validation.text_of(block, path), cache)


def _read_image(block: Mapping[str, Any], path: str, dropped: Dropped, cache: int | None) -> Part:
    source, source_path = validation.object_at(block, path, "source"), f"{path}.source"
    match source.get("type"):
        case "base64":
            kind = media.check_image(validation.text_at(source, source_path, "media_type"), f"{source_path}.media_type")
            return Image(data=validation.text_at(source, source_path, "data"), media_type=kind, cache=cache)
        case "url":
            return Image(
                url=media.check_url(validation.text_at(source, source_path, "url"), f"{source_path}.url"), cache=cache
            )
        case "file":
            validation.unsupported(source_path, "only Anthropic has the file")
    validation.invalid(f"{source_path}.type", "must be base64, url or file")


def _read_document(block: Mapping[str, Any], path: str, dropped: Dropped, cache: int | None) -> Part:
    source, source_path = validation.object_at(block, path, "source"), f"{path}.source"
    title, context = (
        validation.text_at(block, path, name) if block.get(name) is not None else None for name in ("title", "context")
    )
    match source.get("type"):
        case "base64":
            kind = validation.text_at(source, source_path, "media_type")
            if kind != media.PDF:
                validation.invalid(f"{source_path}.media_type", f"must be {media.PDF}")
            data = validation.text_at(source, source_path, "data")
            return Document(data=data, media_type=kind, title=title, context=context, cache=cache)
        case "url":
            url = media.check_url(validation.text_at(source, source_path, "url"), f"{source_path}.url")
            return Document(url=url, title=title, context=context, cache=cache)
        case "text":
            return Document(
                text=validation.text_at(source, source_path, "data"), title=title, context=context, cache=cache
            )
        case "content":
            return Document(text=_content_text(source, source_path), title=title, context=context, cache=cache)
        case "file":
            validation.unsupported(source_path, "only Anthropic has the file")
    validation.invalid(f"{source_path}.type", "must be base64, url, text, content or file")


def _read_search_result(block: Mapping[str, Any], path: str, dropped: Dropped, cache: int | None) -> Part:
    """A result of the client's own search, as a text with its title and its source."""
    title, source = (validation.text_at(block, path, name, filled=False) for name in ("title", "source"))
    return Document(text=_content_text(block, path), title=title or None, context=source or None, cache=cache)


def _read_reference(block: Mapping[str, Any], path: str, dropped: Dropped, cache: int | None) -> Part:
    """A tool that the client's own search for tools found. A model of another vendor was offered it from the start."""
    return Text(f"The tool {validation.text_at(block, path, 'tool_name')} can be called.", cache)


def _content_text(source: Mapping[str, Any], path: str) -> str:
    """The text of a document that is made of content blocks, one line or more for each."""
    content = source.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        validation.invalid(f"{path}.content", "must be a string or a list of content blocks")
    texts = []
    for index, block in enumerate(content):
        block_path = f"{path}.content[{index}]"
        if not isinstance(block, dict) or block.get("type") != "text":
            validation.unsupported(block_path, "a document made of blocks may only hold text")
        rules.cross(block, BLOCK_CROSSING["text"], f"{block_path}.")
        texts.append(validation.text_of(block, block_path))
    return "\n".join(texts)


def _read_call(block: Mapping[str, Any], path: str, dropped: Dropped, cache: int | None) -> Part:
    arguments = tool_calls.as_text(block.get("input"), f"{path}.input")
    return ToolCall(validation.text_at(block, path, "id"), validation.text_at(block, path, "name"), arguments, cache)


def _read_result(block: Mapping[str, Any], path: str, dropped: Dropped, cache: int | None) -> Part:
    content = block.get("content")
    parts: tuple[Any, ...] = ()
    if isinstance(content, str):
        parts = (Text(content),) if content else ()
    elif content:
        _check_blocks(content, f"{path}.content")
        parts, _ = read_blocks(content, f"{path}.content", "tool_result", dropped)
    is_error = block.get("is_error")
    if not isinstance(is_error, bool | None):
        validation.invalid(f"{path}.is_error", "must be true or false")
    return ToolResult(validation.text_at(block, path, "tool_use_id"), parts, bool(is_error), cache)


def _check_blocks(content: Any, path: str) -> None:
    if not isinstance(content, list):
        validation.invalid(path, "must be a string or a list of content blocks")
    for index, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            validation.invalid(f"{path}[{index}]", "must be an object with a type")


def _read_thinking(block: Mapping[str, Any], path: str, dropped: Dropped, cache: int | None) -> Part:
    given = "" if block.get("signature") is None else validation.text_at(block, path, "signature", filled=False)
    return Thinking(validation.text_at(block, path, "thinking", filled=False), *reasoning.unsign(given))


def _read_redacted(block: Mapping[str, Any], path: str, dropped: Dropped, cache: int | None) -> Part:
    data, vendor = reasoning.unsign(validation.text_at(block, path, "data"))
    return RedactedThinking(data, vendor)


Reader: TypeAlias = Callable[[Mapping[str, Any], str, Dropped, int | None], Part]
_SHOWN: Mapping[str, Reader] = {
    "text": _read_text,
    "image": _read_image,
    "document": _read_document,
    "search_result": _read_search_result,
}
# One row for each type of content block that other formats can express, by where it stands.
BLOCKS: Mapping[str, Mapping[str, Reader]] = {
    "system": {"text": _read_text},
    "user": {**_SHOWN, "tool_result": _read_result},
    "tool_result": {**_SHOWN, "tool_reference": _read_reference},
    "assistant": {
        "text": _read_text,
        "tool_use": _read_call,
        "thinking": _read_thinking,
        "redacted_thinking": _read_redacted,
    },
}
