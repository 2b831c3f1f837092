"""Server-sent events with the time when each one arrived."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Frame:
    """One block of a stream. ``at`` is the value of ``time.monotonic()`` when its last byte was read.

    A block that has only comments has the comment's text, and ``data`` is None. ``raw`` is the block without the blank
    line at its end.
    """

    at: float
    raw: bytes
    event: str | None = None
    data: str | None = None
    comment: str | None = None

    @property
    def json(self) -> Any:
        """The parsed data. Raises ValueError if the data is not JSON, for example ``[DONE]``."""
        return json.loads(self.data or "")

    @property
    def done(self) -> bool:
        return self.data == "[DONE]"


def read_sse(source: Any) -> Iterator[Frame]:
    """The frames of a stream.

    ``source`` is a streamed response of httpx2 or requests, a ``Raw`` connection, or any iterable of bytes. Bytes after
    the last blank line are a frame too, so that a test sees a stream that was cut.
    """
    if hasattr(source, "iter_raw"):
        source = source.iter_bytes()
    elif hasattr(source, "iter_content"):
        source = source.iter_content(None)
    elif hasattr(source, "iter_body"):
        source = source.iter_body()
    yield from _frames(source)


def _frames(chunks: Iterable[bytes]) -> Iterator[Frame]:
    pending = b""
    for chunk in chunks:
        now = time.monotonic()
        pending = (pending + chunk).replace(b"\r\n", b"\n")
        while b"\n\n" in pending:
            block, _, pending = pending.partition(b"\n\n")
            yield _frame(block, now)
    if pending.strip():
        yield _frame(pending, time.monotonic())


def _frame(block: bytes, at: float) -> Frame:
    event, comment = None, None
    data: list[str] = []
    for line in block.decode().split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            comment = value
        elif name == "event":
            event = value
        elif name == "data":
            data.append(value)
    return Frame(at, block, event, "\n".join(data) if data else None, comment)
