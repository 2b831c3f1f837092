"""Anthropic's own fields from clients of other formats: what they mean, and what they must not contradict."""

from __future__ import annotations

from typing import Any

import pytest

from llm_service.core import errors
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats import openai_responses as responses
from llm_service.formats.small import completions
from tests.formats.anthropic_messages.wire import claude
from tests.formats.examples import TURN, call

BRIEF = {"type": "text", "text": "Be brief."}
IN_TWO_PARTS = [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]
HINTED = {**BRIEF, "cache_control": {"type": "ephemeral"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
OTHER_SCHEMA = {**SCHEMA, "properties": {"b": {"type": "string"}}, "required": ["b"]}


def write(given: dict[str, Any], **facts: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The request to Claude for a chat client's ``given``, and the names of the dropped fields."""
    body = {"model": "m", "messages": TURN, **given}
    return messages.write_request(call("chat", body), chat.read_request(chat.check(body)), claude(**facts))


def after(role: str, content: Any) -> list[dict[str, Any]]:
    return [{"role": role, "content": content}, *TURN]


@pytest.mark.parametrize(
    ("given", "system"),
    [
        ({"system": "Be brief."}, [BRIEF]),
        ({"system": [BRIEF, {"type": "text", "text": "Be kind."}]}, [BRIEF, {"type": "text", "text": "Be kind."}]),
        ({"system": [HINTED]}, [HINTED]),
        ({"system": "Be brief.", "messages": after("system", "Be brief.")}, [BRIEF]),
        ({"system": "Be brief.", "messages": after("developer", "Be brief.")}, [BRIEF]),
        ({"system": [HINTED], "messages": after("system", "Be brief.")}, [HINTED]),
        (
            {
                "system": "Be brief.",
                "messages": after("system", [{"type": "text", "text": "Be "}, {**BRIEF, "text": "brief."}]),
            },
            [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}],
        ),
        ({"system": "", "messages": after("system", "Be brief.")}, [BRIEF]),
        ({"system": []}, None),
        ({"system": None}, None),
    ],
)
def test_system_is_the_system_prompt(given: dict[str, Any], system: Any) -> None:
    sent, dropped = write(given)
    assert sent.get("system") == system
    assert sent["messages"] == TURN
    assert dropped == ()


@pytest.mark.parametrize("role", ["system", "developer"])
def test_system_must_not_contradict_a_system_message(role: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        write({"system": "Be brief.", "messages": after(role, "Be long.")})
    assert (caught.value.param, caught.value.code) == ("system", "invalid_request")
    assert caught.value.message.startswith("system contradicts the system prompt that the request already has")
    assert "brief" not in caught.value.message


def test_a_later_system_message_is_no_contradiction() -> None:
    turns = [*TURN, {"role": "assistant", "content": "b"}, {"role": "system", "content": "Be long."}, *TURN]
    sent, _ = write({"system": "Be brief.", "messages": turns}, system_turns=True)
    assert sent["system"] == [BRIEF]


@pytest.mark.parametrize(
    ("format", "given", "where"),
    [
        (completions, {"prompt": "Hello"}, None),
        (responses, {"input": "Hello"}, "instructions"),
    ],
)
def test_system_works_on_the_other_openai_routes(format: Any, given: dict[str, Any], where: str | None) -> None:
    body = {"model": "m", **given, "system": "Be brief."}
    client_call = call(format.NAME, body)
    sent, _ = messages.write_request(client_call, format.read_request(format.check(body)), claude())
    assert sent["system"] == [BRIEF]
    if where is not None:
        body[where] = "Be long."
        with pytest.raises(errors.InvalidRequest) as caught:
            messages.write_request(client_call, format.read_request(format.check(body)), claude())
        assert caught.value.param == "system"


@pytest.mark.parametrize(
    ("given", "facts", "expected"),
    [
        ({"top_k": 5}, {"sampling": True}, {"top_k": 5}),
        ({"stop_sequences": ["END"]}, {}, {"stop_sequences": ["END"]}),
        ({"stop_sequences": ["END"], "stop": "END"}, {}, {"stop_sequences": ["END"]}),
        ({"stop_sequences": [], "stop": None}, {}, {}),
        ({"cache_control": {"type": "ephemeral"}}, {}, {"cache_control": {"type": "ephemeral"}}),
        ({"service_tier": "standard_only"}, {}, {"service_tier": "standard_only"}),
        ({"thinking": {"type": "disabled"}}, {"thinking": "budget"}, {"thinking": {"type": "disabled"}}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"thinking": "budget"},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        ),
        (
            {"thinking": {"type": "adaptive", "display": "omitted"}, "reasoning_effort": "low"},
            {"thinking": "adaptive"},
            {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "low"}},
        ),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
            {"thinking": "adaptive"},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        ),
        (
            {"thinking": {"type": "disabled"}, "reasoning_effort": "none"},
            {"thinking": "adaptive"},
            {"thinking": {"type": "disabled"}},
        ),
        (
            {"output_config": {"effort": "high"}, "reasoning_effort": "high"},
            {"thinking": "adaptive"},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            {},
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        ),
        (
            {
                "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
                "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
            },
            {},
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        ),
    ],
    ids=str,
)
def test_a_field_of_the_anthropic_api_is_translated(
    given: dict[str, Any], facts: dict[str, Any], expected: dict[str, Any]
) -> None:
    sent, dropped = write(given, **facts)
    assert {name: value for name, value in sent.items() if name not in ("model", "messages", "max_tokens")} == expected
    assert dropped == ()


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"stop_sequences": ["END"], "stop": "STOP"}, "stop_sequences"),
        ({"thinking": {"type": "disabled"}, "reasoning_effort": "high"}, "thinking"),
        ({"thinking": {"type": "adaptive"}, "reasoning_effort": "none"}, "thinking"),
        ({"output_config": {"effort": "low"}, "reasoning_effort": "high"}, "output_config.effort"),
        (
            {
                "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
                "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": OTHER_SCHEMA}},
            },
            "output_config.format",
        ),
    ],
    ids=str,
)
def test_a_contradiction_is_rejected_with_the_name_of_the_anthropic_field(given: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        write(given, thinking="adaptive")
    assert (caught.value.param, caught.value.code) == (param, "invalid_request")
    assert caught.value.message.startswith(f"{param} contradicts ")


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"system": 3}, "system"),
        ({"system": [3]}, "system[0]"),
        ({"system": [{"text": "x"}]}, "system[0].type"),
        ({"system": [{"type": "text"}]}, "system[0].text"),
        ({"system": [{"type": "image", "source": {}}]}, "system[0]"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": "5"}, "top_k"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": [" "]}, "stop_sequences"),
        ({"thinking": True}, "thinking"),
        ({"thinking": {"type": "often"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "thinking.budget_tokens"),
        ({"output_config": []}, "output_config"),
        ({"output_config": {"effort": "lots"}}, "output_config.effort"),
    ],
    ids=str,
)
def test_a_malformed_field_is_rejected_with_its_path(given: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        write(given)
    assert caught.value.param == param
    assert param in caught.value.message


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"top_k": 5}, "top_k"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
        ({"output_config": {"effort": "high"}}, "output_config.effort"),
    ],
)
def test_what_the_model_does_not_accept_is_dropped_with_the_name_that_the_client_used(
    given: dict[str, Any], name: str
) -> None:
    sent, dropped = write(given, sampling=False, thinking="none")
    assert not {"top_k", "thinking", "output_config"} & set(sent)
    assert dropped == (name,)


