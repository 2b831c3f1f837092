"""Aliases of names that a vendor does not take."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_service.core import short_names

OPENAI, GEMINI, MISTRAL = r"[a-zA-Z0-9_-]{1,64}", r"[a-zA-Z_][a-zA-Z0-9_.-]{0,63}", r"[a-zA-Z0-9]{9}"


@given(st.text(), st.sampled_from([OPENAI, GEMINI, MISTRAL]))
def test_an_alias_matches_the_pattern_and_depends_on_the_name_alone(name: str, pattern: str) -> None:
    alias = short_names.alias_of(name, pattern)
    assert alias is not None and re.fullmatch(pattern, alias)
    assert alias == short_names.alias_of(name, pattern, {"another"})
    other = short_names.alias_of(name, pattern, {alias})
    assert other not in (None, alias)


def test_an_alias_ends_with_the_end_of_the_name() -> None:
    alias = short_names.alias_of(f"mcp__{'server_' * 20}__read.file", OPENAI)
    assert alias is not None and re.fullmatch(r"[a-z_]+__read_file_[0-9a-f]{8}|[a-z_]+_read_file_[0-9a-f]{8}", alias)


@pytest.mark.parametrize(("pattern", "fits"), [(OPENAI, True), (MISTRAL, True), (r"[a-z]{3}", False), (r"\d+", False)])
def test_a_pattern_must_leave_room_for_aliases(pattern: str, fits: bool) -> None:
    assert short_names.leaves_room(pattern) is fits
