"""A stream that is cut at any byte never looks whole, in any pair of formats.

A cut is a close without the final chunk. If the body ends properly, a chat answer is whole from the finish_reason of
its last choice on. The other formats need their terminal event.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from llm_service.core.errors import UpstreamError
from llm_service.core.events import Event, Finished
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats import openai_responses as responses
from llm_service.formats import sse
from llm_service.formats.small import completions, simple
from tests.formats.examples import TURN, call, fixture, fixture_names, relayed, sse_blocks, written

FORMATS: dict[str, Any] = {
    "chat": chat, "messages": messages, "responses": responses, "simple": simple, "completions": completions,
}  # fmt: skip
TOOLS = [{"name": name, "type": "function"} for name in ("get_weather", "get_stock_price", "GetWeatherArgs", "x")]
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": TURN, "tools": [{"type": "function", "function": tool} for tool in TOOLS]},
    "messages": {"max_tokens": 5, "messages": TURN, "tools": TOOLS},
    "responses": {"input": "Hi", "tools": TOOLS},
    "simple": {"prompt": "Hi"},
    "completions": {"prompt": "Hi"},
}
# What shows the end of an answer to each client.
ENDS = {
    "chat": [b"data: [DONE]"],
    "messages": [b"event: message_stop"],
    "responses": [b"event: response.completed", b"event: response.incomplete"],
    "simple": [b"data: [DONE]"],
    "completions": [b"data: [DONE]"],
}
STREAMS = [
    *((name, "chat") for name in fixture_names("openai/chat_stream")),
    *((name, "messages") for name in fixture_names("anthropic/streaming")),
    *((name, "messages") for name in fixture_names("anthropic/fable-fallback")),
    *((name, "responses") for name in fixture_names("openai/responses")),
]
# What marks the end of each upstream's streams, and from where on one is whole whose body ends properly.
TERMINAL = {"chat": b"data: [DONE]", "messages": b'"message_stop"', "responses": b"event: response.completed"}
WHOLE = {**TERMINAL, "chat": b'"finish_reason":"'}
SMALL = 2_100  # bytes: a stream up to this size is cut at every byte
AT_EVERY_BYTE = 3  # of a longer one, this many blocks at its beginning and end; the others at every 41st byte


def cuts_of(block: bytes, number: int, blocks: int, size: int) -> Iterator[int]:
    if size > SMALL and AT_EVERY_BYTE <= number < blocks - AT_EVERY_BYTE:
        yield from range(number % 41, len(block), 41)
        yield from range(len(block) - 3, len(block))
    else:
        yield from range(len(block))


def rest_of(decoder: Any, asked: Any, piece: bytes) -> tuple[Any, list[Event]]:
    """A copy of ``decoder`` after the last piece of a body, and the events of that piece."""
    copied, events = copy.deepcopy(decoder, {id(asked): asked}), list[Event]()
    splitter = sse.Splitter()
    try:
        for blocks in (splitter.feed(piece), splitter.end()):
            events += copied.feed_many(blocks)
    except UpstreamError:
        return None, events
    return copied, events


def shows_end(client: str, data: bytes) -> bool:
    return any(end in data for end in ENDS[client])


def check_cuts(decoder: Any, asked: Any, block: bytes, cuts: Iterator[int], marked: int, whole: int) -> None:
    """Cut ``block`` at each of ``cuts``. ``marked`` and ``whole``: from which byte on the stream may be whole."""
    for cut in cuts:
        copied, events = rest_of(decoder, asked, block[:cut])
        if copied is None:
            continue
        assert copied.finished is (type(events[-1]) is Finished if events else False)
        assert not copied.finished or cut >= marked
        assert cut >= marked or not shows_end(asked.format, relayed(events))
        if not copied.finished:
            try:
                ended = list(copied.end())
            except UpstreamError:
                ended = []
            assert not ended or (cut >= whole and type(ended[-1]) is Finished)


@pytest.mark.parametrize("client", FORMATS)
@pytest.mark.parametrize(("file", "upstream"), STREAMS)
def test_a_stream_cut_at_any_byte_never_looks_whole(file: str, upstream: str, client: str) -> None:
    stream, several = fixture(file).rstrip() + b"\n\n", {"n": 3} if "n3" in file else {}
    asked = call(client, {"model": "m", "stream": True, **BODIES[client], **several}, stream=True)
    decoder = (FORMATS[upstream].Passthrough if client == upstream else FORMATS[upstream].StreamDecoder)(asked)
    encoder = FORMATS[client].StreamEncoder(asked)
    marked, whole = stream.rfind(TERMINAL[upstream]), stream.rfind(WHOLE[upstream])
    blocks, start = sse_blocks(stream), 0
    assert b"".join(blocks) == stream, "the fixture has only whole blocks, with LF"
    for number, block in enumerate(blocks):
        check_cuts(
            decoder, asked, block, cuts_of(block, number, len(blocks), len(stream)), marked - start, whole - start
        )
        try:
            events = list(decoder.feed_many([block]))
        except UpstreamError:  # it has something that does not cross
            return
        start += len(block)
        assert decoder.finished is (start > marked)
        assert shows_end(client, written(encoder, events)) is decoder.finished
