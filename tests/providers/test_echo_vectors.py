"""Echo's vectors: of the length asked for, always the same for the same text, alike where words are."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core.errors import InvalidRequest
from llm_service.providers import echo_vectors as vectors

TOKENS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20)


def alike(one: list[float], other: list[float]) -> float:
    return sum(map(float.__mul__, one, other))


@settings(deadline=None)
@given(st.text(min_size=1) | TOKENS, st.integers(8, 256))
def test_every_text_and_list_of_tokens_has_one_vector_of_length_one(given: Any, length: int) -> None:
    found = vectors.vector(given, length)
    assert len(found) == length and math.isclose(math.hypot(*found), 1)
    assert vectors.vector(given, length) == found


def test_texts_are_their_words_whatever_their_order_and_case() -> None:
    apple = vectors.vector("red apple", 64)
    assert vectors.vector(" Apple\n RED", 64) == pytest.approx(apple)
    assert alike(apple, vectors.vector("red pear", 64)) > alike(apple, vectors.vector("blue sky", 64)) + 0.2


def test_a_text_is_its_first_words_and_is_counted_whole() -> None:
    first = " ".join(f"word{number}" for number in range(256))
    longer = f"{first} more of it"
    assert vectors.vector(longer, 16) == vectors.vector(first, 16)
    usage = vectors.reply({"input": [first, longer, [1, 2]]}, "echo")["usage"]
    assert usage == {"prompt_tokens": 256 + 259 + 2, "total_tokens": 256 + 259 + 2}


def test_base64_is_the_same_numbers_as_little_endian_float32() -> None:
    body = {"input": ["a", "b c"], "dimensions": 5}
    plain, encoded = vectors.reply(body, "echo"), vectors.reply({**body, "encoding_format": "base64"}, "echo")
    assert [item["index"] for item in encoded["data"]] == [0, 1]
    for number, item in enumerate(encoded["data"]):
        read = struct.unpack("<5f", base64.b64decode(item["embedding"]))
        assert list(read) == pytest.approx(plain["data"][number]["embedding"], abs=1e-6)


def test_vectors_that_would_hold_up_the_worker_are_refused_by_name() -> None:
    longest = vectors.reply({"input": "a", "dimensions": vectors.MOST_DIMENSIONS}, "echo")
    assert len(longest["data"][0]["embedding"]) == vectors.MOST_DIMENSIONS
    with pytest.raises(InvalidRequest) as caught:
        vectors.reply({"input": "a", "dimensions": vectors.MOST_DIMENSIONS + 1}, "echo")
    assert caught.value.param == "dimensions"
