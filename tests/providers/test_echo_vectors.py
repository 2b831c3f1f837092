"""Echo's vectors have the requested length, are always the same for a text, and are similar if texts share words."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_service.core.errors import InvalidRequest
from llm_service.providers import echo_vectors

TOKENS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20)


def similarity(one: list[float], other: list[float]) -> float:
    return sum(map(float.__mul__, one, other))


@settings(deadline=None)
@given(st.text(min_size=1) | TOKENS, st.integers(8, 256))
def test_every_text_and_list_of_tokens_has_one_vector_of_length_one(text: Any, length: int) -> None:
    vector = echo_vectors.vector(text, length)
    assert len(vector) == length and math.isclose(math.hypot(*vector), 1)
    assert echo_vectors.vector(text, length) == vector


def test_the_order_and_case_of_words_do_not_change_a_vector() -> None:
    apple = echo_vectors.vector("red apple", 64)
    assert echo_vectors.vector(" Apple\n RED", 64) == pytest.approx(apple)
    pear, sky = echo_vectors.vector("red pear", 64), echo_vectors.vector("blue sky", 64)
    assert similarity(apple, pear) > similarity(apple, sky) + 0.2


def test_a_vector_depends_on_the_first_words_only_and_all_words_are_counted() -> None:
    first = " ".join(f"word{number}" for number in range(256))
    longer = f"{first} more of it"
    assert echo_vectors.vector(longer, 16) == echo_vectors.vector(first, 16)
    usage = echo_vectors.reply({"input": [first, longer, [1, 2]]}, "echo")["usage"]
    assert usage == {"prompt_tokens": 256 + 259 + 2, "total_tokens": 256 + 259 + 2}


def test_base64_is_the_same_numbers_as_little_endian_float32() -> None:
    body = {"input": ["a", "b c"], "dimensions": 5}
    plain = echo_vectors.reply(body, "echo")
    encoded = echo_vectors.reply({**body, "encoding_format": "base64"}, "echo")
    assert [item["index"] for item in encoded["data"]] == [0, 1]
    for number, item in enumerate(encoded["data"]):
        read = struct.unpack("<5f", base64.b64decode(item["embedding"]))
        assert list(read) == pytest.approx(plain["data"][number]["embedding"], abs=1e-6)


def test_more_dimensions_than_a_worker_can_compute_quickly_are_rejected_by_name() -> None:
    longest = echo_vectors.reply({"input": "a", "dimensions": echo_vectors.MAX_DIMENSIONS}, "echo")
    assert len(longest["data"][0]["embedding"]) == echo_vectors.MAX_DIMENSIONS
    with pytest.raises(InvalidRequest) as caught:
        echo_vectors.reply({"input": "a", "dimensions": echo_vectors.MAX_DIMENSIONS + 1}, "echo")
    assert caught.value.param == "dimensions"
