"""What the formats' request schemas are made of, and the rules for crossing.

marshmallow checks a body; each field here is strict (a boolean is no number,
``"1"`` is no 1) and its message names the rule, never the value. A messages list
is checked by one field in one loop: nested schemas cost 0.15 ms per message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

from marshmallow import INCLUDE, RAISE, Schema, ValidationError
from marshmallow import fields as base

from llm_service.core.call import Call
from llm_service.core.conversation import Conversation
from llm_service.core.errors import InvalidRequest, UnsupportedParameter
from llm_service.formats.json_body import load_json as load_json

MAX_TOKENS: Final = 1_000_000_000
MAX_MESSAGES: Final = 100_000
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}\Z")


class WireSchema(Schema):
    """A vendor's request: fields that are not listed pass."""

    class Meta:
        unknown = INCLUDE


class OursSchema(Schema):
    """A request in our own format: a field that is not listed is a mistake."""

    class Meta:
        unknown = RAISE


class _Strict(base.Field[Any]):
    """``null`` counts as absent unless the field is required; ``rule`` completes "<field> must be ..."."""

    rule = ""

    def __init__(self, help: str = "", **options: Any) -> None:
        options.setdefault("allow_none", not options.get("required", False))
        given = {"description": help, **options.pop("metadata", {})}
        super().__init__(
            metadata={name: value for name, value in given.items() if value not in ("", None)},
            error_messages={"required": "is required", "null": "must not be null"},
            **options,
        )

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not self.accepts(value):
            raise ValidationError(f"must be {self.rule}")
        return value

    def accepts(self, value: Any) -> bool:
        raise NotImplementedError


class Integer(_Strict, base.Integer):
    def __init__(self, help: str, low: int, high: int, **options: Any) -> None:
        super().__init__(help, metadata={"minimum": low, "maximum": high}, **options)
        self.low, self.high = low, high
        self.rule = f"an integer from {low} to {high}"

    def accepts(self, value: Any) -> bool:
        return type(value) is int and self.low <= value <= self.high


class Number(_Strict, base.Float):
    def __init__(self, help: str, low: float, high: float, **options: Any) -> None:
        super().__init__(help, metadata={"minimum": low, "maximum": high}, **options)
        self.low, self.high = low, high
        self.rule = f"a number from {low:g} to {high:g}"

    def accepts(self, value: Any) -> bool:
        return type(value) in (int, float) and self.low <= value <= self.high  # NaN compares false


class Flag(_Strict, base.Boolean):
    rule = "true or false"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool)


class Word(_Strict, base.String):
    """A string of at most ``longest`` characters, and of one at least if ``filled``."""

    def __init__(self, help: str, longest: int | None = None, *, filled: bool = False, **options: Any) -> None:
        super().__init__(help, metadata={"maxLength": longest, "minLength": 1 if filled else None}, **options)
        self.longest, self.filled = longest, filled
        self.rule = ("a non-empty string" if filled else "a string") + (
            f" of at most {longest} characters" if longest else ""
        )

    def accepts(self, value: Any) -> bool:
        if not isinstance(value, str) or (self.filled and not value.strip()):
            return False
        return self.longest is None or len(value) <= self.longest


class JsonObject(_Strict, base.Dict):
    rule = "an object"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, dict)


class StreamOptions(_Strict, base.Dict):
    """OpenAI's ``stream_options``: an object whose ``include_usage`` is a boolean."""

    rule = "an object, and its include_usage true or false"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, dict) and isinstance(value.get("include_usage"), bool | None)


class JsonList(_Strict, base.Raw):
    rule = "a list"

    def __init__(self, help: str = "", **options: Any) -> None:
        super().__init__(help, metadata={"type": "array", "items": {}}, **options)

    def accepts(self, value: Any) -> bool:
        return isinstance(value, list)


