"""OpenAI Responses, the client's side: the items of ``input`` and their parts become turns of a conversation."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from llm_service.core.content import (
    Document,
    Image,
    Message,
    Part,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from llm_service.formats import media, rules, validation
from llm_service.formats.bounds import as_list
from llm_service.formats.openai_responses.encode_answer import read_carried
from llm_service.formats.openai_responses.schema import NAME
from llm_service.formats.rules import REJECT, TRANSLATE, FieldRule, drop_unless, reject_unless
from llm_service.formats.tool_calls import read_arguments
from llm_service.formats.validation import invalid, text_at

# The names of the dropped fields, each once and in order.
Dropped: TypeAlias = dict[str, None]

_EVERY_PART: Mapping[str, FieldRule] = {
    "type": TRANSLATE,
    "prompt_cache_breakpoint": TRANSLATE,
    "detail": drop_unless("auto"),
    "annotations": drop_unless([]),
    "logprobs": drop_unless([]),
}
# What happens to the fields of each part. A part or a field that is not listed is rejected.
PART_CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
    "input_text": {**_EVERY_PART, "text": TRANSLATE},
    "output_text": {**_EVERY_PART, "text": TRANSLATE},
    "refusal": {**_EVERY_PART, "refusal": TRANSLATE},
    "input_image": {**_EVERY_PART, "image_url": TRANSLATE, "file_id": REJECT},
    "input_file": {
        **_EVERY_PART,
        **dict.fromkeys(("file_data", "file_url", "filename"), TRANSLATE),
        "file_id": REJECT,
    },
}

# An item's own id and status are the vendor's records. Another vendor does not need them.
_EVERY_ITEM: Mapping[str, FieldRule] = {"type": TRANSLATE, "id": TRANSLATE, "status": TRANSLATE}
# What happens to the fields of each item. An item or a field that is not listed is rejected.
ITEM_CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
    "message": {**_EVERY_ITEM, "role": TRANSLATE, "content": TRANSLATE, "phase": drop_unless()},
    "function_call": {
        **_EVERY_ITEM,
        **dict.fromkeys(("call_id", "name", "arguments"), TRANSLATE),
        "async": reject_unless(False),
        "caller": reject_unless({"type": "direct"}),
        "namespace": REJECT,
    },
    "function_call_output": {
        **_EVERY_ITEM,
        **dict.fromkeys(("call_id", "output"), TRANSLATE),
        "name": drop_unless(),
        "caller": reject_unless({"type": "direct"}),
        "namespace": REJECT,
    },
    "reasoning": {**_EVERY_ITEM, **dict.fromkeys(("summary", "encrypted_content", "content"), TRANSLATE)},
}


class Turns:
    """Collects items as turns.

    One turn of the assistant holds its reasoning, its text and its tool calls. The
    results of tools belong to the user's next turn.
    """

    def __init__(self, instructions: str | None) -> None:
        self.system = [Text(instructions)] if instructions else []
        self._turns: list[tuple[Any, list[tuple[Part, str]]]] = []

    def add(self, role: str, parts: list[tuple[Part, str]], path: str) -> None:
        """Add parts, each with its path, to the last turn or as a new turn. ``path`` is that of all parts."""
        if role in ("system", "developer"):
            self._add_instructions(parts, path)
            return
        last = self._turns[-1] if self._turns else None
        # A user's message after tool results belongs to their turn. Two messages of the user stay two turns.
        if last is not None and last[0] == role and (role == "assistant" or type(last[1][-1][0]) is ToolResult):
            last[1].extend(parts)
        elif parts:
            self._turns.append((role, parts))

    def _add_instructions(self, parts: list[tuple[Part, str]], path: str) -> None:
        if self._turns:
            self._turns.append(("system", parts))
            return
        for part, part_path in parts:
            if type(part) is not Text:
                validation.unsupported(part_path or path, "a system message of that model can only hold text")
            self.system.append(part)

    def add_result(self, result: ToolResult, path: str) -> None:
        if not self._turns or self._turns[-1][0] != "user":
            self._turns.append(("user", []))
        parts = self._turns[-1][1]
        # The result goes before the user's own parts: it must be the first thing after the call.
        index = next((index for index, (part, _) in enumerate(parts) if type(part) is not ToolResult), len(parts))
        parts.insert(index, (result, path))

    def messages(self) -> list[Message]:
        return [
            Message(role, tuple(part for part, _ in parts), tuple(path for _, path in parts))
            for role, parts in self._turns
        ]


def read_input(turns: Turns, given: Any, dropped: Dropped) -> None:
    """Add ``input``, a string or a list of items, to ``turns``.

    Raises InvalidRequest and UnsupportedParameter naming the path of the item or the part.
    """
    if isinstance(given, str):
        turns.add("user", [(Text(given), "input")], "input")
        return
    for index, item in enumerate(given):
        _read_item(turns, item, f"input[{index}]", dropped)


def _read_item(turns: Turns, item: Mapping[str, Any], path: str, dropped: Dropped) -> None:
    kind = item.get("type") or "message"
    table = ITEM_CROSSING.get(kind)
    if table is None:
        validation.unsupported(path)
    dropped.update((f"input[].{name}", None) for name in rules.cross(item, table, f"{path}."))
    if kind == "message":
        content_path = f"{path}.content"
        turns.add(item["role"], _read_parts(item["content"], content_path, dropped), content_path)
    elif kind == "function_call":
        arguments = read_arguments(item.get("arguments"), f"{path}.arguments")
        call = ToolCall(text_at(item, path, "call_id"), text_at(item, path, "name"), arguments)
        turns.add("assistant", [(call, path)], path)
    elif kind == "function_call_output":
        call_id = text_at(item, path, "call_id")
        parts = tuple(part for part, _ in _read_parts(item.get("output"), f"{path}.output", dropped))
        turns.add_result(ToolResult(call_id, parts), path)  # type: ignore[arg-type]
    else:
        turns.add("assistant", [(_read_reasoning(item, path), path)], path)


def _read_reasoning(item: Mapping[str, Any], path: str) -> Part:
    """A reasoning item with the signature of its vendor: another vendor's as it was carried, or OpenAI's own."""
    text = "\n\n".join(
        validation.text_of(part, f"{path}.{name}")
        for name in ("summary", "content")
        for part in as_list(item.get(name))
        if isinstance(part, dict)
    )
    encrypted = "" if item.get("encrypted_content") is None else validation.text_of(item, path, "encrypted_content")
    carried = read_carried(encrypted)
    if carried is not None:
        vendor, signature, redacted = carried
        return RedactedThinking(signature, vendor) if redacted else Thinking(text, signature, vendor)
    return Thinking(text, own_signature(item.get("id"), encrypted) if encrypted else "", NAME)


def own_signature(id: Any, encrypted: str) -> str:
    """What OpenAI needs back together with a summary: the item's id and its encrypted content."""
    return f"{id if isinstance(id, str) else ''}:{encrypted}"


