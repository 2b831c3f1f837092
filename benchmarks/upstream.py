"""A vendor that needs almost no processor time: fixed answers in OpenAI's and Anthropic's formats.

The answers are built before the first request. ``python -m benchmarks.upstream`` serves on a free port of 127.0.0.1,
prints the port, and ends when its stdin is closed. Words in the prompt choose how a stream is sent.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

CHUNKS = 100
TOKEN, FIRST_TOKEN = b" token", b" token000"

AT_ONCE = "at once"
"""All chunks are sent in four writes. This measures the work per stream."""
ONE_BY_ONE = "one by one"
"""Each chunk is one write, and all streams take turns. This measures the work per chunk."""
LATE = "late"
"""The first token is sent at once, the rest 20 ms later. This measures the time that the first token needs."""

_PACE, _PAUSE = 0.0002, 0.02
_MODEL = "gpt-5-mini-2025-08-07"
_CLAUDE = "claude-haiku-4-5-20251001"
_TEXT = "The quick brown fox jumps over the lazy dog. " * 8


def _reply(body: Any) -> bytes:
    written = json.dumps(body, separators=(",", ":")).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nrequest-id: req_011CSHoEeqs5C35K2UUqR7Fy\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(written) + written


def _data(body: Any, event: str = "") -> bytes:
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(body, separators=(',', ':'))}\n\n".encode()


def _chat() -> dict[str, Any]:
    return {
        "id": "chatcmpl-C4Hq5aJrUvC1zG2pVwYvJ8mDqQ0Kb",
        "object": "chat.completion",
        "created": 1755137921,
        "model": _MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": _TEXT, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 31,
            "completion_tokens": 90,
            "total_tokens": 121,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": None,
    }


def _messages() -> dict[str, Any]:
    return {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": _CLAUDE,
        "content": [{"type": "text", "text": _TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 31,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 90,
            "service_tier": "standard",
        },
    }


def _chat_chunk(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]
    return _data({**_chat(), "object": "chat.completion.chunk", "choices": choices, "usage": None, **more})


def _chat_stream() -> list[bytes]:
    chunks = [_chat_chunk({"content": f" token{number:03}"}) for number in range(CHUNKS)]
    opening = _chat_chunk({"role": "assistant", "content": "", "refusal": None})
    closing = _chat_chunk({}, "stop") + _chat_chunk({}, choices=[], usage=_chat()["usage"]) + b"data: [DONE]\n\n"
    return [opening + chunks[0], *chunks[1:], closing]


def _messages_stream() -> list[bytes]:
    def event(kind: str, **body: Any) -> bytes:
        return _data({"type": kind, **body}, kind)

    def delta(number: int) -> bytes:
        return event("content_block_delta", index=0, delta={"type": "text_delta", "text": f" token{number:03}"})

    started = {**_messages(), "content": [], "stop_reason": None, "usage": {**_messages()["usage"], "output_tokens": 1}}
    opening = event("message_start", message=started)
    opening += event("content_block_start", index=0, content_block={"type": "text", "text": ""}) + event("ping")
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    closing = event("content_block_stop", index=0)
    closing += event("message_delta", delta=ended, usage=_messages()["usage"]) + event("message_stop")
    return [opening + delta(0), *map(delta, range(1, CHUNKS)), closing]


def _chunked(pieces: Sequence[bytes]) -> list[bytes]:
    """A chunked HTTP response: one chunk per piece, with the head before the first and the end after the last."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    written = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return [head + written[0], *written[1:-1], written[-1] + b"0\r\n\r\n"]


CHAT_REPLY = _reply(_chat()).partition(b"\r\n\r\n")[2]
_PLAIN = {True: _reply(_messages()), False: _reply(_chat())}
_STREAM = {True: _chunked(_messages_stream()), False: _chunked(_chat_stream())}
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_STREAMED = re.compile(rb'"stream": ?true')


class Vendor(asyncio.Protocol):
    """One connection. The client sends one request at a time, so the buffer holds at most one."""

    def __init__(self, paced: PacedStreams) -> None:
        self._paced = paced
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not blank or len(body) < int(length[1] if length else 0):
            return
        self._received = b""
        anthropic = b"/messages " in head[:64]
        if not _STREAMED.search(body):
            self._transport.write(_PLAIN[anthropic])
            return
        pieces = _STREAM[anthropic]
        if ONE_BY_ONE.encode() in body:
            self._paced.add(self._transport, pieces)
        elif LATE.encode() in body:
            self._transport.write(pieces[0])
            asyncio.get_running_loop().call_later(_PAUSE, self._transport.write, b"".join(pieces[1:]))
        else:
            for start in range(0, len(pieces), 26):
                self._transport.write(b"".join(pieces[start : start + 26]))


class PacedStreams:
    """The streams that are sent chunk by chunk.

    They share one timer, because a timer for each stream would cost more than the sending.
    """

    def __init__(self) -> None:
        self._streams: list[tuple[asyncio.Transport, Iterator[bytes]]] = []

    def add(self, transport: asyncio.Transport, pieces: Sequence[bytes]) -> None:
        if not self._streams:
            asyncio.get_running_loop().call_soon(self._write)
        self._streams.append((transport, iter(pieces)))

    def _write(self) -> None:
        live = []
        for transport, pieces in self._streams:
            piece = next(pieces, None)
            if piece is not None and not transport.is_closing():
                transport.write(piece)
                live.append((transport, pieces))
        self._streams = live
        if live:
            asyncio.get_running_loop().call_later(_PACE, self._write)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    paced = PacedStreams()
    server = await loop.create_server(lambda: Vendor(paced), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
