"""What an extra field of a client must not do to a request: overwrite it, cost more than was held, or break it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from llm_service.billing.upper_bound import upper_bound
from llm_service.core import errors
from llm_service.core.target import Target
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_chat as chat
from llm_service.formats import openai_responses as responses
from llm_service.formats import registry, rules
from llm_service.formats.anthropic_messages.encode_request import EXTRA_RULES as MESSAGES_RULES
from llm_service.formats.openai_chat import schema as chat_schema
from llm_service.formats.openai_chat.extra_rules import EXTRA_RULES as CHAT_RULES
from llm_service.formats.openai_responses import schema as responses_schema
from llm_service.formats.openai_responses.encode_request import EXTRA_RULES as RESPONSES_RULES
from llm_service.formats.small import completions
from tests.formats.examples import TURN, call, target

OLDER = {"max_tokens_field": "max_tokens", "responses": False, "own_address": True}
TARGETS: dict[str, tuple[Any, Target]] = {
    "chat": (chat, target()),
    "older": (chat, target(provider=OLDER)),
    "responses": (responses, target(model="gpt-5", thinking="effort", sampling=False)),
    "messages": (messages, target("anthropic", "claude", thinking="adaptive", max_output=1000)),
}
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"model": "m", "messages": TURN, "max_completion_tokens": 3, "user": "ann"},
    "completions": {"model": "m", "prompt": "Hello", "max_tokens": 3, "user": "ann"},
    "responses": {"model": "m", "input": "Hello", "max_output_tokens": 3, "user": "ann"},
    "messages": {"model": "m", "messages": TURN, "max_tokens": 3, "metadata": {"user_id": "ann"}},
}
COMMON: dict[str, frozenset[str]] = {
    "chat": chat_schema.COMMON,
    "completions": completions.COMMON,
    "responses": responses_schema.COMMON,
    "messages": messages.COMMON,
}
PAIRS = [(client, to) for client in BODIES for to in TARGETS if client != TARGETS[to][0].NAME]
# Fields of all APIs, and of none.
NAMES = sorted(
    {*CHAT_RULES, *RESPONSES_RULES, *MESSAGES_RULES, "model", "stream", "user", "best_of", "echo", "suffix", "thread"}
    | {"service_tier", "max_tokens", "tools", "field of\nnobody", "metadata.user_id", "text.verbosity"}
)
VALUES: tuple[Any, ...] = (
    *(0, 1, 2, 1.0, 99, True, False, "", "x", "priority", "fast", "low", "24h"),
    *([], {}, [[]], [{}], ["x"], {"type": []}, {"type": "ephemeral", "ttl": []}, {"a": {"b": [1]}}),
    *({"type": "adaptive"}, {"effort": "low"}, {"type": "content", "content": "x" * 500}),
)


def sent(client: str, to: str, **extra: Any) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]] | None:
    """The client's body, what the vendor is sent, and the names that are dropped; None if the request is rejected."""
    format, body = registry.format_of(call(client, {})), {**BODIES[client], **extra}
    upstream, chosen = TARGETS[to]
    try:
        asked = call(client, format.check(body), stream=body.get("stream") is True)
        conversation = format.read_request(asked.body)
        written, dropped = upstream.write_request(asked, conversation, chosen)
    except (errors.InvalidRequest, errors.UnsupportedParameter):
        return None
    return body, written, (*conversation.dropped, *dropped)


def every(client: str, to: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...]]]:
    own = set(BODIES[client]) | {"model", "stream"}
    for name in NAMES:
        for value in VALUES:
            done = None if name in own else sent(client, to, **{name: value})
            if done is not None:
                yield name, *done


@pytest.mark.parametrize(("client", "to"), PAIRS)
def test_no_extra_field_overwrites_what_the_writer_sets(client: str, to: str) -> None:
    whole = sent(client, to)
    assert whole is not None
    for name, _, written, dropped in every(client, to):
        for field, value in whole[1].items():
            if name in COMMON[client] or field == "include":  # which gets more members
                continue
            assert written[field] == value and type(written[field]) is type(value), (name, field)
        assert all(part.isascii() and part.isprintable() and len(part) < 100 for part in dropped)


@pytest.mark.parametrize(("client", "to"), PAIRS)
def test_nothing_is_stored_and_nothing_costs_more_than_was_held(client: str, to: str) -> None:
    bounds = registry.format_of(call(client, {})).BOUNDS
    for name, body, written, _ in every(client, to):
        held = upper_bound(call(client, body), [TARGETS[to][1]])
        limits = ("max_tokens", "max_completion_tokens", "max_output_tokens")
        most = max(written[field] for field in limits if field in written)
        assert most * written.get("n", 1) <= held.output_tokens, name
        if held.unbounded is None:
            tier = written.get("speed") or written.get("service_tier")
            assert tier in (None, "default", "standard", "standard_only", *bounds.service_tiers(body)), name
            assert not {"inference_geo", "tools", "web_search_options"} & set(written), name
        assert written.get("store", False) is False, name
        assert not {"background", "conversation", "previous_response_id", "thread"} & set(written), name


