"""Anthropic Messages, the client's side: which requests are well-formed."""

from __future__ import annotations

from typing import Any

import pytest

from llm_service.core import errors
from llm_service.formats import anthropic_messages as messages
from tests.formats.anthropic_messages.wire import body
from tests.formats.examples import TURN


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": 1.1}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"system": 3}, "system"),
        ({"system": [{"text": "x"}]}, "system[0].type"),
        ({"system": ["x"]}, "system[0]"),
        ({"metadata": "x"}, "metadata"),
        ({"thinking": True}, "thinking"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "system", "content": "x"}, *TURN]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [*TURN, {"role": "assistant"}]}, "messages[1].content"),
    ],
)
def test_a_malformed_field_is_rejected_with_its_path(extra: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        messages.check(body(**extra))
    assert caught.value.param == param


def test_max_tokens_is_required() -> None:
    with pytest.raises(errors.InvalidRequest, match=r"^max_tokens is required\.$"):
        messages.check({"model": "m", "messages": TURN})


def test_requests_that_anthropic_accepts_pass() -> None:
    request = body(
        max_tokens=0,
        messages=[
            *TURN,
            {"role": "system", "content": "by the way"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "x"}]},
            {"role": "assistant", "content": "A prefill"},
        ],
        system=[{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
        tools=[{"name": "t", "input_schema": {}}],
        tool_choice={"type": "any"},
        thinking={"type": "adaptive"},
        mcp_servers=[{}],
    )
    assert messages.check(request) is request


def test_the_prompt_of_a_body_is_system_and_messages() -> None:
    assert messages.prompt(body(system="s")) == ["s", TURN]
