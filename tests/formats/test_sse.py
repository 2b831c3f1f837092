"""Bytes become blocks, and blocks bytes, however the network splits them."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core.errors import UpstreamBroken
from llm_service.formats import sse
from tests.formats.examples import fixture

TEXT = fixture("anthropic/streaming/tool_use_response.sse").rstrip(b"\n") + b"\n\n"
LINE_ENDS = [b"\n", b"\r\n", b"\r"]


def blocks_of(pieces: list[bytes]) -> list[bytes]:
    splitter = sse.Splitter()
    blocks = [block for piece in pieces for block in splitter.feed(piece)]
    assert splitter.rest == b""
    return blocks


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_a_stream_split_at_every_byte_gives_the_same_blocks(line_end: bytes) -> None:
    whole = blocks_of([TEXT])
    stream = TEXT.replace(b"\n", line_end)
    assert len(whole) > 10
    assert b"".join(whole) == TEXT
    assert blocks_of([stream]) == whole
    assert blocks_of([bytes([byte]) for byte in stream]) == whole
    for cut in range(len(stream)):
        assert blocks_of([stream[:cut], b"", stream[cut:]]) == whole


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.integers(0, len(TEXT)), max_size=20), st.sampled_from(LINE_ENDS))
def test_reads_of_any_size_give_the_same_blocks(cuts: list[int], line_end: bytes) -> None:
    stream = TEXT.replace(b"\n", line_end)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(edges)]
    assert blocks_of(pieces) == blocks_of([TEXT])


def test_blank_lines_between_events_are_not_events() -> None:
    splitter = sse.Splitter()
    assert splitter.feed(b"\n\n\n\ndata: 1\n\n\n\n\n\n") == [b"data: 1\n\n"]
    blocks = splitter.feed(b"\ndata: 2\n\n")
    assert [sse.parse(block) for block in blocks] == [(None, b"2")]


def test_a_block_that_never_ends_is_rejected_at_the_limit() -> None:
    splitter = sse.Splitter(limit=1000)
    for _ in range(10):
        splitter.feed(b"x" * 100)
    with pytest.raises(UpstreamBroken):
        splitter.feed(b"x")


def test_a_large_block_in_small_reads_is_complete() -> None:
    data = b"data: " + b"x" * 2_000_000 + b"\n\n"
    assert blocks_of([data[start : start + 1000] for start in range(0, len(data), 1000)]) == [data]


def test_a_stream_without_its_last_blank_line_still_has_its_last_block() -> None:
    splitter = sse.Splitter()
    assert splitter.feed(b"data: 1\n\ndata: [DONE]\n") == [b"data: 1\n\n"]
    assert splitter.rest == b"data: [DONE]\n"
    assert splitter.end() == [b"data: [DONE]\n\n"]
    assert splitter.end() == []


@pytest.mark.parametrize(
    ("block", "parsed"),
    [
        (b"data: {}\n\n", (None, b"{}")),
        (b"data:{}\n\n", (None, b"{}")),
        (b"data:  {}\n\n", (None, b" {}")),
        (b"event: ping\ndata: {}\n\n", (b"ping", b"{}")),
        (b"event:ping\ndata:{}\n\n", (b"ping", b"{}")),
        (b"data: {}\nevent: ping\n\n", (b"ping", b"{}")),
        (b"event: ping\nid: 7\ndata: {}\n\n", (b"ping", b"{}")),
        (b"event: ping\ndata: {}\nretry: 3\n\n", (b"ping", b"{}")),
        (b"id: 7\n\n", (None, b"")),
        (b"event: ping\n\n", (b"ping", b"")),
        (b": a comment\n\n", (None, b"")),
        (b": a comment\ndata: 1\n\n", (None, b"1")),
        (b"data: 1\ndata: 2\n\n", (None, b"1\n2")),
        (b"data\n\n", (None, b"")),
        (b"\xef\xbb\xbfdata: 1\n\n", (None, b"1")),
        (b"event: a\n\n", (b"a", b"")),
    ],
)
def test_a_block_is_read_as_browsers_read_it(block: bytes, parsed: tuple[bytes | None, bytes]) -> None:
    assert sse.parse(block) == parsed


@settings(deadline=None)  # the machine may be busy
@given(st.binary().filter(lambda data: not set(data) & set(b"\r\n")), st.sampled_from([None, b"message_stop"]))
def test_a_frame_is_read_back_as_it_was_written(data: bytes, event: bytes | None) -> None:
    assert sse.parse(sse.frame(data, event)) == (event, data)


def test_a_keep_alive_is_a_block_without_data() -> None:
    assert sse.Splitter().feed(sse.KEEP_ALIVE) == [sse.KEEP_ALIVE]
    assert sse.parse(sse.KEEP_ALIVE) == (None, b"")


@settings(deadline=None)  # the machine may be busy
@given(st.text())
def test_json_is_one_line_for_every_reader_of_lines(text: str) -> None:
    for value in (text, f"{text}\x85\u2028\u2029\r\n\x0b\x1c"):
        framed = sse.json_frame({"delta": value}).decode()
        assert len(framed.splitlines()) == 2
        assert json.loads(framed.removeprefix("data: ")) == {"delta": value}


def event(text: str, **more: object) -> bytes:
    return sse.json_frame({"text": text, **more})


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), st.text('ab "\\', max_size=4))
def test_text_measured_without_parsing_has_the_length_of_the_parsed_text(learnt: str, text: str) -> None:
    alike = sse.Alike()
    alike.learn(event(learnt, index=0), learnt)
    for said in (text, learnt, learnt + text):
        assert alike.length(event(said, index=0)) in (0, len(said))
        assert alike.length(event(said, index=1)) == 0
        assert alike.length(event(said, index=0, more=1)) == 0


def test_a_block_is_only_measured_if_it_is_like_the_learnt_one() -> None:
    alike = sse.Alike()
    assert alike.length(event("word")) == 0
    alike.learn(event("text"), "text")  # which of the two is it?
    assert alike.length(event("word")) == 0
    alike.learn(event("some"), "some")
    assert alike.length(event("word ~!")) == 7
    for other in (
        b"",
        b"data: [DONE]\n\n",
        b": comment\n\n",
        event(""),
        event("\n"),
        event("é"),
        event('"'),
        event("\\"),
    ):
        assert alike.length(other) == 0
    assert alike.length(event("a", text2="b")) == 0
    assert alike.length(b'data: {"text":"a\ndata: b"}\n\n') == 0
    assert alike.length(b'data: {"text":"}\n\n') == 0


def test_after_several_shapes_no_more_are_learnt() -> None:
    alike = sse.Alike()
    for index in range(20):
        alike.learn(event("some", index=index), "some")
    assert alike.length(event("word", index=19)) == 0
    assert alike.length(event("word", index=7)) == 4
