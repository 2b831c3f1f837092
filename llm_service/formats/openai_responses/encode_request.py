"""OpenAI Responses, the upstream's side: a conversation becomes a request.

This API carries what chat completions cannot: reasoning in both directions, and images
and files in tool results. It has no stop sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from llm_service.core.conversation import Conversation, Extra
from llm_service.core.target import Target
from llm_service.formats import custom_tools, json_schema, media, reasoning, storage, validation
from llm_service.formats.bounds import LEAST_OUTPUT
from llm_service.formats.encoding import RequestWriter
from llm_service.formats.openai_chat.encode_messages import reject_prefill
from llm_service.formats.openai_chat.encode_request import OPENAI_RULES
from llm_service.formats.openai_chat.extra_rules import EXTRA_RULES as CHAT_RULES
from llm_service.formats.openai_chat.extra_rules import ONLY_CLAUDE, end_user
from llm_service.formats.openai_chat.schema import NAME as CHAT
from llm_service.formats.openai_responses.encode_parts import write_part
from llm_service.formats.openai_responses.schema import ENCRYPTED_REASONING, INCLUDE_LOGPROBS, NAME
from llm_service.formats.rules import (
    EVERY_ROUTE_HAS,
    HINTS,
    REJECT,
    TRANSLATE,
    FieldRule,
    drop_unless,
    reject_unless,
    translate_to,
)

_FORMAT_NAME: Final = "answer"  # the API requires a name for a format
# The client formats whose answers can hold log probabilities.
_CARRY_LOGPROBS: Final = ("chat", "completions", "responses")


def _write_logprobs(body: dict[str, Any], extra: Extra) -> None:
    """Ask for the log probabilities of the answer's tokens."""
    if not isinstance(extra.value, bool):
        validation.invalid(extra.path, "must be true or false")
    include = body.get("include") or []
    body["include"] = include if INCLUDE_LOGPROBS in include else [*include, INCLUDE_LOGPROBS]


# Such a field comes here only where chat completions are no choice (see ``needed``).
_ONLY_CHAT: Final = (
    "this request must go to /v1/responses, which has no such field: leave out the field, or the tools if the model "
    "takes chat completions without tools"
)
_ONLY_ITS_ROUTE: Final = "it can only be sent to /v1/responses"

# What happens to a field that not every format knows, by the name that all formats share. A field without a row is
# rejected. A hint is dropped and named; a field is rejected if the answer would be another one without it.
EXTRA_RULES: Final[Mapping[str, FieldRule]] = {
    "logprobs": translate_to("include", _write_logprobs, neutral=(False,)),
    "metadata": FieldRule("translate", ({},)),
    "moderation": TRANSLATE,
    "prompt_cache_key": TRANSLATE,
    "prompt_cache_options": FieldRule("translate", ({},)),
    "prompt_cache_retention": TRANSLATE,
    "reasoning_effort": translate_to("reasoning.effort"),
    "parallel_tool_calls": TRANSLATE,
    "safety_identifier": CHAT_RULES["safety_identifier"],
    "store": FieldRule("translate", (False,)),
    "top_logprobs": FieldRule("translate", (0,)),
    "truncation": FieldRule("translate", ("disabled",)),
    "user": CHAT_RULES["user"],
    "verbosity": translate_to("text.verbosity", neutral=("medium",)),
    **{
        name: CHAT_RULES[name] for name in ("compaction", "container", "context_management", "fallbacks", "mcp_servers")
    },
    "inference_geo": CHAT_RULES["inference_geo"],
    "max_tool_calls": drop_unless(),
    "prediction": drop_unless(),
    "seed": drop_unless(),
    "speed": drop_unless("standard"),
    "stream_options": drop_unless(),
    **HINTS,
    "audio": reject_unless(why=_ONLY_CHAT),
    "frequency_penalty": reject_unless(0, why=_ONLY_CHAT),
    "logit_bias": reject_unless({}, why=_ONLY_CHAT),
    "modalities": reject_unless(["text"], why=_ONLY_CHAT),
    "n": reject_unless(1, why=_ONLY_CHAT),
    "presence_penalty": reject_unless(0, why=_ONLY_CHAT),
    "web_search_options": reject_unless(why=_ONLY_CHAT),
    # This API has these, but only the clients of its own route can send them or use what comes of them.
    **dict.fromkeys(
        (
            *("background", "conversation", "include"),
            *("previous_response_id", "prompt", "tool_choice"),
        ),
        reject_unless("none", "auto", False, [], why=_ONLY_ITS_ROUTE),
    ),
    "tools": reject_unless([], why=_ONLY_ITS_ROUTE),
    **dict.fromkeys(("instructions", "reasoning", "text"), reject_unless(why=_ONLY_ITS_ROUTE)),
    **EVERY_ROUTE_HAS,
    **dict.fromkeys(("output_config", "system", "thinking"), reject_unless(why=ONLY_CLAUDE)),
}


