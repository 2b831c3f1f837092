"""Fields that only OpenAI's formats know: what reaches OpenAI's chat API from a client of another format."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llm_service.core import errors
from llm_service.core.content import Message, Text
from llm_service.core.conversation import Conversation, Extra
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats import openai_responses as responses
from llm_service.formats.openai_chat.extra_rules import EXTRA_RULES
from llm_service.formats.openai_chat.schema import COMMON, EXTRAS
from llm_service.formats.rules import HINTS
from llm_service.formats.small import completions
from tests.formats.examples import TURN, call, target
from tests.formats.openai_chat.wire import body

CLIENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "completions": (completions, {"model": "m", "prompt": "Hello"}),
    "responses": (responses, {"model": "m", "input": "Hello"}),
    "messages": (messages, {"model": "m", "max_tokens": 9, "messages": TURN}),
}
# A value for each field, and what the chat API is sent. The routes with a shape of their own for it are below.
VALUES: dict[str, Any] = {
    "frequency_penalty": 0.5,
    "logit_bias": {"5": -1},
    "metadata": {"a": "b"},
    "moderation": {"model": "omni-moderation-latest"},
    "n": 3,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": -0.5,
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "safety_identifier": "someone",
    "seed": 7,
    "stop": ["END"],
    "store": True,
    "verbosity": "low",
    "logprobs": True,
    "top_logprobs": 2,
}
OLDER: dict[str, Any] = {"max_tokens_field": "max_tokens", "responses": False, "own_address": True}
REJECTED: dict[str, Any] = {
    "audio": {"voice": "ash", "format": "wav"},
    "inference_geo": "us",
    "function_call": {"name": "f"},
    "functions": [{"name": "f"}],
    "max_completion_tokens": 5,
    "max_output_tokens": 5,
    "max_tokens": 5,
    "messages": TURN,
    "input": "x",
    "output_config": {"effort": "low"},
    "system": "x",
    "thinking": {"type": "adaptive"},
    "modalities": ["text", "audio"],
    "tool_choice": "required",
    "tools": [{"type": "function"}],
    "web_search_options": {"search_context_size": "low"},
}
HINTS_OF_OTHERS = {*HINTS, "max_tool_calls", "speed", "stream_options", "truncation"}
HINTS_OF_OTHERS |= {"compaction", "container", "context_management", "fallbacks", "mcp_servers"}
NAMES_OF_OTHERS = {"inference_geo", "input", "max_output_tokens", "output_config", "system", "thinking"}


def sent(
    client: str, extra: dict[str, Any], storage: bool | None = None, **provider: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the chat API is sent for a request of ``client`` with ``extra``, and the fields that are dropped."""
    format, given = CLIENTS[client]
    asked = call(client, {**given, **extra})
    asked = replace(asked, caller=replace(asked.caller, storage=storage))
    conversation = format.read_request(format.check(asked.body))
    return chat.write_request(asked, conversation, target(provider=provider))


def conversation(**extras: Any) -> Conversation:
    reported = {name: Extra(value, f"path.of.{name}") for name, value in extras.items()}
    return Conversation((Message("user", (Text("Hello"),)),), extras=reported)


def test_every_field_of_the_api_is_read_or_is_an_extra_field() -> None:
    assert not COMMON & set(EXTRAS)
    assert set(EXTRAS) <= set(EXTRA_RULES)
    assert set(EXTRA_RULES) <= COMMON | set(EXTRAS) | HINTS_OF_OTHERS | NAMES_OF_OTHERS
    assert set(VALUES) | set(REJECTED) | HINTS_OF_OTHERS | {"user"} == set(EXTRA_RULES)


@pytest.mark.parametrize("name", VALUES)
def test_an_extra_field_reaches_the_chat_api(name: str) -> None:
    asked = call("completions", {"model": "m", name: VALUES[name]})
    asked = replace(asked, caller=replace(asked.caller, storage=True))
    written, dropped = chat.write_request(asked, conversation(**{name: VALUES[name]}), target())
    assert written[name] == VALUES[name]
    assert dropped == ()


