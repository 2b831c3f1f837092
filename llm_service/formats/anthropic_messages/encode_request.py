"""Anthropic Messages, the upstream's side: a conversation as a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from llm_service.core.call import Call
from llm_service.core.content import (
    Document,
    Image,
    Message,
    Part,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from llm_service.core.conversation import Conversation, Extra
from llm_service.core.errors import InvalidRequest, UnsupportedParameter
from llm_service.core.target import Target
from llm_service.formats import json_mode, json_schema, media, tool_calls, tool_schemas, validation
from llm_service.formats.anthropic_messages import cache_marks, encode_thinking, native_fields
from llm_service.formats.anthropic_messages.schema import THINKING
from llm_service.formats.encoding import RequestWriter
from llm_service.formats.rules import (
    DROP,
    EVERY_ROUTE_HAS,
    HINTS,
    REJECT,
    TRANSLATE,
    FieldRule,
    drop_unless,
    reject_unless,
    translate_to,
)
from llm_service.formats.target_rules import TargetRules

# Anthropic requires max_tokens. This is the limit for a model whose own limit is not in the catalogue.
DEFAULT_MAX_TOKENS: Final = 4096

# What Anthropic's errors say that the names of a tool's arguments must match.
_ARGUMENT_NAMES: Final = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_NO_ROOM: Final = "the answers of this route cannot carry what it asks for"
_NEEDS_SERVER_TOOLS: Final = (
    "it is for tools that Anthropic runs, and their results can only be sent to clients of Anthropic's own format "
    "(/v1/messages)"
)


def _write_choice(name: str, *allowed: str) -> FieldRule:
    """The rule for a field of Anthropic's own API whose value is one of the ``allowed`` words."""

    def write(body: dict[str, Any], extra: Extra) -> None:
        if extra.value not in allowed:
            validation.invalid(extra.path, f"must be {' or '.join(allowed)}")
        body[name] = extra.value

    return translate_to(name, write)


def _write_region(body: dict[str, Any], extra: Extra) -> None:
    if not isinstance(extra.value, str) or not extra.value:
        validation.invalid(extra.path, "must be a non-empty string")
    body["inference_geo"] = extra.value


# What happens to the fields that not all formats know, whichever client sends them. A field without a row is rejected.
EXTRA_RULES: Mapping[str, FieldRule] = {
    # Fields of Anthropic's own API. ``native_fields`` makes most of them a part of the conversation before.
    **dict.fromkeys(native_fields.READERS, TRANSLATE),
    "inference_geo": translate_to("inference_geo", _write_region),
    "speed": _write_choice("speed", "standard", "fast"),
    "container": reject_unless(why=_NEEDS_SERVER_TOOLS),
    "thread": reject_unless(why=native_fields.NEEDS_BETA),
    # They need a beta header, which only travels with requests in Anthropic's own format. The answer is of the same
    # kind without them.
    "compaction": DROP,
    **dict.fromkeys(("context_management", "fallbacks", "mcp_servers"), drop_unless([])),
    # Hints: the answer has the same meaning without them.
    "max_tool_calls": drop_unless(),
    "metadata": drop_unless({}),
    "prediction": drop_unless(),
    "prompt_cache_key": drop_unless(),
    "prompt_cache_options": drop_unless({}),
    "prompt_cache_retention": drop_unless(),
    "seed": drop_unless(),
    "store": drop_unless(False),
    "truncation": drop_unless("disabled"),
    "verbosity": drop_unless("medium"),
    **HINTS,
    # The answer would be another one without these.
    "audio": REJECT,
    "best_of": reject_unless(0, 1),
    "echo": reject_unless(False),
    "frequency_penalty": reject_unless(0),
    "logit_bias": reject_unless({}),
    "logprobs": reject_unless(False),
    "modalities": reject_unless(["text"]),
    "moderation": REJECT,
    "n": reject_unless(1),
    "presence_penalty": reject_unless(0),
    "suffix": reject_unless(""),
    "top_logprobs": reject_unless(0),
    "web_search_options": REJECT,
    # Anthropic's API has these, but not every route has them.
    **EVERY_ROUTE_HAS,
    "tools": reject_unless([], why=_NO_ROOM),
    "tool_choice": reject_unless("none", "auto", why=_NO_ROOM),
}


