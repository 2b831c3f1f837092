"""The name that the limit of the output has in a chat request that is passed on."""

from __future__ import annotations

from typing import Any

import pytest

from llm_service.core.target import Provider, Target, Timeouts
from llm_service.formats import registry
from llm_service.formats.openai_chat.passthrough import forward
from tests.formats.examples import call

OPENAI = Target(Provider("openai", "openai"), "gpt-6-luna", Timeouts())
OLDER = Target(Provider("older", "openai", max_tokens_field="max_tokens", own_address=True), "x", Timeouts())
AZURE = Target(Provider("azure", "openai", own_address=True), "x", Timeouts())
OTHER = Target(Provider("anthropic", "anthropic"), "claude", Timeouts())
BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def limits(body: dict[str, Any], targets: tuple[Target, ...], index: int) -> dict[str, Any]:
    """The limits that the target with this index gets."""
    sent = forward(call("chat", body, targets=targets), targets[index])
    return {name: value for name, value in sent.items() if name.startswith("max_")}


@pytest.mark.parametrize("targets", [(OPENAI, OLDER), (OLDER, OPENAI), (OLDER, AZURE), (OTHER, OLDER, OPENAI)])
def test_the_limit_that_a_budget_writes_has_each_target_s_name(targets: tuple[Target, ...]) -> None:
    body = registry.format_of(call("chat", BODY)).BOUNDS.with_output_limit(BODY, 8192)
    for index, target in enumerate(targets):
        if target is not OTHER:
            assert limits(body, targets, index) == {target.provider.max_tokens_field: 8192}


@pytest.mark.parametrize(
    ("targets", "name"),
    [
        ((OLDER, OPENAI), "max_completion_tokens"),
        ((OLDER, AZURE), "max_completion_tokens"),
        ((AZURE, OPENAI), "max_completion_tokens"),
        ((OTHER, OPENAI), "max_completion_tokens"),
        ((OPENAI, OLDER), "max_tokens"),
        ((OPENAI, AZURE), "max_tokens"),  # other servers know the older name at least
        ((OPENAI,), "max_tokens"),  # a caller's own request of one vendor stays as it is
        ((AZURE,), "max_tokens"),
    ],
)
def test_the_caller_s_older_name_is_replaced_on_fallback(targets: tuple[Target, ...], name: str) -> None:
    assert limits({**BODY, "max_tokens": 9}, targets, -1) == {name: 9}
