"""Anthropic Messages, the upstream's side: how much the model should think.

What is written depends on the model's ``thinking`` in the catalogue and on what the client asks for:

| the model | an effort | a token budget | the effort ``none`` |
|---|---|---|---|
| ``adaptive`` | ``adaptive`` with ``output_config.effort`` | the same, with the effort of the budget | ``disabled`` |
| ``always`` | the same | the same | the lowest effort |
| ``budget`` | ``enabled`` with the budget of the effort | ``enabled`` with the budget | ``disabled`` |
| ``none`` | left out and named | left out and named | nothing |
"""

from __future__ import annotations

from typing import Any

from llm_service.core.call import Call
from llm_service.core.content import RedactedThinking, Thinking, ToolCall
from llm_service.core.conversation import Conversation
from llm_service.core.target import Target
from llm_service.formats import reasoning


def write(
    call: Call, conversation: Conversation, target: Target, body: dict[str, Any], dropped: dict[str, None]
) -> bool:
    """Write into ``body`` how much the model should think. Returns whether ``body`` asks it to think."""
    asked = conversation.reasoning
    if asked is None:
        return False
    if asked.effort == "none":
        if target.thinking == "always":
            _effort(body, reasoning.nearest("low", target.efforts))
            return True
        if target.thinking != "none":
            body["thinking"] = {"type": "disabled"}
        return False
    thinking: dict[str, Any] | None = None
    if target.thinking in ("adaptive", "always"):
        thinking = {"type": "adaptive"}
        effort = asked.effort if asked.budget is None else asked.effort or reasoning.effort_of(asked.budget)
        if effort is not None:
            _effort(body, reasoning.nearest(effort, target.efforts))
    elif target.thinking == "budget" and _may_think(conversation):
        budget = asked.budget
        if budget is None or budget >= body["max_tokens"]:  # Anthropic rejects a budget that leaves no answer
            budget = reasoning.budget_for(asked.effort or ("max" if budget else "medium"), body["max_tokens"])
        if budget is not None:
            thinking = {"type": "enabled", "budget_tokens": budget}
    if thinking is None:
        dropped[conversation.field_names.get("reasoning", "reasoning")] = None
        return False
    if asked.summary is not None:
        thinking["display"] = "summarized" if asked.summary else "omitted"
    body["thinking"] = thinking
    return True


def _effort(body: dict[str, Any], effort: str) -> None:
    body["output_config"] = {**body.get("output_config", {}), "effort": effort}


def _may_think(conversation: Conversation) -> bool:
    """Whether a model with a token budget may think in this conversation.

    Anthropic rejects thinking after a turn with tool calls that does not start with signed thinking.
    """
    for message in reversed(conversation.messages):
        if message.role == "assistant":
            calls = any(type(part) is ToolCall for part in message.parts)
            first = message.parts[0]
            signed = type(first) is RedactedThinking or (type(first) is Thinking and bool(first.signature))
            return not calls or signed
    return True
