"""OpenAI Responses, the client's side: items and their parts as turns."""

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
from llm_service.formats.openai_responses.encode_answer import read_carried
from llm_service.formats.openai_responses.schema import NAME
from llm_service.formats.rules import REJECT, TRANSLATE, FieldRule, drop_unless, reject_unless
from llm_service.formats.tool_calls import read_arguments
from llm_service.formats.validation import invalid, text_at

Dropped: TypeAlias = dict[str, None]

_HINTS: Mapping[str, FieldRule] = {
    "type": TRANSLATE,
    "prompt_cache_breakpoint": TRANSLATE,
    "detail": drop_unless("auto"),
    "annotations": drop_unless([]),
    "logprobs": drop_unless([]),
}
# What becomes of the fields of each part; an unlisted one is refused, and so is an unlisted part.
PART_CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
    "input_text": {**_HINTS, "text": TRANSLATE},
    "output_text": {**_HINTS, "text": TRANSLATE},
    "refusal": {**_HINTS, "refusal": TRANSLATE},
    "input_image": {**_HINTS, "image_url": TRANSLATE, "file_id": REJECT},
    "input_file": {
        **_HINTS,
        **dict.fromkeys(("file_data", "file_url", "filename"), TRANSLATE),
        "file_id": REJECT,
    },
}
# An item's own id and status are the vendor's bookkeeping: another vendor has no use for them.
_EVERY_ITEM: Mapping[str, FieldRule] = {"type": TRANSLATE, "id": TRANSLATE, "status": TRANSLATE}
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
    """Items as turns: what the assistant thinks, says and asks for is one, what tools answer the user's next."""

    def __init__(self, instructions: str | None) -> None:
        self.system = [Text(instructions)] if instructions else []
        self._turns: list[tuple[Any, list[tuple[Part, str]]]] = []

    def say(self, role: str, parts: list[tuple[Part, str]], place: str) -> None:
        if role in ("system", "developer"):
            self._instruct(parts, place)
            return
        last = self._turns[-1] if self._turns else None
        # A user's words after tools' results belong to their turn; two messages of the user's stay two.
        if last is not None and last[0] == role and (role == "assistant" or type(last[1][-1][0]) is ToolResult):
            last[1].extend(parts)
        elif parts:
            self._turns.append((role, parts))

    def _instruct(self, parts: list[tuple[Part, str]], place: str) -> None:
        if self._turns:
            self._turns.append(("system", parts))
            return
        for part, where in parts:
            if type(part) is not Text:
                validation.unsupported(where or place, "a system message holds text there")
            self.system.append(part)

    def answer(self, result: ToolResult, place: str) -> None:
        if not self._turns or self._turns[-1][0] != "user":
            self._turns.append(("user", []))
        said = self._turns[-1][1]
        # Before what the user says: a result is the first thing after the call.
        at = next((at for at, (part, _) in enumerate(said) if type(part) is not ToolResult), len(said))
        said.insert(at, (result, place))

    def messages(self) -> list[Message]:
        return [
            Message(role, tuple(part for part, _ in parts), tuple(place for _, place in parts))
            for role, parts in self._turns
        ]


def read_item(turns: Turns, item: Mapping[str, Any], place: str, dropped: Dropped) -> None:
    kind = item.get("type") or "message"
    fates = ITEM_CROSSING.get(kind)
    if fates is None:
        validation.unsupported(place)
    dropped.update((f"input[].{name}", None) for name in rules.cross(item, fates, f"{place}."))
    if kind == "message":
        where = f"{place}.content" if place != "input" else place
        turns.say(item["role"], read_parts(item["content"], where, dropped), where)
    elif kind == "function_call":
        arguments = read_arguments(item.get("arguments"), f"{place}.arguments")
        call = ToolCall(text_at(item, place, "call_id"), text_at(item, place, "name"), arguments)
        turns.say("assistant", [(call, place)], place)
    elif kind == "function_call_output":
        call_id = text_at(item, place, "call_id")
        parts = tuple(part for part, _ in read_parts(item.get("output"), f"{place}.output", dropped))
        turns.answer(ToolResult(call_id, parts), place)  # type: ignore[arg-type]
    else:
        turns.say("assistant", [(_read_thinking(item, place), place)], place)


