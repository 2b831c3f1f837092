"""Claude's table of the fields that not all formats know: every row of it, whichever client sends the field."""

from __future__ import annotations

from typing import Any

import pytest

from llm_service.core import errors
from llm_service.core.content import Message, Text
from llm_service.core.conversation import Conversation, Extra
from llm_service.formats import anthropic_messages as messages
from llm_service.formats.rules import FieldRule
from tests.formats.anthropic_messages.wire import claude
from tests.formats.examples import call

RULES = messages.EXTRA_RULES
# A value for each field that is translated, and what the request to Claude has then.
SENT: dict[str, tuple[Any, Any]] = {
    "system": ("Be brief.", [{"type": "text", "text": "Be brief."}]),
    "top_k": (5, 5),
    "stop_sequences": (["END"], ["END"]),
    "cache_control": ({"type": "ephemeral", "ttl": "1h"}, {"type": "ephemeral", "ttl": "1h"}),
    "thinking": ({"type": "enabled", "budget_tokens": 2000}, {"type": "enabled", "budget_tokens": 2000}),
    "output_config": ({"effort": "low"}, {"effort": "low"}),
    "inference_geo": ("us", "us"),
    "speed": ("fast", "fast"),
}


def rows(how: str) -> list[str]:
    # Sorted: every test process must have them in one order.
    return sorted(name for name, rule in RULES.items() if rule.how == how)


def write(name: str, value: Any, path: str = "client.path", **target: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    turns = (Message("user", (Text("x"),)),)
    conversation = Conversation(turns, extras={name: Extra(value, path)})
    return messages.write_request(call("chat", {}), conversation, claude(**target))


PLAIN = write("seed", None)[0]


@pytest.mark.parametrize("name", rows("translate"))
def test_a_field_of_the_anthropic_api_is_sent_under_its_own_name(name: str) -> None:
    value, expected = SENT[name]
    sent, dropped = write(name, value, name, thinking="adaptive" if name == "output_config" else "budget")
    assert sent[name] == expected
    assert dropped == ()


def test_every_translated_field_has_an_example() -> None:
    assert sorted(SENT) == rows("translate")


@pytest.mark.parametrize("name", rows("drop"))
def test_a_hint_is_dropped_and_its_path_is_named(name: str) -> None:
    assert write(name, "anything") == (PLAIN, ("client.path",))


@pytest.mark.parametrize("name", rows("reject"))
def test_a_field_that_would_change_the_answer_is_rejected_with_its_path(name: str) -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        write(name, "anything")
    assert caught.value.param == "client.path"
    assert RULES[name].why in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in sorted(RULES) for value in RULES[name].neutral], ids=str
)
def test_a_neutral_value_is_left_out(name: str, value: Any) -> None:
    assert write(name, value) == (PLAIN, ())


def test_a_field_without_a_row_is_rejected() -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        write("field_of_tomorrow", 1)
    assert caught.value.param == "client.path"


@pytest.mark.parametrize("name", ["container", "thread"])
def test_the_error_for_a_field_of_the_anthropic_api_says_why_it_cannot_be_sent(name: str) -> None:
    assert RULES[name].why != FieldRule("reject").why
    assert "/v1/messages" in RULES[name].why


@pytest.mark.parametrize(
    ("name", "value"), [("speed", "slow"), ("speed", 1), ("inference_geo", ""), ("inference_geo", ["us"])]
)
def test_a_malformed_value_is_rejected_with_its_path(name: str, value: Any) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        write(name, value)
    assert caught.value.code == "invalid_request"
    assert caught.value.param == "client.path"