@pytest.mark.parametrize(("name", "value"), REJECTED.items())
@pytest.mark.parametrize("client", ["completions", "responses", "messages"])
def test_what_no_other_answer_can_carry_is_rejected_by_the_client_s_path(client: str, name: str, value: Any) -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        chat.write_request(call(client, {}), conversation(**{name: value}), target())
    assert caught.value.param == f"path.of.{name}"
    assert "no counterpart" not in caught.value.message


@pytest.mark.parametrize("name", sorted(HINTS_OF_OTHERS))
def test_a_hint_of_another_api_is_dropped_by_the_client_s_path(name: str) -> None:
    written, dropped = chat.write_request(call("messages", {}), conversation(**{name: "x"}), target())
    assert (name in written, dropped) == (False, (f"path.of.{name}",))


@pytest.mark.parametrize("name", [*VALUES, *REJECTED])
def test_a_value_that_means_the_same_as_no_field_is_left_out(name: str) -> None:
    for value in EXTRA_RULES[name].neutral:
        written, dropped = chat.write_request(call("messages", {}), conversation(**{name: value}), target())
        assert written.get(name) in (None, False)
        assert dropped == ()


@pytest.mark.parametrize(
    "extra",
    [{name: VALUES[name]} for name in ("seed", "n", "frequency_penalty", "presence_penalty", "logit_bias")],
    ids=lambda extra: next(iter(extra)),
)
@pytest.mark.parametrize("provider", [{}, OLDER], ids=["current", "older"])
def test_completions_keep_what_chat_has(extra: dict[str, Any], provider: dict[str, Any]) -> None:
    written, dropped = sent("completions", extra, **provider)
    assert extra.items() <= written.items()
    assert dropped == ()


@pytest.mark.parametrize("name", ["seed", "verbosity", "prompt_cache_key", "frequency_penalty", "stop_not_known"])
def test_messages_clients_may_name_fields_of_chat(name: str) -> None:
    if name in VALUES:
        assert sent("messages", {name: VALUES[name]})[0][name] == VALUES[name]
        return
    with pytest.raises(errors.UnsupportedParameter) as caught:
        sent("messages", {name: 1})
    assert caught.value.param == name


@pytest.mark.parametrize(("asked", "top"), [(0, None), (2, 2)])
def test_the_logprobs_of_completions_are_two_fields_of_chat(asked: int, top: int | None) -> None:
    written, _ = sent("completions", {"logprobs": asked})
    assert (written["logprobs"], written.get("top_logprobs")) == (True, top)


