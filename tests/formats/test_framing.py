"""How the events of a body are separated: its first bytes decide, not its content type."""

from __future__ import annotations

import pytest

from llm_service.core.errors import UpstreamBroken
from llm_service.formats import framing, sse


def blocks_of(body: bytes, size: int) -> list[bytes]:
    """The data of the blocks of a body that arrives in pieces of ``size`` bytes."""
    start, splitter, blocks = b"", None, list[bytes]()
    for position in range(0, len(body), size):
        piece = body[position : position + size]
        if splitter is None:
            start += piece
            begun = framing.split(start)
            if begun is None:
                continue
            splitter, piece = begun
        blocks += splitter.feed(piece)
    if splitter is not None:
        blocks += splitter.end()
    return [data for block in blocks if (data := sse.parse(block)[1])]


ONE_TWO = [b'{"a": 1}', b'{"b": "x"}']
BODIES = {
    "events": b'data: {"a": 1}\n\ndata: {"b": "x"}\n\n',
    "no space": b'data:{"a": 1}\n\ndata:{"b": "x"}\n\n',
    "CRLF": b'data: {"a": 1}\r\n\r\ndata: {"b": "x"}\r\n\r\n',
    "CR": b'data: {"a": 1}\r\rdata: {"b": "x"}\r\r',
    "BOM": b'\xef\xbb\xbfdata: {"a": 1}\n\ndata: {"b": "x"}\n\n',
    "a comment first": b': hi\n\ndata: {"a": 1}\n\nevent: y\nid: 3\nretry: 9\ndata: {"b": "x"}\n\n',
    "blank lines first": b'\n\n\ndata: {"a": 1}\n\ndata: {"b": "x"}\n\n',
    "no last blank line": b'data: {"a": 1}\n\ndata: {"b": "x"}',
    "an unknown field first": b'charge: 3\ndata: {"a": 1}\n\ndata: {"b": "x"}\n\n',
    "lines of JSON": b'{"a": 1}\n{"b": "x"}\n',
    "lines of JSON with CRLF": b'{"a": 1}\r\n\r\n{"b": "x"}',
    "lines of JSON with BOM": b'\xef\xbb\xbf{"a": 1}\n\n\n{"b": "x"}\n',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_body_is_split_in_the_same_way_wherever_its_reads_end(body: bytes, size: int) -> None:
    assert blocks_of(body, size) == ONE_TWO


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_json_document_of_several_lines_is_one_block(size: int) -> None:
    assert blocks_of(b'\n{\n  "a": [\n    1\n  ]\n}\n', size) == [b'{   "a": [     1   ] }']
    assert blocks_of(b'[{"error": {}}\n]\n', size) == [b'[{"error": {}} ]']


def test_lines_of_json_pass_before_the_body_ends() -> None:
    begun = framing.split(b'{"a": 1}\n{"b"')
    assert begun is not None
    splitter, start = begun
    assert splitter.feed(start) == [b'data: {"a": 1}\n\n']
    assert splitter.feed(b": 2}\n") == [b'data: {"b": 2}\n\n']


@pytest.mark.parametrize(
    "body", [b"<html>", b"Internal Server Error", b"upstream connect error: reset", b"\xff\xfe", b"5", b'"x"']
)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_body_that_is_something_else_is_malformed(body: bytes, size: int) -> None:
    with pytest.raises(UpstreamBroken):
        blocks_of(body, size)


@pytest.mark.parametrize("body", [b"", b"\n", b"dat", b"\xef\xbb", b"\xef\xbb\xbf"])
def test_a_body_that_ends_before_its_first_event_has_no_blocks(body: bytes) -> None:
    assert blocks_of(body, 1) == []
    assert not framing.is_event_stream(body)


def test_a_document_that_never_ends_is_not_kept() -> None:
    splitter = framing.JsonSplitter(limit=10)
    with pytest.raises(UpstreamBroken, match="too large"):
        splitter.feed(b'{"a": "bcdefgh')