def needed(conversation: Conversation, target: Target) -> bool:
    """Whether this API serves the conversation better than chat completions.

    It does for a model, or for tools of a model, that are served only here, for the reasoning
    of earlier turns, for tools of a reasoning model, and for images in tool results. Where
    only one of the two APIs has a field of the client's, that API is asked.
    """
    if not target.provider.responses:
        return False
    effort = conversation.reasoning.effort if conversation.reasoning is not None else None
    if not target.chat_route or (conversation.tools and not target.takes_chat_tools(effort)):
        return True
    here = any(_is_rejected(extra, EXTRA_RULES.get(name, REJECT)) for name, extra in conversation.extras.items())
    chat = any(_is_rejected(extra, CHAT_RULES.get(name, REJECT)) for name, extra in conversation.extras.items())
    if here != chat:
        return chat
    if any(_only_this_has(name, extra) for name, extra in conversation.extras.items()):
        return True
    reasons = target.thinking == "effort"
    if reasons and (conversation.tools or conversation.reasoning is not None):
        return True
    if target.sampling and (conversation.stop or any(map(_only_chat_has, conversation.extras))):
        return False  # chat has these fields, and it can show an image beside the tool's result
    return any(_needs(part, reasons) for message in conversation.messages for part in message.parts)


def _is_rejected(extra: Extra, rule: FieldRule) -> bool:
    return rule.how == "reject" and extra.value not in rule.neutral


def _only_chat_has(name: str) -> bool:
    """Whether a hint is dropped here and translated there."""
    return EXTRA_RULES.get(name, REJECT).how == "drop" and CHAT_RULES.get(name, REJECT).how == "translate"


def _only_this_has(name: str, extra: Extra) -> bool:
    """Whether a hint is translated here and dropped there."""
    rule = EXTRA_RULES.get(name, REJECT)
    return rule.how == "translate" and CHAT_RULES.get(name, REJECT).how == "drop" and extra.value not in rule.neutral


def _needs(part: Part, reasons: bool) -> bool:
    if type(part) is ToolResult:
        return any(type(content) is not Text for content in part.parts)
    return reasons and isinstance(part, Thinking | RedactedThinking) and part.vendor == NAME