def write_request(call: Call, conversation: Conversation, target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The conversation as a request to ``target``, and the client's names of the fields that are left out.

    * The system prompt becomes the top-level ``system``, block by block. A later system message stays where it is. It
      keeps its role if the model accepts system messages between turns. If not, it becomes a user message that starts
      with ``System: ``, and its role is named among the fields left out. Moving it into the system prompt would change
      the order of the conversation silently.
    * A ``temperature`` above 1 (OpenAI's scale ends at 2) becomes 1, as in Anthropic's own compatibility layer. If it
      is given, ``top_p`` is left out: models since Claude 4 reject the two together. Both are left out for models
      without sampling, and for a model that is asked to think.
    * Anthropic requires ``max_tokens``: it is the model's own limit if the client gives none.
    * Anthropic has no JSON mode without a schema. The model is asked for it in words (``json_mode``).

    Raises InvalidRequest and UnsupportedParameter naming what Anthropic does not accept.
    """
    merged = native_fields.merge(conversation)
    writer = _Writer(call, merged, target)
    writer.dropped |= dict.fromkeys(name for name in merged.dropped if name not in conversation.dropped)
    conversation = writer.conversation
    body: dict[str, Any] = {
        "model": target.model,
        "max_tokens": conversation.max_tokens or target.max_output or DEFAULT_MAX_TOKENS,
        "messages": writer.messages(conversation),
    }
    if system := writer.system(conversation):
        body["system"] = system
    if conversation.stop:
        if any(not stop.strip() for stop in conversation.stop):
            validation.unsupported(writer.client_name("stop"), "Anthropic rejects a stop sequence of white space only")
        body["stop_sequences"] = list(conversation.stop)
    writer.tools(conversation, body)
    if conversation.format is not None and conversation.format.schema is not None:
        schema = json_schema.for_anthropic(conversation.format.schema, conversation.format.path)
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    thinks = encode_thinking.write(call, conversation, target, body, writer.dropped)
    writer.sampling(conversation, body, thinks)
    if conversation.cache is not None:
        body["cache_control"] = media.write_cache(conversation.cache, media.EPHEMERAL, media.ANTHROPIC_TTL)
    if conversation.tier in ("standard", "standard_only"):
        body["service_tier"] = "standard_only"
    elif conversation.tier is not None and conversation.tier != "auto":
        writer.drop("tier")
    if conversation.user is not None:
        body["metadata"] = {"user_id": conversation.user}
    if call.stream:
        body["stream"] = True
    writer.write_extras(EXTRA_RULES, body)
    if cache_marks.keep_last(body):
        writer.drop("cache")
    return body, tuple(writer.dropped)


class _Writer(RequestWriter):
    """The parts of one request."""

    RULES = TargetRules(tool_ids=r"[a-zA-Z0-9_-]+", tool=partial(tool_schemas.fit, names=_ARGUMENT_NAMES), blanks=False)

    def system(self, conversation: Conversation) -> list[dict[str, Any]]:
        blocks = [_cached({"type": "text", "text": part.text}, part.cache) for part in conversation.system]
        if json_mode.asks_for_object(conversation):
            blocks.append({"type": "text", "text": json_mode.INSTRUCTION})
        return blocks

    def messages(self, conversation: Conversation) -> list[dict[str, Any]]:
        turns = conversation.messages
        if not turns:
            validation.unsupported("messages", "Anthropic needs at least one user message")
        if turns[0].role == "assistant":
            validation.unsupported(f"{turns[0].path}.role", "Anthropic needs a user message first")
        if turns[-1].role == "assistant":
            turns = (*turns[:-1], self._prefill(turns[-1]))
        written: list[dict[str, Any]] = []
        for number, message in enumerate(turns):
            role = message.role
            if role == "system" and not (self.target.system_turns and written and written[-1]["role"] == "user"):
                role = "user"
                self.dropped[f"{message.path}.role"] = None
            blocks = [block for index, part in enumerate(message.parts) if (block := self._block(part, message, index))]
            if role == "assistant" and number + 1 < len(turns) and turns[number + 1].role != "assistant":
                self._end_turn(blocks)  # Anthropic reads turns of the assistant in a row as one
            if role != message.role:
                blocks[0]["text"] = f"System: {blocks[0]['text']}"
            plain = len(message.parts) == 1 and blocks[0].keys() == {"type", "text"}
            written.append({"role": role, "content": blocks[0]["text"] if plain else blocks})
        return written

    def _prefill(self, message: Message) -> Message:
        """A last turn of the assistant, which the model continues. Anthropic rejects white space at its end."""
        last = message.parts[-1]
        if not self.target.prefill or self.conversation.format is not None or type(last) is not Text:
            why = "the last message must be a user message, because the model rejects a prefilled answer"
            validation.unsupported(f"{message.path}.role", why)
        return replace(message, parts=(*message.parts[:-1], Text(last.text.rstrip(), last.cache)))

    def _end_turn(self, blocks: list[dict[str, Any]]) -> None:
        """Anthropic rejects reasoning at the end of a turn."""
        while blocks[-1]["type"] in THINKING:
            blocks.pop()
            self.drop("thoughts")

    def _block(self, part: Part, message: Message, index: int) -> dict[str, Any] | None:
        """A part as a content block; None for the reasoning of another vendor's model, which is left out."""
        match part:
            case Text(text, cache):
                return _cached({"type": "text", "text": text}, cache)
            case Refusal(text):
                return {"type": "text", "text": text}
            case ToolCall(id, name, arguments, cache):
                block = {"type": "tool_use", "id": id, "name": name, "input": tool_calls.as_object(arguments)}
                return _cached(block, cache)
            case ToolResult():
                return self._result(part, message, index)
            case Image(detail=detail):
                if detail not in (None, "auto"):
                    self.drop("detail")
                return _image(part)
            case Document(file_id=file_id):
                if file_id is not None:
                    validation.unsupported(f"{message.path_of(index)}.file.file_id", "only OpenAI has the file")
                return _document(part)
            case Thinking(text, signature, "messages") if signature:
                return {"type": "thinking", "thinking": text, "signature": signature}
            case RedactedThinking(data, "messages"):
                return {"type": "redacted_thinking", "data": data}
        self.drop("thoughts")
        return None

    def _result(self, result: ToolResult, message: Message, index: int) -> dict[str, Any]:
        written: dict[str, Any] = {"type": "tool_result", "tool_use_id": result.id}
        said = [part for part in result.parts if type(part) is not Text or part.text.strip()]
        if not said and result.is_error:
            said = [Text("Error")]  # Anthropic rejects an error that says nothing
        blocks = [block for part in said if (block := self._block(part, message, index))]
        if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
            written["content"] = blocks[0]["text"]
        elif blocks:
            written["content"] = blocks
        if result.is_error:
            written["is_error"] = True
        return _cached(written, result.cache)

    def tools(self, conversation: Conversation, body: dict[str, Any]) -> None:
        choice = conversation.tool_choice
        offered = conversation.tools
        if choice is not None and choice.allowed is not None:
            offered = tuple(tool for tool in offered if tool.name in choice.allowed)
        if not offered:
            self._tools_of_the_history(conversation, body)
            return
        body["tools"] = [self._tool(tool) for tool in offered]
        written: dict[str, Any] | None = None
        if choice is not None:
            written = {"type": {"required": "any"}.get(choice.mode, choice.mode)}
            if choice.mode == "tool":
                written["name"] = choice.name
        if conversation.parallel_tool_calls is not None and (choice is None or choice.mode != "none"):
            single = not conversation.parallel_tool_calls
            if single or written is not None:
                written = {**(written or {"type": "auto"}), "disable_parallel_tool_use": single}
        if written is not None:
            body["tool_choice"] = written

    def _tool(self, tool: Tool) -> dict[str, Any]:
        """A schema that Anthropic does not take as strict is sent without strict, as it is."""
        schema, strict = tool.schema, tool.strict
        if schema is None:
            schema = {"type": "object", "properties": {}}
        if strict:
            try:
                schema = json_schema.for_anthropic(schema, tool.path)
            except (InvalidRequest, UnsupportedParameter):
                strict = False
                self.drop("strict")
        written: dict[str, Any] = {"name": tool.name, "input_schema": schema}
        if tool.description is not None:
            written["description"] = tool.description
        if strict is not None:
            written["strict"] = strict
        return _cached(written, tool.cache)

    def _tools_of_the_history(self, conversation: Conversation, body: dict[str, Any]) -> None:
        """Anthropic rejects calls in the history if no tools are offered. The model may not call these."""
        parts = (part for message in conversation.messages for part in message.parts)
        names = dict.fromkeys(part.name for part in parts if type(part) is ToolCall)
        if names:
            body["tools"] = [self._tool(Tool(name)) for name in names]
            body["tool_choice"] = {"type": "none"}

    def sampling(self, conversation: Conversation, body: dict[str, Any], thinks: bool) -> None:
        both = conversation.temperature is not None and conversation.top_p is not None
        for name in ("temperature", "top_p", "top_k"):
            value = getattr(conversation, name)
            if value is None:
                continue
            if not self.target.sampling or thinks or (name == "top_p" and both):
                self.drop(name)
            else:
                body[name] = min(value, 1) if name == "temperature" else value


def _cached(block: dict[str, Any], cache: int | None) -> dict[str, Any]:
    if cache is not None:
        block["cache_control"] = media.write_cache(cache, media.EPHEMERAL, media.ANTHROPIC_TTL)
    return block


def _image(image: Image) -> dict[str, Any]:
    source: dict[str, Any] = {"type": "url", "url": image.url}
    if image.url is None:
        source = {"type": "base64", "media_type": image.media_type, "data": image.data}
    return _cached({"type": "image", "source": source}, image.cache)


def _document(document: Document) -> dict[str, Any]:
    source: dict[str, Any] = {"type": "url", "url": document.url}
    if document.text is not None:
        source = {"type": "text", "media_type": "text/plain", "data": document.text}
    elif document.data is not None:
        source = {"type": "base64", "media_type": document.media_type, "data": document.data}
    written = {"type": "document", "source": source}
    for name, value in (("title", document.title), ("context", document.context)):
        if value is not None:
            written[name] = value
    return _cached(written, document.cache)
