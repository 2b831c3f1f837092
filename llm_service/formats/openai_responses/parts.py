"""OpenAI Responses, the parts of messages and of tools' results, in both directions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from llm_service.core.content import Document, Image, Part, Refusal, Text
from llm_service.formats import media, rules, validation
from llm_service.formats.rules import REJECT, TRANSLATE, FieldRule, drop_unless
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
CROSSING: Mapping[str, Mapping[str, FieldRule]] = {
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
    fates = CROSSING.get(kind) if isinstance(kind, str) else None
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


# Writing.


def write_image(image: Image) -> dict[str, Any]:
    url = image.url if image.url is not None else media.data_url(image.media_type, image.data or "")
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def write_document(document: Document) -> dict[str, Any]:
    """Plain text is said, under its title: a file would have to be a PDF for most models."""
    if document.text is not None:
        heading = "\n".join(filter(None, (document.title, document.context)))
        return {"type": "input_text", "text": f"{heading}\n\n{document.text}" if heading else document.text}
    if document.url is not None:
        written = {"type": "input_file", "file_url": document.url}
    else:
        data = media.data_url(document.media_type, document.data or "")
        # A file needs a name there.
        written = {"type": "input_file", "file_data": data, "filename": document.title or "document.pdf"}
    return written


_WRITERS: Mapping[type, Callable[[Any], dict[str, Any]]] = {
    Text: lambda part: {"type": "input_text", "text": part.text},
    Image: write_image,
    Document: write_document,
}


def write_part(part: Part) -> dict[str, Any]:
    """A part of a user's or a system's message, or of a tool's result."""
    return _WRITERS[type(part)](part)