def _read_thinking(item: Mapping[str, Any], place: str) -> Part:
    """Reasoning with its vendor's word beside it: another's as it was carried, or OpenAI's own."""
    text = "\n\n".join(
        validation.text_of(part, f"{place}.{name}")
        for name in ("summary", "content")
        for part in item.get(name) or ()
        if isinstance(part, dict)
    )
    encrypted = "" if item.get("encrypted_content") is None else validation.text_of(item, place, "encrypted_content")
    carried = read_carried(encrypted)
    if carried is not None:
        vendor, signature, redacted = carried
        return RedactedThinking(signature, vendor) if redacted else Thinking(text, signature, vendor)
    return Thinking(text, own_signature(item.get("id"), encrypted) if encrypted else "", NAME)


def own_signature(id: Any, encrypted: str) -> str:
    """What OpenAI wants to see again beside a summary: the item's id and its encrypted content."""
    return f"{id if isinstance(id, str) else ''}:{encrypted}"


def read_parts(content: Any, place: str, dropped: Dropped) -> list[tuple[Part, str]]:
    """A string, or a list of parts, each with its place in the body.

    Raises InvalidRequest and UnsupportedParameter naming the place.
    """
    if isinstance(content, str):
        return [(Text(content), place)]
    if not isinstance(content, list):
        invalid(place, "must be a string or a list of content parts")
    return [(_read(part, f"{place}[{index}]", dropped), f"{place}[{index}]") for index, part in enumerate(content)]


def _read(part: Any, place: str, dropped: Dropped) -> Part:
    if not isinstance(part, dict):
        invalid(place, "must be an object")
    kind = part.get("type")
    fates = PART_CROSSING.get(kind) if isinstance(kind, str) else None
    if fates is None or not isinstance(kind, str):
        validation.unsupported(place)
    dropped.update((f"input[].content[].{name}", None) for name in rules.cross(part, fates, f"{place}."))
    hint = part.get("prompt_cache_breakpoint")
    cache = media.read_cache(hint, media.EXPLICIT, media.OPENAI_TTL, f"{place}.prompt_cache_breakpoint")
    return _READERS[kind](part, place, cache)


def _read_image(part: Mapping[str, Any], place: str, cache: int | None) -> Part:
    path = f"{place}.image_url"
    url = text_at(part, place, "image_url")
    if not url.startswith("data:"):
        return Image(url=media.check_url(url, path), cache=cache)
    media_type, data = media.read_data_url(url, path)
    return Image(data=data, media_type=media.check_image(media_type, path), cache=cache)


def _read_file(part: Mapping[str, Any], place: str, cache: int | None) -> Part:
    title = None if part.get("filename") is None else text_at(part, place, "filename")
    if part.get("file_url") is not None:
        url = media.check_url(text_at(part, place, "file_url"), f"{place}.file_url")
        return Document(url=url, title=title, cache=cache)
    path = f"{place}.file_data"
    data, media_type = text_at(part, place, "file_data"), media.PDF
    if data.startswith("data:"):
        media_type, data = media.read_data_url(data, path)
    if media_type.startswith("text/"):
        return Document(text=_decoded(data, path), title=title, cache=cache)
    if media_type != media.PDF:
        invalid(path, "must be a PDF or a text")
    return Document(data=data, media_type=media_type, title=title, cache=cache)


def _decoded(data: str, path: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        invalid(path, "must hold UTF-8 text in base64")


_READERS: Mapping[str, Callable[[Mapping[str, Any], str, int | None], Part]] = {
    "input_text": lambda part, place, cache: Text(validation.text_of(part, place), cache),
    "output_text": lambda part, place, cache: Text(validation.text_of(part, place), cache),
    "refusal": lambda part, place, cache: Refusal(validation.text_of(part, place, "refusal")),
    "input_image": _read_image,
    "input_file": _read_file,
}