@pytest.mark.parametrize("name", ["n", "speed", "service_tier", "prediction", "max_tokens", "thinking", "system"])
def test_the_bound_reads_a_field_by_every_name_whichever_client_sends_it(name: str) -> None:
    readings = {client: registry.format_of(call(client, {})).BOUNDS for client in BODIES}
    body = {"model": "m", name: {"n": 3, "prediction": {"content": "x" * 99}}.get(name, "flex")}
    for bounds in readings.values():
        assert bounds.choices(body) == (3 if name == "n" else 1)
        assert (bounds.predicted(body) > 99) is (name == "prediction")
        assert ("flex" in bounds.service_tiers(body)) is (name in ("speed", "service_tier"))


@pytest.mark.parametrize("client", ["chat", "completions", "responses"])
def test_the_hash_of_a_prompt_covers_a_system_prompt_under_anthropics_name(client: str) -> None:
    format, body = registry.format_of(call(client, {})), BODIES[client]
    assert format.prompt({**body, "system": "a"}) != format.prompt({**body, "system": "b"})
    assert format.prompt({**body, "system": "a"})[-1] == "a"
    assert format.prompt({**body, "system": None}) == format.prompt(body)


def test_anthropic_keeps_a_conversation_only_where_storage_is_allowed() -> None:
    chosen = target("anthropic", "claude")
    asked = call("messages", {**BODIES["messages"], "thread": {"type": "create"}})
    with pytest.raises(errors.UnsupportedParameter) as caught:
        messages.forward(asked, chosen)
    assert (caught.value.param, caught.value.code) == ("thread", "storage_not_allowed")
    allowed = replace(asked, caller=replace(asked.caller, storage=True))
    assert messages.forward(allowed, chosen)["thread"] == {"type": "create"}
    assert messages.forward(call("messages", {**BODIES["messages"], "thread": None}), chosen)


@pytest.mark.parametrize(
    ("given", "provider", "written"),
    [
        ({"max_completion_tokens": 5}, OLDER, {"max_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": None}, OLDER, {"max_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": 9}, OLDER, {"max_completion_tokens": 5, "max_tokens": 9}),
        ({"max_completion_tokens": 5}, {}, {"max_completion_tokens": 5}),
        ({"max_tokens": 5}, {}, {"max_tokens": 5}),
    ],
)
def test_a_server_that_ignores_the_newer_limit_gets_it_by_the_older_name(
    given: dict[str, Any], provider: dict[str, Any], written: dict[str, Any]
) -> None:
    asked = call("chat", {"model": "m", "messages": TURN, **given})
    body = chat.forward(asked, target(provider=provider))
    assert {name: value for name, value in body.items() if name.startswith("max_")} == written
    assert asked.body == {"model": "m", "messages": TURN, **given}


@pytest.mark.parametrize(
    ("client", "extra", "param"),
    [
        ("chat", {"thinking": {"type": ["adaptive"]}}, "thinking.type"),
        ("messages", {"service_tier": ["auto"]}, "service_tier"),
        ("messages", {"tool_choice": {"type": ["auto"]}}, "tool_choice.type"),
    ],
)
def test_a_list_where_a_word_belongs_is_the_clients_mistake(client: str, extra: dict[str, Any], param: str) -> None:
    body = {**BODIES[client], **extra}
    to = "messages" if client == "chat" else "chat"
    with pytest.raises(errors.InvalidRequest) as caught:
        TARGETS[to][0].write_request(
            call(client, body), registry.format_of(call(client, {})).read_request(body), TARGETS[to][1]
        )
    assert caught.value.param == param


def test_a_reasoning_item_that_is_no_list_is_read_as_empty() -> None:
    item = {"type": "reasoning", "summary": 1, "content": {"a": 1}}
    assert responses.read_request({"model": "m", "input": [*TURN, item, *TURN]})


def test_no_error_denies_a_counterpart_that_the_targets_own_clients_have() -> None:
    for client, to in PAIRS:
        upstream, chosen = TARGETS[to]
        format = registry.format_of(call(client, {}))
        said = []
        for name in upstream.RequestSchema().fields if to != "older" else ():
            body = {**BODIES[client], name: "x"}
            try:
                upstream.write_request(call(client, body), format.read_request(format.check(body)), chosen)
            except errors.ServiceError as error:
                said.append(error.message)
        assert [message for message in said if "no counterpart" in message] == []


def test_no_error_quotes_the_name_of_a_field_that_is_a_text() -> None:
    for client, to in PAIRS:
        upstream, chosen = TARGETS[to]
        body = {**BODIES[client], "my secret\ntext": 1}
        with pytest.raises(errors.UnsupportedParameter) as caught:
            upstream.write_request(call(client, body), registry.format_of(call(client, {})).read_request(body), chosen)
        assert caught.value.param == "(unnamed)"
        assert "secret" not in caught.value.message


def test_true_is_not_the_number_one() -> None:
    assert rules.cross({"n": 1}, {"n": rules.reject_unless(1)}) == []
    with pytest.raises(errors.UnsupportedParameter, match=r"^n is not supported"):
        rules.cross({"n": True}, {"n": rules.reject_unless(1)})
