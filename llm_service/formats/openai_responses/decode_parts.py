"""OpenAI Responses, the client's side: the parts of messages and of the results of tools."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from llm_service.core.content import Document, Image, Part, Refusal, Text
from llm_service.formats import media, rules, validation
from llm_service.formats.rules import DROP, REJECT, TRANSLATE, FieldRule, drop_unless
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
# What happens to the fields of each part. A part that is not listed is rejected. A field that is not listed is a hint.
PART_CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
    "input_text": {**_EVERY_PART, "text": TRANSLATE},
    "output_text": {**_EVERY_PART, "text": TRANSLATE},
    "text": {**_EVERY_PART, "text": TRANSLATE},
    "refusal": {**_EVERY_PART, "refusal": TRANSLATE},
    "input_image": {**_EVERY_PART, "image_url": TRANSLATE, "file_id": REJECT},
    "input_file": {
        **_EVERY_PART,
        **dict.fromkeys(("file_data", "file_url", "filename"), TRANSLATE),
        "file_id": REJECT,
    },
}


def read_parts(content: Any, path: str, dropped: Dropped) -> list[tuple[Part, str]]:
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
    rules.name_dropped(dropped, "input[].content[]", rules.cross(part, table, f"{path}.", DROP))
    hint = part.get("prompt_cache_breakpoint")
    cache = media.read_cache(hint, media.EXPLICIT, media.OPENAI_TTL, "prompt_cache_breakpoint", dropped)
    return _PART_READERS[kind](part, path, cache)


def _read_text(part: Mapping[str, Any], path: str, cache: int | None) -> Part:
    return Text(validation.text_of(part, path), cache)


def read_image(part: Mapping[str, Any], path: str, cache: int | None = None) -> Image:
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
    **dict.fromkeys(("input_text", "output_text", "text"), _read_text),
    "refusal": lambda part, path, cache: Refusal(validation.text_of(part, path, "refusal")),
    "input_image": read_image,
    "input_file": _read_file,
}