@pytest.mark.parametrize("extra", [{"best_of": 3, "n": 3}, {"best_of": 1}, {"best_of": 0}, {"echo": False}])
def test_completions_fields_that_change_nothing_are_left_out(extra: dict[str, Any]) -> None:
    written, dropped = sent("completions", {**extra, "suffix": ""})
    assert not {"best_of", "echo", "suffix"} & set(written)
    assert dropped == ()


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"best_of": 3}, "best_of"),
        ({"best_of": 3, "n": 2}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"brand_new": 1}, "brand_new"),
        ({"brand new ünd long": 1}, "(unnamed)"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"max_completion_tokens": 3}, "max_completion_tokens"),
        ({"messages": TURN}, "messages"),
    ],
)
def test_completions_fields_that_chat_does_not_have_are_rejected(extra: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        sent("completions", extra)
    assert caught.value.param == param


def test_several_choices_are_only_for_clients_whose_answers_have_room_for_them() -> None:
    assert sent("messages", {"n": 1})[0].get("n") is None
    with pytest.raises(errors.UnsupportedParameter, match="cannot carry"):
        sent("messages", {"n": 2})


def test_a_field_that_contradicts_the_request_is_named() -> None:
    extra = {"safety_identifier": "one"}
    assert sent("completions", {**extra, "user": "one"})[0]["safety_identifier"] == "one"
    with pytest.raises(errors.InvalidRequest, match="contradicts") as caught:
        sent("completions", {**extra, "user": "two"})
    assert caught.value.param == "safety_identifier"


@pytest.mark.parametrize(("provider", "field"), [({}, "safety_identifier"), (OLDER, "user")])
def test_a_messages_client_may_name_its_end_user_as_in_chat(provider: dict[str, Any], field: str) -> None:
    assert sent("messages", {"user": "ann"}, **provider)[0][field] == "ann"
    assert len(sent("messages", {"user": "a" * 65}, **provider)[0][field]) == 64
    with pytest.raises(errors.InvalidRequest, match="contradicts"):
        sent("messages", {"user": "ann", "metadata": {"user_id": "bob"}}, **provider)
    with pytest.raises(errors.InvalidRequest, match="must be a string"):
        sent("messages", {"user": 5}, **provider)


@pytest.mark.parametrize("client", ["completions", "responses"])
@pytest.mark.parametrize(
    ("asked", "written"), [("auto", None), ("default", "default"), ("standard_only", "default"), ("flex", "flex")]
)
def test_a_service_tier_is_the_same_for_the_clients_of_all_routes(client: str, asked: str, written: str | None) -> None:
    body, dropped = sent(client, {"service_tier": asked})
    assert (body.get("service_tier"), dropped) == (written, ())
    assert sent(client, {"service_tier": "flex"}, None, **OLDER)[1] == ("service_tier",)
    with pytest.raises(errors.InvalidRequest, match="must be a string"):
        sent(client, {"service_tier": ["flex"]})


def test_two_fields_for_the_same_thing_must_agree() -> None:
    assert sent("completions", {"logprobs": 2, "top_logprobs": 2})[0]["top_logprobs"] == 2
    assert sent("responses", {"text": {"verbosity": "low"}, "verbosity": "low"})[0]["verbosity"] == "low"
    for client, extra, param in (
        ("completions", {"logprobs": 2, "top_logprobs": 3}, "logprobs"),
        ("responses", {"text": {"verbosity": "low"}, "verbosity": "high"}, "text.verbosity"),
    ):
        with pytest.raises(errors.InvalidRequest, match="contradicts") as caught:
            sent(client, extra)
        assert caught.value.param == param


def test_storage_needs_permission() -> None:
    assert sent("completions", {"store": True}, storage=True)[0]["store"] is True
    for storage in (None, False):
        with pytest.raises(errors.UnsupportedParameter) as caught:
            sent("completions", {"store": True}, storage=storage)
        assert (caught.value.param, caught.value.code) == ("store", "storage_not_allowed")
    assert sent("completions", {"store": False})[0]["store"] is False
    assert sent("completions", {})[0]["store"] is False


NEWER = {"metadata", "prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
NEWER |= {"safety_identifier", "store", "verbosity"}


@pytest.mark.parametrize("name", [name for name in VALUES if name != "moderation"])
def test_an_older_server_is_sent_the_long_standing_fields_and_no_newer_hints(name: str) -> None:
    written, dropped = chat.write_request(
        call("completions", {}), conversation(**{name: VALUES[name]}), target(provider=OLDER)
    )
    if name in NEWER:
        assert (name in written, dropped) == (False, (f"path.of.{name}",))
    else:
        assert (written[name], dropped) == (VALUES[name], ())


def test_an_older_server_cannot_moderate() -> None:
    with pytest.raises(errors.UnsupportedParameter) as caught:
        chat.write_request(
            call("completions", {}), conversation(moderation=VALUES["moderation"]), target(provider=OLDER)
        )
    assert caught.value.param == "path.of.moderation"


def test_a_chat_request_carries_its_extra_fields_and_those_of_tomorrow() -> None:
    given = body(n=2, seed=3, verbosity="medium", top_k=5, stream=True, logprobs=False, metadata=None)
    assert dict(chat.read_request(chat.check(given)).extras) == {
        "n": Extra(2, "n"),
        "seed": Extra(3, "seed"),
        "top_k": Extra(5, "top_k"),
    }
