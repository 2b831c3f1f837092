"""Text for tools that take an object: it is wrapped, and unwrapped in one piece or in many."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_service.formats import custom_tools

TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\/\n\u2028🦓{}'), max_size=40)


def streamed(arguments: str, size: int) -> list[str]:
    unwrapper = custom_tools.Unwrapper()
    pieces = [unwrapper.feed(arguments[start : start + size]) for start in range(0, len(arguments), size)]
    return [*pieces, unwrapper.end()]


@given(TEXTS, st.booleans(), st.integers(1, 9))
@example("🦓", True, 1)
def test_text_comes_back_unchanged_in_pieces_of_any_size(text: str, escaped: bool, size: int) -> None:
    assert custom_tools.unwrap(custom_tools.wrap(text)) == text
    arguments = json.dumps({"input": text}, ensure_ascii=escaped)
    assert custom_tools.unwrap(arguments) == text
    assert "".join(streamed(arguments, size)) == text


def test_text_is_returned_as_soon_as_it_can_be_decoded() -> None:
    assert streamed('{"input": "ab\\ncd"}', 3) == ["", "", "", "a", "b\n", "cd", "", ""]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("", ""),
        (" {} ", ""),
        ('{"input": ""}', ""),
        ('{ "input" : "a" , "more": 1}', "a"),
        ('{"more": 1, "input": "a"}', "a"),
        ('{"input": {"a": 1}}', '{"input": {"a": 1}}'),
        ('{"code": "a"}', '{"code": "a"}'),
        ("[1]", "[1]"),
        ("no JSON", "no JSON"),
    ],
)
@pytest.mark.parametrize("size", [1, 4, 100])
def test_arguments_of_another_shape_are_the_text(arguments: str, text: str, size: int) -> None:
    assert custom_tools.unwrap(arguments) == text
    assert "".join(streamed(arguments, size)) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input": "half a', "half a"),
        ('{"input": "half\\', "half\\"),
        ('{"input": "\\ud83e alone"}', '\\ud83e alone"}'),
        ('{"input": "a\nb"}', 'a\nb"}'),
    ],
)
def test_a_stream_that_is_cut_or_not_json_gives_the_text_so_far(arguments: str, text: str) -> None:
    assert "".join(streamed(arguments, 2)) == text


def test_only_custom_tools_are_found() -> None:
    offered = [{"type": "custom", "custom": {"name": "a"}}, {"type": "function", "function": {"name": "b"}}, 3,
               {"type": "custom", "custom": None}]  # fmt: skip
    assert custom_tools.names(offered) == {"a"}
    assert custom_tools.names(None) == custom_tools.names({"a": 1}) == frozenset()
