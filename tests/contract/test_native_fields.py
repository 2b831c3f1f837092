"""The official OpenAI client sends fields of Anthropic's own API to a Claude model, over sockets."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.upstream import Step, Upstream

CLAUDE, ADAPTIVE = "anthropic/claude-haiku-4-5", "anthropic/claude-opus-4-6"
HELLO: Any = [{"role": "user", "content": "Hi"}]
BRIEF = {"type": "text", "text": "Be brief."}


def complete(client: openai.OpenAI, stream: bool, **given: Any) -> str:
    """The text of the answer."""
    if not stream:
        return client.chat.completions.create(**given).choices[0].message.content or ""
    chunks = client.chat.completions.create(**given, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("system", ["Be brief.", [BRIEF]])
def test_a_top_level_system_is_claude_s_system_prompt(
    openai_client: openai.OpenAI, upstream: Upstream, stream: bool, system: Any
) -> None:
    upstream.script(Step(text="Hello"))
    text = complete(openai_client, stream, model=CLAUDE, messages=HELLO, extra_body={"system": system})
    assert text == "Hello"
    assert upstream.last.body["system"] == [BRIEF]
    assert upstream.last.body["messages"] == HELLO


def test_equal_system_prompts_are_sent_once(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(text="Hello"))
    messages: Any = [{"role": "system", "content": "Be brief."}, *HELLO]
    complete(openai_client, False, model=CLAUDE, messages=messages, extra_body={"system": "Be brief."})
    assert upstream.last.body["system"] == [BRIEF]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_different_system_prompts_are_a_400_that_names_system(
    openai_client: openai.OpenAI, upstream: Upstream, role: str
) -> None:
    messages: Any = [{"role": role, "content": "Be long."}, *HELLO]
    with pytest.raises(openai.BadRequestError) as caught:
        complete(openai_client, False, model=CLAUDE, messages=messages, extra_body={"system": "Be brief."})
    assert (caught.value.param, caught.value.type) == ("system", "invalid_request_error")
    assert "system contradicts the system prompt" in str(caught.value)
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("model", "given", "sent"),
    [
        (CLAUDE, {"top_k": 5}, {"top_k": 5}),
        (CLAUDE, {"stop_sequences": ["END"]}, {"stop_sequences": ["END"]}),
        (CLAUDE, {"cache_control": {"type": "ephemeral"}}, {"cache_control": {"type": "ephemeral"}}),
        (CLAUDE, {"metadata": {"user_id": "u1"}}, {"metadata": {"user_id": "u1"}}),
        (
            CLAUDE,
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        ),
        (
            ADAPTIVE,
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        ),
    ],
    ids=str,
)
def test_fields_of_anthropic_s_own_reach_claude(
    openai_client: openai.OpenAI, upstream: Upstream, model: str, given: dict[str, Any], sent: dict[str, Any]
) -> None:
    upstream.script(Step(text="Hello"))
    raw = openai_client.chat.completions.with_raw_response.create(model=model, messages=HELLO, extra_body=given)
    assert "x-dropped-parameters" not in raw.headers
    assert {name: upstream.last.body.get(name) for name in sent} == sent


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"top_k": "five"}, "top_k"),
        ({"stop_sequences": ["END"], "stop": "STOP"}, "stop_sequences"),
        ({"thinking": {"type": "disabled"}, "reasoning_effort": "high"}, "thinking"),
        ({"system": [{"type": "image", "source": {}}]}, "system[0]"),
        ({"container": "c"}, "container"),
        ({"n": 2}, "n"),
        ({"field_of_tomorrow": 1}, "field_of_tomorrow"),
    ],
    ids=str,
)
def test_what_claude_cannot_be_asked_is_a_400_that_names_the_field(
    openai_client: openai.OpenAI, upstream: Upstream, given: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        complete(openai_client, False, model=CLAUDE, messages=HELLO, extra_body=given)
    assert caught.value.param == param
    assert param in str(caught.value)
    assert upstream.requests == []


def test_a_completions_client_has_a_system_prompt_as_well(openai_client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.script(Step(text="Hello"))
    extra = {"system": "Be brief.", "top_k": 5}
    answer = openai_client.completions.create(model=CLAUDE, prompt="Hi", extra_body=extra)
    assert answer.choices[0].text == "Hello"
    assert (upstream.last.body["system"], upstream.last.body["top_k"]) == ([BRIEF], 5)
