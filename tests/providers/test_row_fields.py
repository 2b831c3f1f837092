"""What a row drops from a body and adds to it, and what of that the caller is told."""

from __future__ import annotations

from typing import Any

import pytest

from llm_service.core.target import Provider
from llm_service.providers.row_fields import fitted
from tests.formats.examples import call

BODY: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "x", "name": "ann"}, {"role": "user", "content": "y"}],
    "stream_options": {"include_usage": True, "include_obfuscation": False},
    "n": 1,
    "frequency_penalty": 0.5,
}


@pytest.mark.parametrize(
    ("drop", "gone", "named"),
    [
        (("n",), {"n": 1}, ("n",)),
        (("seed",), {}, ()),
        (("n=1",), {"n": 1}, ()),
        (("n=2", "frequency_penalty=0"), {}, ()),
        (("n=1.0", "frequency_penalty=0.5"), {"n": 1, "frequency_penalty": 0.5}, ()),
        (("n=true",), {}, ()),
        (("messages.name", "messages[].size", "n.x"), {}, ()),
    ],
)
def test_a_field_is_dropped_and_named_unless_its_value_changes_nothing(
    drop: tuple[str, ...], gone: dict[str, Any], named: tuple[str, ...]
) -> None:
    body, names = fitted(BODY, call("chat", BODY), Provider("x", "openai", drop=drop))
    assert (body, names) == ({name: value for name, value in BODY.items() if name not in gone}, named)


def test_a_path_reaches_into_objects_and_lists_and_the_body_itself_does_not_change() -> None:
    row = Provider("x", "openai", drop=("messages[].name", "stream_options.include_obfuscation"))
    body, names = fitted(BODY, call("chat", BODY), row)
    assert [list(message) for message in body["messages"]] == [["role", "content"], ["role", "content"]]
    assert body["stream_options"] == {"include_usage": True}
    assert names == ("messages[].name", "stream_options.include_obfuscation")
    assert "name" in BODY["messages"][0]


def test_a_value_is_compared_wherever_the_path_leads() -> None:
    row = Provider(
        "x", "openai", drop=('messages[].name="ann"', "stream_options.include_obfuscation=false", "stop[]=1")
    )
    body, names = fitted({**BODY, "stop": ["a", 1]}, call("chat", BODY), row)
    assert [list(message) for message in body["messages"]] == [["role", "content"], ["role", "content"]]
    assert (body["stream_options"], body["stop"], names) == ({"include_usage": True}, ["a"], ())
    other = Provider("x", "openai", drop=('messages[].name="bob"', "stream_options.include_usage=false", "n[]=1"))
    assert fitted(BODY, call("chat", BODY), other) == (BODY, ())


def test_what_the_service_itself_had_written_is_dropped_without_a_name() -> None:
    row = Provider("x", "openai", drop=("store",))
    body, names = fitted({**BODY, "store": False}, call("chat", BODY), row)
    assert ("store" in body, names) == (False, ())


def test_a_field_is_added_only_where_the_caller_has_none() -> None:
    row = Provider("x", "openai", add={"n": 3, "reasoning_split": True})
    body, _ = fitted(BODY, call("chat", BODY), row)
    assert (body["n"], body["reasoning_split"]) == (1, True)
