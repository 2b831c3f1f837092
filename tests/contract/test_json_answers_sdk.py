"""JSON answers that are checked, repaired and asked for again: official clients, both vendors, plain and streamed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest

from tests.contract.cases import CLAUDE, GPT
from tests.support.server import Server
from tests.upstream import Step, Upstream

OPUS = "anthropic/claude-opus-4-8"  # a model that supports schemas
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
GOOD = '{"city": "Zürich 🦓", "people": 3}'
MALFORMED = "```json\n{'city': 'Zürich 🦓', people: 3,"
PROSE = "Certainly! I would say Paris."
WRONG = '{"city": 7}'
HI: Any = [{"role": "user", "content": "Where?"}]


@dataclass
class Got:
    text: str
    outcome: str | None  # the header X-JSON-Answer
    tokens: tuple[int, int]
    request_id: str
    raw: bytes = b""


def chat(service: Server, stream: bool, **changes: Any) -> Got:
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    format = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    raw: Any = service.openai().chat.completions.with_raw_response.create(
        **{"model": GPT, "messages": HI, "response_format": format, **options, **changes}
    )
    if not stream:
        reply = raw.parse()
        text, usage = reply.choices[0].message.content, reply.usage
    else:
        chunks = list(raw.parse())
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        usage = chunks[-1].usage
    tokens = (usage.prompt_tokens, usage.completion_tokens)
    return Got(text, raw.headers.get("x-json-answer"), tokens, raw.headers["x-request-id"])


def responses(service: Server, stream: bool, **changes: Any) -> Got:
    given = {"text": {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA}}, "input": "Where?"}
    raw: Any = service.openai().responses.with_raw_response.create(
        **{"model": GPT, "stream": stream, **given, **changes}
    )
    reply = raw.parse()
    if stream:
        events = list(reply)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        reply = events[-1].response
    tokens = (reply.usage.input_tokens, reply.usage.output_tokens)
    return Got(reply.output_text, raw.headers.get("x-json-answer"), tokens, raw.headers["x-request-id"])


def messages(service: Server, stream: bool, **changes: Any) -> Got:
    given = {"messages": HI, "max_tokens": 500, "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
    given |= {"model": OPUS, **changes}
    client = service.anthropic()
    headers: Any
    if stream:
        extra = given.pop("extra_headers", {})
        with client.messages.stream(**given, extra_headers=extra) as events:
            reply: Any = events.get_final_message()
            headers = events.response.headers
    else:
        raw: Any = client.messages.with_raw_response.create(**given)
        reply, headers = raw.parse(), raw.headers
    (block,) = reply.content
    tokens = (reply.usage.input_tokens, reply.usage.output_tokens)
    return Got(block.text, headers.get("x-json-answer"), tokens, headers["x-request-id"])


Ask = Callable[..., Got]
CLIENTS = [(chat, GPT), (chat, OPUS), (responses, GPT), (responses, OPUS), (messages, OPUS), (messages, GPT)]
every_client = pytest.mark.parametrize(
    ("ask", "model"), CLIENTS, ids=[f"{ask.__name__}-{model}" for ask, model in CLIENTS]
)
both = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


def mode_header(mode: str) -> dict[str, str]:
    return {"X-JSON-Answer": mode}


@every_client
@both
@pytest.mark.parametrize("mode", ["check", "repair", "retry"])
def test_a_valid_answer_is_passed_on_and_reported_as_valid(
    service: Server, upstream: Upstream, ask: Ask, model: str, stream: bool, mode: str
) -> None:
    upstream.script(Step(text=GOOD, input_tokens=40, output_tokens=9))
    got = ask(service, stream, model=model, extra_headers=mode_header(mode))
    assert (got.text, got.outcome, got.tokens) == (GOOD, "valid", (40, 9))
    assert len(upstream.requests) == 1


@every_client
@both
@pytest.mark.parametrize("mode", ["repair", "retry"])
def test_nearly_valid_json_is_repaired_and_reported_as_repaired(
    service: Server, upstream: Upstream, ask: Ask, model: str, stream: bool, mode: str
) -> None:
    upstream.script(Step(text=MALFORMED, input_tokens=40, output_tokens=9))
    got = ask(service, stream, model=model, extra_headers=mode_header(mode))
    assert (json.loads(got.text), got.outcome, got.tokens) == (json.loads(GOOD), "repaired", (40, 9))
    assert len(upstream.requests) == 1


@every_client
@both
@pytest.mark.parametrize(
    ("bad", "reported"), [(PROSE, "not valid JSON"), (WRONG, "At $.city: 7 is not of type 'string'")]
)
def test_the_model_is_asked_once_more_and_shown_its_error(
    service: Server, upstream: Upstream, ask: Ask, model: str, stream: bool, bad: str, reported: str
) -> None:
    upstream.script(Step(text=bad, input_tokens=40, output_tokens=9), Step(text=GOOD, input_tokens=60, output_tokens=5))
    got = ask(service, stream, model=model, extra_headers=mode_header("retry"))
    assert (got.text, got.outcome, got.tokens) == (GOOD, "retried", (100, 14))
    first, second = (seen.body for seen in upstream.requests)
    name = "input" if "input" in second else "messages"
    *_, answered, note = second[name]
    assert (answered["role"], note["role"]) == ("assistant", "user")
    assert bad in json.dumps(answered, ensure_ascii=False).replace('\\"', '"')
    assert reported in json.dumps(note, ensure_ascii=False)
    assert {**second, name: None} == {**first, name: None}
    row = service.row(got.request_id)
    assert (row["outcome"], row["attempts"], row["input_tokens"], row["output_tokens"]) == ("ok", 2, 100, 14)


@every_client
@both
def test_a_second_answer_may_be_repaired(
    service: Server, upstream: Upstream, ask: Ask, model: str, stream: bool
) -> None:
    upstream.script(
        Step(text=PROSE, input_tokens=40, output_tokens=9), Step(text=MALFORMED, input_tokens=60, output_tokens=5)
    )
    got = ask(service, stream, model=model, extra_headers=mode_header("retry"))
    assert (json.loads(got.text), got.outcome, got.tokens) == (json.loads(GOOD), "retried, repaired", (100, 14))


@every_client
@both
def test_two_wrong_answers_raise_the_sdk_s_error_and_are_charged(
    service: Server, upstream: Upstream, ask: Ask, model: str, stream: bool
) -> None:
    upstream.script(
        Step(text=WRONG, input_tokens=40, output_tokens=9), Step(text=WRONG, input_tokens=60, output_tokens=5)
    )
    with pytest.raises((openai.InternalServerError, anthropic.InternalServerError)) as caught:
        ask(service, stream, model=model, extra_headers=mode_header("retry"))
    assert isinstance(caught.value, openai.InternalServerError | anthropic.InternalServerError)
    assert caught.value.status_code == 502
    assert "The model's answer is not the JSON that was asked for: type at $.city." in caught.value.message
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 2
    row = service.row(caught.value.response.headers["x-request-id"])
    assert (row["outcome"], row["error_type"], row["status"]) == ("upstream_error", "invalid_json_answer", 502)
    assert (row["attempts"], row["input_tokens"], row["output_tokens"], row["usage_exact"]) == (2, 100, 14, True)


@every_client
def test_both_answers_are_charged(service: Server, upstream: Upstream, ask: Ask, model: str) -> None:
    costs = []
    for mode, steps in (
        ("repair", [Step(text=GOOD, input_tokens=1000, output_tokens=100)]),
        ("retry", [Step(text=bad, input_tokens=1000, output_tokens=100) for bad in (PROSE, GOOD)]),
    ):
        upstream.script(*steps)
        costs.append(
            service.row(ask(service, False, model=model, extra_headers=mode_header(mode)).request_id)["cost_nanousd"]
        )
    assert costs[1] == 2 * costs[0] > 0


@both
@pytest.mark.parametrize("model", [GPT, CLAUDE])
def test_a_request_may_ask_for_any_json_object(service: Server, upstream: Upstream, model: str, stream: bool) -> None:
    changes: dict[str, Any] = {
        "model": model,
        "response_format": {"type": "json_object"},
        "extra_headers": mode_header("retry"),
    }
    upstream.script(Step(text=MALFORMED), Step(text="[1, 2]"), Step(text='{"any": "thing"}'))
    assert chat(service, stream, **changes).outcome == "repaired"
    got = chat(service, stream, **changes)
    assert (got.text, got.outcome) == ('{"any": "thing"}', "retried")
