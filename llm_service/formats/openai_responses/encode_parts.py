"""OpenAI Responses, the upstream's side: the parts of messages and of tool results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llm_service.core.content import Document, Image, Part, Text
from llm_service.formats import media


def _write_image(image: Image) -> dict[str, Any]:
    url = image.url if image.url is not None else media.data_url(image.media_type, image.data or "")
    return {"type": "input_image", "image_url": url, "detail": image.detail or "auto"}


def _write_document(document: Document) -> dict[str, Any]:
    """Plain text is written as text, under its title: most models take only PDFs as files."""
    if document.text is not None:
        heading = "\n".join(filter(None, (document.title, document.context)))
        return {"type": "input_text", "text": f"{heading}\n\n{document.text}" if heading else document.text}
    if document.file_id is not None:
        return {"type": "input_file", "file_id": document.file_id}
    if document.url is not None:
        return {"type": "input_file", "file_url": document.url}
    data = media.data_url(document.media_type, document.data or "")
    # The API requires a name for a file that is sent along.
    return {"type": "input_file", "file_data": data, "filename": document.title or "document.pdf"}


_WRITERS: Mapping[type, Callable[[Any], dict[str, Any]]] = {
    Text: lambda part: {"type": "input_text", "text": part.text},
    Image: _write_image,
    Document: _write_document,
}


def write_part(part: Part) -> dict[str, Any]:
    """A part of a message of the user or the system, or of a tool result."""
    return _WRITERS[type(part)](part)