def write_request(call: Call, conversation: Conversation, target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The conversation as a request to ``target``, and the names of the client's fields that are left out.

    The vendor keeps nothing unless the client asks for it and may. The model's reasoning
    comes back encrypted, so that the client can send it with the next turn. Stop
    sequences are left out, and so are temperature and top_p for a model that does not
    take them.

    Raises UnsupportedParameter naming what OpenAI cannot take.
    """
    writer = _Writer(call, conversation, target)
    conversation = writer.conversation
    body: dict[str, Any] = {"model": target.model, "input": writer.input(conversation)}
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
    writer.extras(conversation, body)
    storage.write(body, target.provider)  # the vendor keeps every response by default
    if call.stream:
        body["stream"] = True
        body["stream_options"] = {"include_obfuscation": False}  # padding has no use behind this service's own TLS
    return body, tuple(writer.dropped)


class _Writer(RequestWriter):
    """One request."""

    RULES = OPENAI_RULES

    def __init__(self, call: Call, conversation: Conversation, target: Target) -> None:
        super().__init__(call, conversation, target)
        self._custom = {tool.name for tool in self.conversation.tools if tool.custom is not None}
        self._custom_calls: set[str] = set()  # the ids of their calls

    def extras(self, conversation: Conversation, body: dict[str, Any]) -> None:
        """Write the fields that not every format knows.

        Raises UnsupportedParameter for a field that is rejected, and for storage that is not allowed.
        """
        if "store" in conversation.extras:
            storage.check(self.call, self.target.provider)
        for name in ("logprobs", "top_logprobs"):
            extra = conversation.extras.get(name)
            if extra is not None and extra.value and self.call.format not in _CARRY_LOGPROBS:
                validation.unsupported(extra.path, "the answers of this route cannot hold log probabilities")
        self.write_extras(EXTRA_RULES, body)

    def limits(self, conversation: Conversation, body: dict[str, Any]) -> None:
        if conversation.max_tokens is not None:
            body["max_output_tokens"] = max(conversation.max_tokens, LEAST_OUTPUT)
            if conversation.max_tokens < LEAST_OUTPUT:
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
            body["tool_choice"] = self._choice(conversation.tool_choice)
        if conversation.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = conversation.parallel_tool_calls

    def _named(self, name: str) -> dict[str, Any]:
        """A tool of the request by its name."""
        return {"type": "custom" if name in self._custom else "function", "name": name}

    def _choice(self, choice: ToolChoice) -> Any:
        if choice.allowed is not None:
            return {"type": "allowed_tools", "mode": choice.mode, "tools": list(map(self._named, choice.allowed))}
        return self._named(choice.name or "") if choice.mode == "tool" else choice.mode

    def _call(self, call: ToolCall) -> dict[str, Any]:
        if call.name in self._custom:
            self._custom_calls.add(call.id)
            given = custom_tools.unwrap(call.arguments)
            return {"type": "custom_tool_call", "call_id": call.id, "name": call.name, "input": given}
        arguments = call.arguments if call.arguments.strip() else "{}"
        return {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}

    def _tool(self, tool: Tool) -> dict[str, Any]:
        """``strict`` is always written: without it the API treats the schema as strict."""
        if tool.cache is not None:
            self.drop("cache")
        if tool.custom is not None:
            return {"type": "custom", "name": tool.name, **tool.custom}
        schema = {"type": "object", "properties": {}} if tool.schema is None else tool.schema
        # Anthropic's strict mode allows more schemas than OpenAI's. The others are sent without it.
        strict = tool.strict is True and json_schema.is_strict(schema)
        written: dict[str, Any] = {"type": "function", "name": tool.name, "parameters": schema, "strict": strict}
        return written if tool.description is None else {**written, "description": tool.description}

    def reasoning(self, conversation: Conversation, body: dict[str, Any]) -> None:
        asked = conversation.reasoning
        if self.target.thinking != "effort":
            if asked is not None and asked.effort != "none":
                self.drop("reasoning")
            return
        body["include"] = [ENCRYPTED_REASONING]
        if asked is None:
            return
        written: dict[str, Any] = {}
        effort = reasoning.effort_of(asked.budget) if asked.effort is None and asked.budget else asked.effort
        if effort is not None:
            written["effort"] = reasoning.nearest(effort, self.target.efforts)
        if asked.summary:
            written["summary"] = "auto"
        if written:
            body["reasoning"] = written

    def input(self, conversation: Conversation) -> list[dict[str, Any]]:
        if self.call.format != CHAT:  # a client of OpenAI expects a new turn after it
            reject_prefill(conversation)
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
        """A message. Its content is a string if it has only one text, else a list of parts."""
        written = [self._part(part) for part in parts]
        single = len(written) == 1 and written[0].keys() == {"type", "text"}
        return {"role": role, "content": written[0]["text"] if single else written}

    def _part(self, part: Part) -> dict[str, Any]:
        cache = getattr(part, "cache", None)
        written = write_part(part)
        if cache is not None and self.target.cache_breakpoints:
            written["prompt_cache_breakpoint"] = media.write_cache(cache, media.EXPLICIT, media.OPENAI_TTL)
        elif cache is not None:
            self.drop("cache")
        return written

    def _result(self, result: ToolResult) -> dict[str, Any]:
        """The format has no field for a failed tool, so the text says it."""
        if result.cache is not None:
            self.drop("cache")
        parts = (Text("Error:"), *result.parts) if result.is_error else result.parts
        written = [self._part(part) for part in parts]
        output: Any = written
        if all(part["type"] == "input_text" for part in written) and (result.is_error or len(written) < 2):
            output = " ".join(part["text"] for part in written)
        kind = "custom_tool_call_output" if result.id in self._custom_calls else "function_call_output"
        return {"type": kind, "call_id": result.id, "output": output}

    def _assistant(self, message: Message) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        for part in message.parts:
            match part:
                case Text(text):
                    _add_part(items, {"type": "output_text", "text": text})
                case Refusal(text):
                    _add_part(items, {"type": "refusal", "refusal": text})
                case ToolCall():
                    items.append(self._call(part))
                case Thinking() | RedactedThinking():
                    items += self._thought(part)
            if type(part) in (Text, ToolCall) and getattr(part, "cache", None) is not None:
                self.drop("cache")
        while items and items[-1].get("type") == "reasoning":  # OpenAI rejects reasoning that nothing follows
            items.pop()
            self.drop("thoughts")
        return items

    def _thought(self, part: Thinking | RedactedThinking) -> list[dict[str, Any]]:
        """A reasoning item as its vendor made it. Nothing for another vendor's, which this one cannot read.

        The signature holds the item's id and its encrypted content. It comes from the caller. An item with an id alone
        would be a reference to what the vendor keeps, for whomever.
        """
        text, signature = (part.text, part.signature) if isinstance(part, Thinking) else ("", part.data)
        id, _, encrypted = signature.partition(":")
        if part.vendor != NAME or not id.strip() or not encrypted.strip():
            self.drop("thoughts")
            return []
        summary = [{"type": "summary_text", "text": text}] if text else []
        return [{"type": "reasoning", "id": id, "summary": summary, "encrypted_content": encrypted}]


def _format(given: JsonFormat) -> dict[str, Any]:
    if given.schema is None:
        return {"type": "json_object"}
    strict = given.strict is not False and json_schema.is_strict(given.schema)
    written = {
        "type": "json_schema",
        "name": given.name or _FORMAT_NAME,
        "schema": given.schema,
        "strict": strict,
    }
    return written if given.description is None else {**written, "description": given.description}


def _add_part(items: list[dict[str, Any]], part: dict[str, Any]) -> None:
    """Add a part to the last message, or to a new one."""
    if not items or "role" not in items[-1]:
        items.append({"role": "assistant", "content": []})
    items[-1]["content"].append(part)
