"""The field types of the formats' request schemas.

marshmallow checks a body with them. Each field is strict: a boolean is not a number, and ``"1"`` is not 1. Its message
names the rule and never the value. One field checks the whole list of messages in one loop, because nested schemas
would cost 0.15 ms per message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from marshmallow import INCLUDE, RAISE, Schema, ValidationError
from marshmallow import fields as base

from llm_service.formats.json_body import load_json as load_json

MAX_TOKENS: Final = 1_000_000_000
MAX_MESSAGES: Final = 100_000


class WireSchema(Schema):
    """A vendor's request: fields that are not listed are accepted."""

    class Meta:
        unknown = INCLUDE


class OursSchema(Schema):
    """A request in this service's own format: a field that is not listed is rejected."""

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
    """A string of at most ``longest`` characters; if ``filled``, of at least one that is not white space."""

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
    """A list of at most ``most`` strings. With ``single`` it may also be one string."""

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

    ``roles`` are the known ones. Messages of the roles in ``silent`` need no content.
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