def _read_parts(content: Any, path: str, dropped: Dropped) -> list[tuple[Part, str]]:
    """A string or a list of parts, as parts with their paths in the body.

    Raises InvalidRequest and UnsupportedParameter naming the path.
    """
    if isinstance(content, str):
        return [(Text(content), path)]
    if not isinstance(content, list):
        invalid(path, "must be a string or a list of content parts")
    return [(_read_part(part, f"{path}[{index}]", dropped), f"{path}[{index}]") for index, part in enumerate(content)]


def _read_part(part: Any, path: str, dropped: Dropped) -> Part:
    if not isinstance(part, dict):
        invalid(path, "must be an object")
    kind = part.get("type")
    table = PART_CROSSING.get(kind) if isinstance(kind, str) else None
    if table is None or not isinstance(kind, str):
        validation.unsupported(path)
    dropped.update((f"input[].content[].{name}", None) for name in rules.cross(part, table, f"{path}."))
    hint = part.get("prompt_cache_breakpoint")
    cache = media.read_cache(hint, media.EXPLICIT, media.OPENAI_TTL, f"{path}.prompt_cache_breakpoint")
    return _PART_READERS[kind](part, path, cache)


def _read_image(part: Mapping[str, Any], path: str, cache: int | None) -> Part:
    url_path = f"{path}.image_url"
    url = text_at(part, path, "image_url")
    if not url.startswith("data:"):
        return Image(url=media.check_url(url, url_path), cache=cache)
    media_type, data = media.read_data_url(url, url_path)
    return Image(data=data, media_type=media.check_image(media_type, url_path), cache=cache)


def _read_file(part: Mapping[str, Any], path: str, cache: int | None) -> Part:
    title = None if part.get("filename") is None else text_at(part, path, "filename")
    if part.get("file_url") is not None:
        url = media.check_url(text_at(part, path, "file_url"), f"{path}.file_url")
        return Document(url=url, title=title, cache=cache)
    data_path = f"{path}.file_data"
    data, media_type = text_at(part, path, "file_data"), media.PDF
    if data.startswith("data:"):
        media_type, data = media.read_data_url(data, data_path)
    if media_type.startswith("text/"):
        return Document(text=_decode_text(data, data_path), title=title, cache=cache)
    if media_type != media.PDF:
        invalid(data_path, "must be a PDF or a text file")
    return Document(data=data, media_type=media_type, title=title, cache=cache)


def _decode_text(data: str, path: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        invalid(path, "must hold UTF-8 text in base64")


_PART_READERS: Mapping[str, Callable[[Mapping[str, Any], str, int | None], Part]] = {
    "input_text": lambda part, path, cache: Text(validation.text_of(part, path), cache),
    "output_text": lambda part, path, cache: Text(validation.text_of(part, path), cache),
    "refusal": lambda part, path, cache: Refusal(validation.text_of(part, path, "refusal")),
    "input_image": _read_image,
    "input_file": _read_file,
}
