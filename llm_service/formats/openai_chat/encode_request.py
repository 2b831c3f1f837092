"""OpenAI Chat Completions, the upstream's side: a conversation as a request."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from llm_service.core.call import Call
from llm_service.core.content import Tool, ToolChoice
from llm_service.core.conversation import Conversation
from llm_service.core.target import Target
from llm_service.formats import json_schema, reasoning, storage, validation
from llm_service.formats.openai_chat.encode_messages import MessageWriter
from llm_service.formats.openai_chat.extra_rules import CARRIED_BY, EXTRA_RULES, OLDER_SERVERS, end_user
from llm_service.formats.target_rules import TargetRules
from llm_service.formats.tool_schemas import fit as fit_tool

# What OpenAI checks at both of its routes, and what compatible servers check at most.
OPENAI_RULES: Final = TargetRules(tool_ids=r".{1,64}", tool=partial(fit_tool, complete=True))
_MOST_STOPS: Final = 4
_FORMAT_NAME: Final = "answer"  # OpenAI requires a name, and formats of Anthropic have none
_TIERS: Final[Mapping[str, str]] = {
    "auto": "auto",
    "standard": "default",
    **{name: name for name in ("flex", "scale", "priority", "fast")},
}


def write_request(call: Call, conversation: Conversation, target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The conversation as a request to ``target``, and the names of the client's fields that are left out.

    The system prompt becomes one leading ``system`` message (``developer`` for
    reasoning models) with its blocks as text parts. ``temperature``, ``top_p`` and
    ``stop`` are left out for models that reject them. The reasoning of earlier turns is
    left out, unless the provider's row wants it. Images and documents that a tool returned
    follow in a user message, because a tool's message cannot carry them there.

    Raises UnsupportedParameter naming a field that OpenAI cannot take.
    """
    writer = _Writer(call, conversation, target)
    conversation = writer.conversation
    body: dict[str, Any] = {"model": target.model, "messages": writer.messages(conversation)}
    if conversation.max_tokens is not None:
        body[target.provider.max_tokens_field] = conversation.max_tokens
    writer.sampling(conversation, body)
    if conversation.top_k is not None:
        writer.drop("top_k")
    if conversation.cache is not None:
        writer.drop("cache")
    writer.tools(conversation, body)
    writer.format(conversation, body)
    writer.reasoning(conversation, body)
    if conversation.tier is not None and conversation.tier != "auto":
        if writer.current and conversation.tier in _TIERS:
            body["service_tier"] = _TIERS[conversation.tier]
        else:
            writer.drop("tier")
    if conversation.user is not None:
        body["safety_identifier" if writer.current else "user"] = end_user(conversation.user)
    writer.extras(body)
    # Without the field a setting of OpenAI's account decides (docs/privacy.md). Few other servers know it.
    storage.write(body, target.provider, by_default=not target.provider.own_address)
    if call.stream:
        body["stream"] = True
    if call.stream and target.provider.stream_usage:
        body["stream_options"] = {"include_usage": True}
        if writer.current:  # padding against traffic analysis, which nobody needs here
            body["stream_options"]["include_obfuscation"] = False
    return body, tuple(writer.dropped)


class _Writer(MessageWriter):
    """The parts of one request."""

    RULES = OPENAI_RULES

    def __init__(self, call: Call, conversation: Conversation, target: Target) -> None:
        super().__init__(call, conversation, target)
        # A server that still wants max_tokens may not know the newer fields either.
        self.current = target.provider.max_tokens_field == "max_completion_tokens"

    def extras(self, body: dict[str, Any]) -> None:
        """Write the fields that not every format knows.

        Raises UnsupportedParameter naming the first field that is rejected.
        """
        given = self.conversation.extras
        for name, formats in CARRIED_BY.items():
            rule = EXTRA_RULES[name]
            if name in given and self.call.format not in formats and given[name].value not in rule.neutral:
                validation.unsupported(given[name].path, rule.why)
        for name in ("max_completion_tokens", "max_tokens"):
            if name in given:
                validation.unsupported(given[name].path, f"this route calls it {self.client_name('max_tokens')}")
        if self.current and "store" in given:
            storage.check(self.call, self.target.provider)
        self.write_extras(EXTRA_RULES if self.current else {**EXTRA_RULES, **OLDER_SERVERS}, body)

    def sampling(self, conversation: Conversation, body: dict[str, Any]) -> None:
        if len(conversation.stop) > _MOST_STOPS:
            validation.unsupported(self.client_name("stop"), f"it takes at most {_MOST_STOPS} stop sequences")
        values = {"temperature": conversation.temperature, "top_p": conversation.top_p, "stop": list(conversation.stop)}
        for name, value in values.items():
            if value is None or value == []:
                continue
            if self.target.sampling:
                body[name] = value
            else:
                self.drop(name)

    def tools(self, conversation: Conversation, body: dict[str, Any]) -> None:
        if not conversation.tools:
            return
        body["tools"] = [self._tool(tool) for tool in conversation.tools]
        choice = _choice(conversation.tool_choice)
        if choice is not None:
            body["tool_choice"] = choice
        if conversation.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = conversation.parallel_tool_calls

    def _tool(self, tool: Tool) -> dict[str, Any]:
        if tool.cache is not None:
            self.drop("cache")
        function: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        if tool.schema is not None:
            function["parameters"] = tool.schema
        if tool.strict is not None:
            # Anthropic's strict mode allows more schemas than OpenAI's. Those are sent without strict.
            function["strict"] = tool.strict and json_schema.is_strict(tool.schema)
        return {"type": "function", "function": function}

    def format(self, conversation: Conversation, body: dict[str, Any]) -> None:
        format = conversation.format
        if format is None:
            return
        if format.schema is None:
            body["response_format"] = {"type": "json_object"}
            return
        wanted: dict[str, Any] = {"name": format.name or _FORMAT_NAME, "schema": format.schema}
        if format.description is not None:
            wanted["description"] = format.description
        strict = format.strict is not False and json_schema.is_strict(format.schema)
        wanted["strict"] = strict
        body["response_format"] = {"type": "json_schema", "json_schema": wanted}

    def reasoning(self, conversation: Conversation, body: dict[str, Any]) -> None:
        asked = conversation.reasoning
        if asked is None:
            return
        if asked.summary:
            self.drop(
                "thinking.display" if self.call.format == "messages" else "reasoning"
            )  # the chat API shows no reasoning
        effort = asked.effort
        if asked.budget is not None and effort is None:
            effort = reasoning.effort_of(asked.budget)
        if effort is None:
            return
        if self.target.thinking == "none":
            if effort != "none":
                self.drop("reasoning")
            return
        body["reasoning_effort"] = reasoning.nearest(effort, self.target.efforts)


def _choice(choice: ToolChoice | None) -> Any:
    if choice is None:
        return None
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    if choice.allowed is None:
        return choice.mode
    allowed = [{"type": "function", "function": {"name": name}} for name in choice.allowed]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": allowed}}
