"""How the events of an answer are separated: server-sent events, or JSON in lines or as one document.

The content type does not decide, because many servers send event streams as ``text/plain`` or ``application/json``, and
some answer a request for a stream with a plain answer, or the other way round. The first bytes decide.
"""

from __future__ import annotations

import re
from typing import Protocol

import orjson

from llm_service.core.errors import UpstreamBroken
from llm_service.formats import sse

_BOM = b"\xef\xbb\xbf"
# The name of a field of an event, and a part of one. A comment has an empty name.
_FIELD = re.compile(rb"[A-Za-z_-]{0,32}:")
_PART_OF_FIELD = re.compile(rb"[A-Za-z_-]{0,32}\Z")


class Splitter(Protocol):
    """Cuts a body into blocks, as ``sse.Splitter`` does."""

    def feed(self, data: bytes) -> list[bytes]: ...

    def end(self) -> list[bytes]: ...


def split(start: bytes) -> tuple[Splitter, bytes] | None:
    """The splitter of a body that begins with ``start``, and the bytes to begin with; None if more of it is needed.

    Raises UpstreamBroken for a body that is something else, such as HTML.
    """
    if _BOM.startswith(start):
        return None
    start = start.removeprefix(_BOM)
    text = start.lstrip(b" \t\r\n")
    if text[:1] in (b"{", b"["):
        return JsonSplitter(), text
    if _FIELD.match(text):
        return sse.Splitter(), start
    if _PART_OF_FIELD.match(text):
        return None
    raise UpstreamBroken("The provider did not answer with an event stream.")


def is_event_stream(body: bytes) -> bool:
    """Whether a whole body is an event stream."""
    return bool(_FIELD.match(body.removeprefix(_BOM).lstrip(b" \t\r\n")))


class JsonSplitter:
    """Cuts lines of JSON (``application/x-ndjson``) into blocks as they come. A document of several lines is one block.

    ``limit`` is the maximum size of an incomplete block, in bytes.
    """

    __slots__ = ("_in_lines", "_limit", "_pieces", "_size")

    def __init__(self, limit: int = sse.MAX_BLOCK) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._in_lines: bool | None = None  # None until the first line is complete

    def feed(self, data: bytes) -> list[bytes]:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._limit:
            raise UpstreamBroken("The upstream sent an event that is too large.")
        if self._in_lines is False or b"\n" not in data:
            return []
        *lines, rest = b"".join(self._pieces).split(b"\n")
        if self._in_lines is None:
            self._in_lines = _is_json(lines[0])
            if not self._in_lines:
                return []
        self._pieces, self._size = [rest], len(rest)
        return [_block(line) for line in lines if line.strip()]

    def end(self) -> list[bytes]:
        """The last line or the whole document. If it was cut it is not JSON, and the decoder reports it."""
        rest = b"".join(self._pieces).strip()
        self._pieces.clear()
        return [_block(rest)] if rest else []


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _block(json: bytes) -> bytes:
    """JSON as an event. Line ends in it can only be between its values."""
    return sse.frame(json.replace(b"\r", b" ").replace(b"\n", b" ").strip())