class StopSequences(_Strict, base.Raw):
    """A list of at most ``most`` strings; with ``single`` also one string."""

    def __init__(self, help: str, most: int, *, single: bool = True, **options: Any) -> None:
        listed: dict[str, Any] = {"type": "array", "items": {"type": "string"}, "maxItems": most}
        shape = {"oneOf": [{"type": "string"}, listed]} if single else listed
        super().__init__(help, metadata=shape, **options)
        self.most, self.single = most, single
        self.rule = ("a string or " if single else "") + f"a list of at most {most} non-empty strings"

    def accepts(self, value: Any) -> bool:
        if isinstance(value, str):
            return self.single and value != ""
        return isinstance(value, list) and len(value) <= self.most and all(isinstance(s, str) and s for s in value)


def _not_parts(content: Any) -> str | None:
    """What is wrong with a content list, as ``path rule``; None when it is a list of typed objects."""
    if not isinstance(content, list):
        return " must be a string or a list of content parts"
    for index, part in enumerate(content):
        if not isinstance(part, dict):
            return f"[{index}] must be an object"
        if not isinstance(part.get("type"), str):
            return f"[{index}].type must be a string"
    return None


class SystemPrompt(_Strict, base.Raw):
    """A string, or a list of content parts."""

    def __init__(self, help: str, **options: Any) -> None:
        listed = {"type": "array", "items": {"type": "object"}}
        super().__init__(help, metadata={"oneOf": [{"type": "string"}, listed]}, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, str) and (problem := _not_parts(value)):
            raise ValidationError(problem)
        return value


class Messages(_Strict, base.Raw):
    """A non-empty list of ``{"role", "content"}``.

    ``roles`` are the known ones; those in ``silent`` may do without content.
    ``first`` and ``last``, where given, are the roles the list must begin and end
    with. With ``parts`` content may be a list of typed objects.
    """

    def __init__(
        self,
        help: str,
        roles: Iterable[str],
        *,
        silent: Iterable[str] = (),
        first: str | None = None,
        last: str | None = None,
        parts: bool = True,
        **options: Any,
    ) -> None:
        self.roles, self.silent = tuple(roles), tuple(silent)
        self.first, self.last, self.parts = first, last, parts
        content: dict[str, Any] = {"type": "string"}
        if parts:
            content = {"oneOf": [content, {"type": "array", "items": {"type": "object"}}]}
        message = {
            "type": "object",
            "required": ["role"] if self.silent else ["role", "content"],
            "properties": {"role": {"type": "string", "enum": list(self.roles)}, "content": content},
        }
        shape = {"type": "array", "items": message, "minItems": 1, "maxItems": MAX_MESSAGES}
        super().__init__(help, metadata=shape, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, list):
            raise ValidationError(" must be a list of messages")
        if not value:
            raise ValidationError(" must have at least one message")
        if len(value) > MAX_MESSAGES:
            raise ValidationError(f" must have at most {MAX_MESSAGES} messages")
        roles = self.roles
        for index, message in enumerate(value):
            if type(message) is not dict:
                raise ValidationError(f"[{index}] must be an object")
            role = message.get("role")
            if role not in roles:
                raise ValidationError(f"[{index}].role must be one of {', '.join(roles)}")
            content = message.get("content")
            if type(content) is not str and (problem := self._content_problem(content, role)):
                raise ValidationError(f"[{index}].content{problem}")
        if self.first and value[0]["role"] != self.first:
            raise ValidationError(f"[0].role must be {self.first}: a conversation begins with the {self.first}")
        if self.last and value[-1]["role"] != self.last:
            raise ValidationError(f"[{len(value) - 1}].role must be {self.last}: the {self.last} has the last word")
        return value

    def _content_problem(self, content: Any, role: str) -> str | None:
        if content is None:
            return None if role in self.silent else " is required"
        if not self.parts:
            return " must be a string"
        return _not_parts(content)