@pytest.mark.parametrize(
    ("given", "user", "dropped"),
    [
        ({"metadata": {"user_id": "u1"}}, "u1", ()),
        ({"metadata": {"user_id": "u1"}, "user": "u1"}, "u1", ()),
        ({"metadata": {"user_id": "tag"}, "user": "u1"}, "u1", ("metadata",)),
        ({"metadata": {"user_id": "tag", "team": "a"}}, None, ("metadata",)),
        ({"metadata": {"team": "a"}}, None, ("metadata",)),
        ({"metadata": {}}, None, ()),
    ],
)
def test_only_metadata_with_a_lone_user_id_names_the_end_user(
    given: dict[str, Any], user: str | None, dropped: tuple[str, ...]
) -> None:
    sent, names = write(given)
    assert sent.get("metadata") == (user and {"user_id": user})
    assert names == dropped


@pytest.mark.parametrize(
    "given", [{"system": "Be brief.", "messages": after("system", "Be long.")}, {"thinking": {"type": "x"}}]
)
def test_the_next_target_of_an_alias_is_tried(given: dict[str, Any]) -> None:
    """The router goes on after an UnsupportedParameter only: another vendor may reject or drop the field."""
    with pytest.raises(errors.UnsupportedParameter) as caught:
        write(given)
    assert caught.value.code == "invalid_request"
