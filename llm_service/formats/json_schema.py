"""JSON schemas of answers and tools, in the subset that each vendor supports.

``for_anthropic`` does what ``transform_schema`` of the anthropic SDK does: constraints that the API does not support
move into the description, where the model can read them. A test compares the two functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from llm_service.core.identifiers import field_name
from llm_service.formats import schema_references, validation

_TYPES: Final = ("object", "array", "string", "integer", "number", "boolean", "null")
_FORMATS: Final = (
    "date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid",
)  # fmt: skip
_STRICT_FORMATS: Final = tuple(name for name in _FORMATS if name != "uri")  # OpenAI's
_NAMED: Final = ("properties", "$defs", "definitions")
_NEVER_STRICT: Final = frozenset(
    {
        *("allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "default"),
        *("patternProperties", "propertyNames", "unevaluatedProperties", "minProperties", "maxProperties"),
        *("unevaluatedItems", "prefixItems", "contains", "minContains", "maxContains", "uniqueItems"),
        *("minLength", "maxLength"),
    }
)
_LOOKAROUND: Final = re.compile(r"\(\?<?[=!]")
# What lets an object have properties that its schema does not list.
_OPENERS: Final = ("additionalProperties", "patternProperties", "unevaluatedProperties")


def for_anthropic(schema: Any, path: str) -> dict[str, Any]:
    """``schema`` as Anthropic accepts it. Raises InvalidRequest or UnsupportedParameter naming the path in it."""
    if not isinstance(schema, dict):
        validation.invalid(path, "must be an object")
    return _write(schema_references.into_definitions(schema, path), path)


def _write(schema: Any, path: str) -> dict[str, Any]:
    if not isinstance(schema, Mapping):
        validation.invalid(path, "must be an object")
    left = dict(schema)
    written: dict[str, Any] = {}
    definitions = left.pop("$defs", None)
    if definitions is not None:
        written["$defs"] = _each(definitions, f"{path}.$defs")
    reference = left.pop("$ref", None)
    if reference is not None:
        return {**written, "$ref": reference}
    if isinstance(left.get("type"), list) and not left.get("enum"):
        left = _with_variants(left)
    kind = _kind(left, written, path)
    for name in ("description", "title"):
        value = left.pop(name, None)
        if value is not None:
            written[name] = value
    if kind == "object":
        _check_closed(left, path)
        written["properties"] = _each(left.pop("properties", {}), f"{path}.properties")
        left.pop("additionalProperties", None)
        written["additionalProperties"] = False
        required = left.pop("required", None)
        if required is not None:
            written["required"] = required
    elif kind == "string" and left.get("format"):
        format = left.pop("format")
        (written if format in _FORMATS else left)["format"] = format
    elif kind == "array":
        items = left.pop("items", None)
        if items is not None:
            written["items"] = _write(items, f"{path}.items")
        minimum = left.pop("minItems", None)
        if minimum is not None:
            (written if minimum in (0, 1) else left)["minItems"] = minimum
    if left:
        constraints = ", ".join(f"{name}: {value}" for name, value in left.items())
        before = f"{written['description']}\n\n" if "description" in written else ""
        written["description"] = f"{before}{{{constraints}}}"
    return written


def _check_closed(schema: Mapping[str, Any], path: str) -> None:
    """Anthropic's objects have the properties that their schema lists, and no others.

    An object with names of the model's own would always be empty, so it is rejected.
    """
    open_by = [name for name in _OPENERS if schema.get(name) not in (None, False, {})]
    if schema.get("additionalProperties") == {}:
        open_by = ["additionalProperties"]
    if not open_by and "properties" not in schema and schema.get("additionalProperties") is None:
        open_by = ["properties"]
    if open_by:
        why = "Anthropic's models can only answer with the properties that the schema lists: list them all"
        validation.unsupported(f"{path}.{open_by[0]}", why)


def _kind(left: dict[str, Any], written: dict[str, Any], path: str) -> str | None:
    """Move the schema's type or its variants from ``left`` to ``written``; returns the type if there is one."""
    kind = left.pop("type", None)
    variants = {name: left.pop(name, None) for name in ("anyOf", "oneOf", "allOf")}
    literal = False
    choices = left.get("enum")
    if isinstance(choices, list) and choices and all(map(_primitive, choices)):
        written["enum"], literal = left.pop("enum"), True
    if "const" in left and _primitive(left["const"]):
        written["const"], literal = left.pop("const"), True
    if literal:
        kind = None
    for name, keyword in (("anyOf", "anyOf"), ("oneOf", "anyOf"), ("allOf", "allOf")):
        if isinstance(variants[name], list):
            written[keyword] = [
                _write(variant, f"{path}.{name}[{number}]") for number, variant in enumerate(variants[name])
            ]
            return kind if isinstance(kind, str) else None
    if literal:
        return None
    if kind not in _TYPES:
        validation.unsupported(
            path, "a schema there needs a type, anyOf, oneOf, allOf, a const or an enum of plain values"
        )
    written["type"] = kind
    return str(kind)


def _with_variants(schema: dict[str, Any]) -> dict[str, Any]:
    """``{"type": ["string", "null"], ...}``, which OpenAI documents, as ``anyOf`` with one type each."""
    texts: dict[str, Any] = {name: schema[name] for name in ("description", "title") if name in schema}
    rest = {name: value for name, value in schema.items() if name not in texts}
    variants = [{"type": "null"} if kind == "null" else {**rest, "type": kind} for kind in schema["type"]]
    return {**texts, "anyOf": variants}


def _each(schemas: Any, path: str) -> dict[str, Any]:
    if not isinstance(schemas, dict):
        validation.invalid(path, "must be an object")
    return {name: _write(schema, f"{path}.{field_name(name)}") for name, schema in schemas.items()}


def _primitive(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def is_strict(schema: Any) -> bool:
    """Whether OpenAI accepts ``schema`` as strict: its objects are closed, and all their properties are required.

    Of the other keywords it takes only some (OpenAI's guide to structured outputs, and the errors that pydantic-ai's
    ``OpenAIJsonSchemaTransformer`` avoids).
    """
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, Mapping):
        return True
    if not _NEVER_STRICT.isdisjoint(schema) or schema.get("format", "uuid") not in _STRICT_FORMATS:
        return False
    if isinstance(schema.get("pattern"), str) and _LOOKAROUND.search(schema["pattern"]):
        return False
    properties = schema.get("properties")
    if schema.get("type") == "object" or isinstance(properties, dict):
        given = properties if isinstance(properties, dict) else {}
        if schema.get("additionalProperties") is not False or set(schema.get("required") or ()) != set(given):
            return False
    return all(
        is_strict(list(value.values()) if name in _NAMED and isinstance(value, dict) else value)
        for name, value in schema.items()
        if name not in ("const", "enum", "examples", "required")
    )
