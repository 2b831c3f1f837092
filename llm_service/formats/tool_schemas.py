"""Schemas of tools as vendors take them.

Vendors check a tool's schema even if nobody asked for ``strict``, and one wrong schema rejects the whole request. What
is a matter of writing is rewritten here: older drafts of JSON Schema, words of programming languages, members that are
null, what OpenAI wants to be said. What no vendor takes at the root (``anyOf``, ``oneOf``, ``allOf``, ``not`` ...)
becomes wider there, and the exact rule moves into the tool's description, where the model can read it. What means
nothing at all is rejected by its path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeGuard

import orjson

from llm_service.core.content import Tool
from llm_service.core.identifiers import field_name
from llm_service.formats import schema_roots, schema_shape, validation
from llm_service.formats.schema_shape import HOLD_LIST, HOLD_NAMED, HOLD_ONE

_TYPES: Final[Mapping[str, str | None]] = {
    **{name: name for name in ("object", "array", "string", "integer", "number", "boolean", "null")},
    **dict.fromkeys(("dict", "map", "struct"), "object"),
    **dict.fromkeys(("list", "tuple", "set"), "array"),
    **dict.fromkeys(("str", "text"), "string"),
    **dict.fromkeys(("int", "long"), "integer"),
    **dict.fromkeys(("float", "double", "decimal"), "number"),
    "bool": "boolean",
    "none": "null",
    "any": None,  # no limit at all
}
_MAY_BE_NULL: Final = frozenset({"const", "default", "example"})
_DRAFT_4: Final[Mapping[str, str]] = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}


def fit(tool: Tool, *, complete: bool = False, names: re.Pattern[str] | None = None) -> Tool:
    """``tool`` with a schema that vendors take.

    ``complete``: each object gets its ``properties`` and each array its ``items``, which OpenAI requires.
    ``names``: what the names of the arguments must match (Anthropic).
    Raises InvalidRequest and UnsupportedParameter naming the path of what no vendor takes.
    """
    if tool.schema is None:
        return tool
    schema_shape.check(tool.schema, tool.path, older=True)
    schema, rule = schema_roots.fit(_Writer(tool.schema, complete).write(tool.schema, tool.path), tool.path)
    if names is not None:
        _check_names(schema["properties"], names, f"{tool.path}.properties")
    if not rule:
        return replace(tool, schema=schema)
    about = f"The arguments must also match this JSON schema: {orjson.dumps(rule).decode()}"
    return replace(tool, schema=schema, description=f"{tool.description}\n\n{about}" if tool.description else about)


def _check_names(properties: Iterable[str], pattern: re.Pattern[str], path: str) -> None:
    for name in properties:
        if not pattern.fullmatch(name):
            why = "the model takes arguments whose names have at most 64 of the characters A-Z a-z 0-9 _ . -"
            validation.unsupported(f"{path}.{field_name(name)}", why)


class _Writer:
    """Writes one schema anew. Parts that need no change are kept as they are."""

    def __init__(self, root: Mapping[str, Any], complete: bool) -> None:
        self._root, self._complete = root, complete

    def write(self, schema: Any, path: str) -> Any:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, Mapping):
            validation.invalid(path, "must be a JSON schema: an object")
        written = {name: self._member(name, value, path) for name, value in schema.items() if _is_given(name, value)}
        if "type" in written and written["type"] is None:
            del written["type"]
        _modernise(written, schema)
        kind = written.get("type")
        if self._complete and (kind == "array" or (isinstance(kind, list) and "array" in kind)):
            written.setdefault("items", {})
        if self._complete and (kind == "object" or (isinstance(kind, list) and "object" in kind)):
            written.setdefault("properties", {})
        return written

    def _member(self, name: str, value: Any, path: str) -> Any:
        if type(value) is str:
            return self._word(name, value, path)
        if value == [] and (name in HOLD_NAMED or name in HOLD_ONE):
            return {}  # PHP writes an empty object like this
        if name in HOLD_NAMED and isinstance(value, Mapping):
            return {key: self.write(inner, f"{path}.{name}.{field_name(key)}") for key, inner in value.items()}
        if name in HOLD_ONE and isinstance(value, Mapping):
            return self.write(value, f"{path}.{name}")
        if isinstance(value, list):
            if name == "type":
                return list(dict.fromkeys(filter(None, (_type(word) for word in value)))) or None
            if name in HOLD_LIST or name == "items":
                return [self.write(inner, f"{path}.{name}[{number}]") for number, inner in enumerate(value)]
        return value

    def _word(self, name: str, value: str, path: str) -> Any:
        if name == "type":
            return _type(value)
        if name == "$ref" and not schema_roots.can_refer(self._root, value):
            why = "it must point to a part of the same schema that stays in its place, such as a definition in $defs"
            validation.unsupported(f"{path}.$ref", why)
        return value


def _modernise(written: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Rewrite older drafts of JSON Schema, and patterns in another dialect of regular expressions."""
    for word, limit in _DRAFT_4.items():
        if isinstance(written.get(word), bool):
            exclusive = written.pop(word)
            if exclusive and limit in written:
                written[word] = written.pop(limit)
    if isinstance(written.get("items"), list):
        written["prefixItems"] = written.pop("items")
        rest = written.pop("additionalItems", True)
        written["items"] = rest if isinstance(rest, Mapping) else {}
        if rest is False:
            written["maxItems"] = len(written["prefixItems"])
    if not isinstance(written.get("required", []), list):
        del written["required"]
    properties = given.get("properties")
    needed = [name for name, inner in properties.items() if _is_required(inner)] if _is_object(properties) else []
    if needed:
        written["required"] = list(dict.fromkeys([*written.get("required", ()), *needed]))
    if isinstance(written.get("pattern"), str) and not _compiles(written["pattern"]):
        rule = f"It must match the regular expression {written.pop('pattern')}"
        about = written.get("description")
        written["description"] = f"{about}\n\n{rule}" if isinstance(about, str) and about else rule


def _is_given(name: str, value: Any) -> bool:
    return value is not None or name in _MAY_BE_NULL


def _type(word: Any) -> Any:
    """A type of JSON Schema. A word that nobody knows stays: the vendor may know it."""
    return _TYPES.get(word.lower(), word) if isinstance(word, str) else word


def _is_required(schema: Any) -> bool:
    """Whether a property says itself that it is required, as in draft 3."""
    return _is_object(schema) and schema.get("required") is True


def _is_object(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _compiles(pattern: str) -> bool:
    """Whether ``pattern`` is a regular expression in Python, as OpenAI requires."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError, FutureWarning):
        return False
    return True
