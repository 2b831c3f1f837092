"""Server-sent events: bytes to whole blocks, a block to its data, data to a frame.

A block is everything up to and including a blank line; blocks are passed on as
they are, so that a verbatim stream keeps the vendor's own bytes. Line ends may
be LF, CRLF or CR (WHATWG HTML, "Parsing an event stream"); both vendors send LF,
so LF is the fast path, and the others become LF when they arrive (the data is
JSON, which cannot hold a bare CR).
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from llm_service.core.errors import UpstreamBroken

MAX_BLOCK = 16 * 1024 * 1024

# A comment: the OpenAI SDK raises JSONDecodeError on an event without data, and
# the Anthropic SDK expects message_start before any other event.
KEEP_ALIVE = b": keep-alive\n\n"

_BOM = b"\xef\xbb\xbf"
# Printable ASCII that JSON has no need to escape: the same inside a string as by itself.
_PLAIN = re.compile(rb"[ !#-\[\]-~]+")
# After as many different shapes, no more are learnt: the blocks of such a stream differ in more than their text.
_MAX_SHAPES = 8


class Splitter:
    """Cuts a stream of bytes into blocks, wherever the reads happen to split it.

    ``limit`` is the maximum size of an incomplete block, in bytes.
    """

    __slots__ = ("_limit", "_pieces", "_size", "_skip_newline")

    def __init__(self, limit: int = MAX_BLOCK) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._skip_newline = False

    @property
    def rest(self) -> bytes:
        """The bytes after the last complete block."""
        return b"".join(self._pieces)

    def end(self) -> list[bytes]:
        """The last block, if the stream ended without the blank line after it, as that of some servers does.

        The stream may also have been cut. Then the data is not JSON, and the decoder reports it.
        """
        rest = self.rest.strip(b"\n")
        self._pieces.clear()
        self._size = 0
        return [rest + b"\n\n"] if rest else []

    def feed(self, data: bytes) -> list[bytes]:
        """The blocks that ``data`` completes, each with its ending blank line.

        Raises UpstreamBroken when a block grows past the limit.
        """
        if data and (self._skip_newline or b"\r" in data):
            data = self._with_newlines(data)
        if self._pieces:
            across = data.startswith(b"\n") and self._pieces[-1].endswith(b"\n")
            if not across and b"\n\n" not in data:  # the pieces are joined once, when the block is complete
                self._keep(data)
                return []
            data = b"".join([*self._pieces, data])
            self._pieces.clear()
            self._size = 0
        *whole, rest = data.split(b"\n\n")
        if rest:
            self._keep(rest)
        return [block + b"\n\n" for block in whole if block]

    def _with_newlines(self, data: bytes) -> bytes:
        if self._skip_newline:  # the LF of a CRLF that came in two reads
            data = data.removeprefix(b"\n")
        self._skip_newline = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)
        if self._size > self._limit:
            raise UpstreamBroken("The upstream sent an event that is too large.")


class Alike:
    """Measures the text of blocks that are the same as a parsed one, except for their text.

    This is true of most blocks of a stream, and parsing is most of the cost of relaying them.
    """

    __slots__ = ("_head", "_left", "_tail")

    def __init__(self) -> None:
        self._head = self._tail = b""
        self._left = _MAX_SHAPES

    def learn(self, block: bytes, text: str) -> None:
        """``block`` was parsed. It has the text ``text``, and nothing else in it changes from block to block."""
        written = b'"%b"' % text.encode()
        if self._left and _PLAIN.fullmatch(written, 1, len(written) - 1) and block.count(written) == 1:
            self._left -= 1
            head, _, tail = block.partition(written)
            self._head, self._tail = head + b'"', b'"' + tail

    def length(self, block: bytes) -> int:
        """The length of the text in characters; 0 for a block that must be parsed."""
        head, tail = self._head, self._tail
        if not (block.startswith(head) and block.endswith(tail)):
            return 0
        begin, end = len(head), len(block) - len(tail)
        return end - begin if _PLAIN.fullmatch(block, begin, end) else 0


def parse(block: bytes) -> tuple[bytes | None, bytes]:
    """``(event name or None, data)`` of one block; the data of a comment is empty."""
    if block.startswith(b"data: ") and block.find(b"\n") == len(block) - 2:
        return None, block[6:-2]
    if block.startswith(b"event: "):
        name, _, rest = block[7:-2].partition(b"\ndata: ")
        if b"\n" not in rest and b"\n" not in name:
            return name, rest
    return _parse_slowly(block)


def _parse_slowly(block: bytes) -> tuple[bytes | None, bytes]:
    event: bytes | None = None
    data: list[bytes] = []
    for line in block.removeprefix(_BOM).split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = value
    return event, b"\n".join(data)


def frame(data: bytes, event: bytes | None = None) -> bytes:
    """One event. ``data`` is a single line, as JSON is once encoded."""
    if event is None:
        return b"data: " + data + b"\n\n"
    return b"event: " + event + b"\ndata: " + data + b"\n\n"


def json_text(value: Any) -> bytes:
    """``value`` as JSON on one line.

    JSON does not escape three characters that end a line for ``str.splitlines`` and for
    ``iter_lines`` of ``requests``. They are escaped here. They can only be inside strings,
    so the JSON stays the same.
    """
    data = orjson.dumps(value)
    if not data.isascii():
        data = (
            data.replace(b"\xc2\x85", b"\\u0085")
            .replace(b"\xe2\x80\xa8", b"\\u2028")
            .replace(b"\xe2\x80\xa9", b"\\u2029")
        )
    return data


def json_frame(value: Any, event: bytes | None = None) -> bytes:
    """One event whose data is ``value`` as JSON."""
    return frame(json_text(value), event)
