"""The shape of a JSON schema: ``properties`` is an object of schemas, ``required`` is a list of names, and so on.

What rewrites a schema for a vendor relies on it. Values that a vendor judges, such as an unknown type, are not checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_service.core.identifiers import field_name
from llm_service.formats import validation

HOLD_NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
HOLD_LIST: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
HOLD_ONE: Final = frozenset(
    {
        *("items", "additionalItems", "contains", "unevaluatedItems"),
        *("additionalProperties", "propertyNames", "unevaluatedProperties", "not", "if", "then", "else"),
    }
)
_TEXTS: Final = frozenset({"$ref", "description", "title", "pattern", "format"})
_NAMES: Final = frozenset({"required", "type"})
_CHECKED: Final = HOLD_NAMED | HOLD_LIST | HOLD_ONE | _TEXTS | _NAMES | {"enum"}


def check(schema: Any, path: str, *, older: bool = False) -> None:
    """Raises InvalidRequest naming the path of what has another shape than JSON Schema says.

    ``null`` counts as missing. ``older``: a property may say itself that it is required (``"required": true``, as in
    draft 3), and an object may be ``[]``, as PHP writes it.
    """
    waiting = [(schema, path)]
    while waiting:
        schema, path = waiting.pop()
        if isinstance(schema, bool) or (older and schema == []):
            continue
        if not isinstance(schema, Mapping):
            validation.invalid(path, "must be a JSON schema: an object")
        for name in _CHECKED.intersection(schema):
            value = schema[name]
            if value is not None:
                waiting += _parts(name, value, f"{path}.{name}", older)


def _parts(name: str, value: Any, path: str, older: bool) -> list[tuple[Any, str]]:
    """The schemas inside the member ``name``, each with its path, once its shape is known to be right."""
    if name in HOLD_NAMED:
        if older and value == []:
            return []
        if not isinstance(value, Mapping):
            validation.invalid(path, "must be an object")
        return [(inner, f"{path}.{field_name(key)}") for key, inner in value.items()]
    if name in HOLD_LIST or (name == "items" and isinstance(value, list)):
        if not isinstance(value, list):
            validation.invalid(path, "must be a list")
        return [(inner, f"{path}[{number}]") for number, inner in enumerate(value)]
    if name in HOLD_ONE:
        return [(value, path)]
    if name in _TEXTS and not isinstance(value, str):
        validation.invalid(path, "must be a string")
    if name == "enum" and not isinstance(value, list):
        validation.invalid(path, "must be a list")
    if name == "type" and not isinstance(value, str) and not _are_texts(value):
        validation.invalid(path, "must be a string or a list of strings")
    if name == "required" and not (older and isinstance(value, bool)) and not _are_texts(value):
        validation.invalid(path, "must be a list of strings")
    return []


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)