def check(schema: Schema, body: Any) -> dict[str, Any]:
    """``body`` itself, once ``schema`` finds nothing wrong with it.

    Raises InvalidRequest naming the first wrong field and its rule.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    errors = schema.validate(body)
    if not errors:
        return body
    # Listed fields first, in their order; marshmallow reports unknown ones in no order.
    name = next((name for name in schema.fields if name in errors), None)
    if name is None:
        name = safe_name(next(name for name in body if name in errors))
        raise InvalidRequest(f"{name} is not a field of this route.", param=name)
    path, _, rule = f"{name}{_first(errors[name])}".partition(" ")
    raise InvalidRequest(f"{path} {rule}.", param=path)


def _first(problems: Any) -> str:
    """The first problem as the rest of a path and a rule: ``[2].role must be ...``, `` is required``."""
    problem = str(problems[0])
    return problem if problem.startswith(("[", " ", ".")) else f" {problem}"


def safe_name(name: str) -> str:
    """``name`` if it is an identifier: a field's name is the caller's text and could be anything."""
    return name if _NAME.match(name) else "(unnamed)"


# Crossing: what happens to each field of a request when another vendor is to answer it.


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What becomes of a field. ``neutral`` values mean the same as leaving it out, and are left out."""

    how: Literal["translated", "dropped", "refused"]
    neutral: tuple[Any, ...] = ()


TRANSLATE = FieldRule("translated")
REJECT = FieldRule("refused")


def drop_unless(*neutral: Any) -> FieldRule:
    """A hint: the answer is the same in kind without it. Dropped and named, unless it says nothing."""
    return FieldRule("dropped", neutral)


def reject_unless(*neutral: Any) -> FieldRule:
    return FieldRule("refused", neutral)


def cross(given: Mapping[str, Any], fates: Mapping[str, FieldRule], path: str = "") -> list[str]:
    """The names of the fields of ``given`` that are dropped.

    ``path`` is the place of ``given`` in the body, with its dot, and empty at the
    top. Raises UnsupportedParameter for a field that cannot cross, an unlisted one
    included.
    """
    dropped = []
    for name, value in given.items():
        fate = fates.get(name, REJECT)
        if fate is TRANSLATE or value is None or value in fate.neutral:
            continue
        if fate.how == "dropped":
            dropped.append(name)
        else:
            unsupported(path + safe_name(name))
    return dropped


def unsupported(path: str, why: str = "it has no counterpart there") -> NoReturn:
    raise UnsupportedParameter(f"{path} is not supported for a model of another vendor: {why}.", param=path)


def text_of(part: Mapping[str, Any], path: str, name: str = "text") -> str:
    """The string a text part holds."""
    text = part.get(name)
    if not isinstance(text, str):
        raise InvalidRequest(f"{path}.{name} must be a string.", param=f"{path}.{name}")
    return text


# What the formats call the fields of ``Conversation``, where it is not the same word.
_CLIENT_NAMES: Mapping[str, Mapping[str, str]] = {
    "messages": {
        "stop": "stop_sequences",
        "reasoning": "thinking",
        "effort": "output_config.effort",
        "thoughts": "messages[].thinking",
        "cache": "cache_control",
        "format": "output_config.format",
        "user": "metadata.user_id",
        "tier": "service_tier",
        "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    },
    "chat": {
        "reasoning": "reasoning_effort",
        "effort": "reasoning_effort",
        "thoughts": "messages[].claude_thinking",
        "cache": "prompt_cache_breakpoint",
        "format": "response_format",
        "tier": "service_tier",
    },
    "responses": {
        "max_tokens": "max_output_tokens",
        "effort": "reasoning.effort",
        "thoughts": "input[].reasoning",
        "cache": "prompt_cache_breakpoint",
        "format": "text.format",
        "tier": "service_tier",
    },
}


def client_field(call: Call, name: str) -> str:
    """What the client's format calls a field of ``Conversation``."""
    return _CLIENT_NAMES.get(call.format, {}).get(name, name)


def message_path(call: Call, conversation: Conversation, index: int) -> str:
    """Where message ``index`` of the conversation is in the client's body: leading system messages are not in it."""
    given = call.body.get("messages")
    moved = len(given) - len(conversation.messages) if isinstance(given, list) else 0
    return f"messages[{index + moved}]"
