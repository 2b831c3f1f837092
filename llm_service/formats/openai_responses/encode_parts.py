"""OpenAI Responses, the upstream's side: the parts of messages and of tools' results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llm_service.core.content import Document, Image, Part, Text
from llm_service.formats import media


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
