"""OpenAI Responses, the upstream's side: a conversation as a request.

It carries what chat completions cannot: reasoning in both directions, and images
and files in what a tool says. It has no stop sequences.
"""

from __future__ import annotations

from typing import Any, Final

from llm_service.core.call import Call
from llm_service.core.content import (
    JsonFormat,
    Message,
    Part,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_service.core.conversation import Conversation
from llm_service.core.target import Target
from llm_service.formats import json_schema as schemas
from llm_service.formats import media, reasoning, validation
from llm_service.formats.encoding import RequestWriter
from llm_service.formats.openai_chat.encode_request import end_user
from llm_service.formats.openai_responses.encode_parts import write_part
from llm_service.formats.openai_responses.schema import NAME

LEAST_TOKENS: Final = 16
_FORMAT_NAME: Final = "answer"  # a format must have a name there


def needed(conversation: Conversation, target: Target) -> bool:
    """Whether chat completions could not serve this: thinking, tools of a reasoning model, pictures from tools."""
    if not target.provider.responses:
        return False
    reasons = target.thinking == "effort"
    if reasons and (conversation.tools or conversation.reasoning is not None):
        return True
    if conversation.stop and target.sampling:
        return False  # which chat has; and a picture can be shown beside the result
    return any(_needs(part, reasons) for message in conversation.messages for part in message.parts)


def _needs(part: Part, reasons: bool) -> bool:
    if type(part) is ToolResult:
        return any(type(said) is not Text for said in part.parts)
    return reasons and isinstance(part, Thinking | RedactedThinking) and part.vendor == NAME


def write_request(call: Call, conversation: Conversation, target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The conversation as a request to ``target``, and the names of the client's fields left out.

    Nothing of it is kept there, and the model's reasoning comes back encrypted, so that
    the client can bring it to the next turn. Stop sequences, and of a model that does not
    take them temperature and top_p, are left out.

    Raises UnsupportedParameter naming what OpenAI cannot take.
    """
    _refuse_prefill(conversation)
    writer = _Writer(call, conversation, target)
    body: dict[str, Any] = {"model": target.model, "input": writer.input(conversation), "store": False}
    writer.limits(conversation, body)
    if conversation.user is not None:
        body["safety_identifier"] = end_user(conversation.user)
    if conversation.tier is not None and conversation.tier != "auto":
        body["service_tier"] = "default" if conversation.tier == "standard" else conversation.tier
    if conversation.cache is not None:
        writer.drop("cache")
    writer.tools(conversation, body)
    if conversation.format is not None:
        body["text"] = {"format": _format(conversation.format)}
    writer.reasoning(conversation, body)
    if call.stream:
        body["stream"] = True
        body["stream_options"] = {"include_obfuscation": False}  # padding, of no use behind TLS of our own
    return body, tuple(writer.dropped)


def _refuse_prefill(conversation: Conversation) -> None:
    """OpenAI would begin a new turn after a last message of the assistant's, not continue it."""
    if conversation.messages and conversation.messages[-1].role == "assistant":
        path = f"{conversation.messages[-1].path}.role"
        validation.unsupported(path, "the last message must be the user's, an answer cannot be continued")


class _Writer(RequestWriter):
    """One request."""

    def limits(self, conversation: Conversation, body: dict[str, Any]) -> None:
        if conversation.max_tokens is not None:
            body["max_output_tokens"] = max(conversation.max_tokens, LEAST_TOKENS)
            if conversation.max_tokens < LEAST_TOKENS:
                self.drop("max_tokens")
        for name in ("temperature", "top_p"):
            value = getattr(conversation, name)
            if value is not None and self.target.sampling:
                body[name] = value
            elif value is not None:
                self.drop(name)
        if conversation.stop:
            self.drop("stop")
        if conversation.top_k is not None:
            self.drop("top_k")

    def tools(self, conversation: Conversation, body: dict[str, Any]) -> None:
        if not conversation.tools:
            return
        body["tools"] = [self._tool(tool) for tool in conversation.tools]
        if conversation.tool_choice is not None:
            body["tool_choice"] = _choice(conversation.tool_choice)
        if conversation.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = conversation.parallel_tool_calls

    def _tool(self, tool: Tool) -> dict[str, Any]:
        """``strict`` is always told: without it the API makes the schema a strict one."""
        if tool.cache is not None:
            self.drop("cache")
        schema = {"type": "object", "properties": {}} if tool.schema is None else tool.schema
        # Anthropic's strict is less strict: what it allows beyond OpenAI's is called without.
        strict = tool.strict is True and schemas.is_strict(schema)
        written: dict[str, Any] = {"type": "function", "name": tool.name, "parameters": schema, "strict": strict}
        return written if tool.description is None else {**written, "description": tool.description}

    def reasoning(self, conversation: Conversation, body: dict[str, Any]) -> None:
        asked = conversation.reasoning
        if self.target.thinking != "effort":
            if asked is not None and asked.effort != "none":
                self.drop("reasoning")
            return
        body["include"] = ["reasoning.encrypted_content"]
        if asked is None:
            return
        told: dict[str, Any] = {}
        effort = reasoning.effort_of(asked.budget) if asked.effort is None and asked.budget else asked.effort
        if effort is not None:
            told["effort"] = reasoning.nearest(effort, self.target.efforts)
        if asked.summary:
            told["summary"] = "auto"
        if told:
            body["reasoning"] = told

    def input(self, conversation: Conversation) -> list[dict[str, Any]]:
        system = "system" if self.target.sampling else "developer"
        items: list[dict[str, Any]] = []
        if conversation.system:
            items.append(self._message(system, conversation.system))
        for message in conversation.messages:
            if message.role == "assistant":
                items += self._assistant(message)
            else:
                items += self._user(message, system if message.role == "system" else "user")
        return items

    def _user(self, message: Message, role: str) -> list[dict[str, Any]]:
        items = [self._result(part) for part in message.parts if type(part) is ToolResult]
        rest = tuple(part for part in message.parts if type(part) is not ToolResult)
        return [*items, self._message(role, rest)] if rest else items

    def _message(self, role: str, parts: tuple[Part, ...]) -> dict[str, Any]:
        """A lone text as a string; else a list of parts."""
        written = [self._part(part) for part in parts]
        lone = len(written) == 1 and written[0].keys() == {"type", "text"}
        return {"role": role, "content": written[0]["text"] if lone else written}

    def _part(self, part: Part) -> dict[str, Any]:
        cache = getattr(part, "cache", None)
        written = write_part(part)
        if cache is not None and self.target.cache_breakpoints:
            written["prompt_cache_breakpoint"] = media.write_cache(cache, media.EXPLICIT, media.OPENAI_TTL)
        elif cache is not None:
            self.drop("cache")
        return written

    def _result(self, result: ToolResult) -> dict[str, Any]:
        """Failure is told in words: there is no field for it."""
        if result.cache is not None:
            self.drop("cache")
        parts = (Text("Error:"), *result.parts) if result.is_error else result.parts
        written = [self._part(part) for part in parts]
        output: Any = written
        if all(part["type"] == "input_text" for part in written) and (result.is_error or len(written) < 2):
            output = " ".join(part["text"] for part in written)
        return {"type": "function_call_output", "call_id": result.id, "output": output}

    def _assistant(self, message: Message) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        for part in message.parts:
            match part:
                case Text(text):
                    _say(items, {"type": "output_text", "text": text})
                case Refusal(text):
                    _say(items, {"type": "refusal", "refusal": text})
                case ToolCall(id, name, arguments):
                    told = {"call_id": id, "name": name, "arguments": arguments if arguments.strip() else "{}"}
                    items.append({"type": "function_call", **told})
                case Thinking(text, signature, vendor) if signature and vendor == NAME:
                    items.append(_thought(text, signature))
                case RedactedThinking(data, vendor) if vendor == NAME:
                    items.append(_thought("", data))
                case Thinking() | RedactedThinking():
                    self.drop("thoughts")  # only its own vendor can read it
            if type(part) in (Text, ToolCall) and getattr(part, "cache", None) is not None:
                self.drop("cache")
        if not items:
            validation.unsupported(
                f"{message.path}.content", "there is nothing in it another vendor's model could read"
            )
        return items


def _choice(choice: ToolChoice) -> Any:
    if choice.allowed is not None:
        allowed = [{"type": "function", "name": name} for name in choice.allowed]
        return {"type": "allowed_tools", "mode": choice.mode, "tools": allowed}
    return {"type": "function", "name": choice.name} if choice.mode == "tool" else choice.mode


def _format(given: JsonFormat) -> dict[str, Any]:
    if given.schema is None:
        return {"type": "json_object"}
    strict = given.strict is not False and schemas.is_strict(given.schema)
    written = {
        "type": "json_schema",
        "name": given.name or _FORMAT_NAME,
        "schema": given.schema,
        "strict": strict,
    }
    return written if given.description is None else {**written, "description": given.description}


def _say(items: list[dict[str, Any]], part: dict[str, Any]) -> None:
    if not items or "role" not in items[-1]:
        items.append({"role": "assistant", "content": []})
    items[-1]["content"].append(part)


def _thought(text: str, signature: str) -> dict[str, Any]:
    """A reasoning item as OpenAI made it: its id and its encrypted content were kept as the signature."""
    id, _, encrypted = signature.partition(":")
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"type": "reasoning", "id": id, "summary": summary, "encrypted_content": encrypted}
