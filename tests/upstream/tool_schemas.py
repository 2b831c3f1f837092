"""What vendors reject in the schema of a tool, even if nobody asked for ``strict``.

Sources: error bodies quoted in public issue trackers (langchainjs#9804, bnbchain-mcp#68, mcp-digitalocean#265,
appstore-connect-mcp#2, accelerated-intelligent-document-processing-on-aws#709).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
SINGLE = ("additionalProperties", "propertyNames", "not", "if", "then", "else", "contains")
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
STRINGS = ("description", "title", "pattern", "format", "$ref", "$schema", "$id")


def openai_problem(schema: Any) -> str | None:
    """OpenAI's words for what is wrong with a tool's ``parameters``."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        kind = schema.get("type") if isinstance(schema, dict) else schema
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
    if any(name in schema for name in ("oneOf", "anyOf", "allOf", "enum", "not")):
        return "schema must have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'not' at the top level."
    for path, part in _parts(schema):
        problem = _wrong(part, schema)
        if problem is None and _has_type(part, "object") and not isinstance(part.get("properties"), dict):
            problem = "object schema missing properties."
        if problem is None and _has_type(part, "array") and not isinstance(part.get("items"), dict):
            problem = "array schema missing items."
        if problem is None and "pattern" in part and not _compiles(part["pattern"]):
            problem = f"'{part['pattern']}' is not a 'regex'."
        if problem is not None:
            return f"In context={path}, {problem}"
    return None


def anthropic_problem(schema: Any) -> str | None:
    """Anthropic's words for what is wrong with a tool's ``input_schema``, with their path below it."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return ".type: Input should be 'object'"
    if any(name in schema for name in ("oneOf", "anyOf", "allOf")):
        return ": input_schema does not support oneOf, allOf, or anyOf at the top level"
    properties = schema.get("properties", {})
    if isinstance(properties, dict) and not all(re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", name) for name in properties):
        return ".properties: Property keys should match pattern '^[a-zA-Z0-9_.-]{1,64}$'"
    if any(_wrong(part, schema) for _, part in _parts(schema)):
        return (
            ": JSON schema is invalid. It must match JSON Schema draft 2020-12 "
            "(https://json-schema.org/draft/2020-12). Learn more about tool use at https://docs.claude.com/en/docs/tool-use."
        )
    return None


def _parts(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Each schema in ``schema``, itself included, with its path."""
    if not isinstance(schema, dict):
        yield path, {"type": schema} if not isinstance(schema, bool) else {}
        return
    yield path, schema
    for name in NAMED:
        for key, inner in schema.get(name, {}).items() if isinstance(schema.get(name, {}), dict) else ():
            yield from _parts(inner, (*path, name, key))
    for name in SINGLE:
        if name in schema:
            yield from _parts(schema[name], (*path, name))
    for name in LISTS:
        for number, inner in enumerate(schema.get(name, []) if isinstance(schema.get(name, []), list) else ()):
            yield from _parts(inner, (*path, name, str(number)))
    if "items" in schema:
        yield from _parts(schema["items"], (*path, "items"))


def _wrong(part: dict[str, Any], root: dict[str, Any]) -> str | None:
    """What JSON Schema 2020-12 forbids in one schema."""
    kinds = part.get("type", "object")
    for kind in kinds if isinstance(kinds, list) and kinds else [kinds]:
        if kind not in TYPES:
            return f"{kind!r} is not valid under any of the given schemas."
    for name in (*NAMED, *LISTS, "required"):
        wanted = dict if name in NAMED else list
        if name in part and not isinstance(part[name], wanted):
            return f"{part[name]!r} is not of type '{'object' if wanted is dict else 'array'}'."
    for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        if name in part and (isinstance(part[name], bool) or not isinstance(part[name], (int, float))):
            return f"{part[name]!r} is not of type 'number'."
    for name in STRINGS:
        if name in part and not isinstance(part[name], str):
            return f"{part[name]!r} is not of type 'string'."
    if "$ref" in part and not _resolves(part["$ref"], root):
        return f"reference to component '{part['$ref']}' which was not found in the schema."
    return None


def _resolves(reference: str, root: Any) -> bool:
    if reference != "#" and not reference.startswith("#/"):
        return False
    for step in reference[1:].split("/")[1:]:
        if isinstance(root, list):
            root = root[int(step)] if step.isdigit() and int(step) < len(root) else None
        else:
            root = root.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(root, dict) else None
    return root is not None


def _has_type(part: dict[str, Any], kind: str) -> bool:
    return part.get("type") == kind or (isinstance(part.get("type"), list) and kind in part["type"])


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
