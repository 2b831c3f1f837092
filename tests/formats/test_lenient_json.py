"""JSON that orjson does not read."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.formats import lenient_json
from llm_service.formats.lenient_json import HalfJoiner


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (rb'"\ud83d"', "\ufffd"),
        (rb'{"a\ud83d": ["\ude00x", "\ud83d\ude00"]}', {"a\ufffd": ["\ufffdx", "\U0001f600"]}),
        (rb'{"content": "x"}', {"content": "x"}),
    ],
)
def test_single_halves_become_replacement_characters(data: bytes, value: object) -> None:
    assert lenient_json.load(data) == value
    orjson.dumps(lenient_json.load(data))


def test_members_that_are_joined_later_keep_their_halves() -> None:
    loaded = lenient_json.load(rb'{"content": ["x\ud83d"], "name": "x\ud83d"}', frozenset({"content"}))
    assert loaded == {"content": ["x\ud83d"], "name": "x\ufffd"}


@pytest.mark.parametrize("data", [b"", b"{", b'{"a": "x', b"\xff", b'"\xff"', b"[" * 100_000, b"[DONE]"])
def test_what_is_not_json_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        lenient_json.load(data)


@settings(deadline=None)
@given(st.text(), st.integers(1, 5))
def test_a_text_that_was_cut_between_halves_is_joined(text: str, size: int) -> None:
    halves = text.encode("utf-16-le", "surrogatepass")
    units = [halves[start : start + 2] for start in range(0, len(halves), 2)]
    pieces = [b"".join(units[start : start + size]) for start in range(0, len(units), size)]
    joiner = HalfJoiner()
    joined = "".join(joiner.join("a", piece.decode("utf-16-le", "surrogatepass")) for piece in pieces)
    assert joined + joiner.rest("a") == halves.decode("utf-16-le", "replace")
