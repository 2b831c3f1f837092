"""A separate process that validates a text: is it JSON, can it be repaired, does it match a schema?

The repair of 16 KiB of braces can take minutes, and a schema can have a regular expression or nested references that
take years. So this process runs outside the server with a limit on its memory. Every job starts a timer whose signal
ends the process, even inside a C library.

Jobs come in and verdicts go out on one socket, the standard input: four bytes of length, then JSON. Nothing is written
anywhere else.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

import json_repair
import orjson
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import SchemaError, best_match
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY, specification_with

SECONDS = 2.0
_MEMORY = 1 << 29
_MAX_ERROR = 1000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}\Z")
# The values of these keywords are data, not schemas.
_DATA = ("const", "enum", "default", "examples")


class Unusable(Exception):
    """Answers cannot be checked with the schema; the message completes "the schema ..."."""


@lru_cache(maxsize=32)
def validator(schema: bytes) -> Any:
    """Raises Unusable. The draft is the one that ``$schema`` names, or else 2020-12."""
    given = orjson.loads(schema)
    if not isinstance(given.get("$schema", ""), str):
        raise Unusable("has a $schema that is not a string")
    kind: Any = validators.validator_for(given, default=Draft202012Validator)
    try:
        kind.check_schema(given)
    except SchemaError as error:
        raise Unusable(f"is not a valid JSON schema: {error.validator} does not hold for one of its keywords") from None
    specification = specification_with(kind.META_SCHEMA["$schema"], default=DRAFT202012)
    resolver = EMPTY_REGISTRY.resolver_with_root(specification.create_resource(given))
    for reference in _references(given):
        try:
            resolver.lookup(reference)
        except Exception:  # noqa: BLE001 - a reference can be wrong in many ways, like a URL
            raise Unusable("has a $ref to something that is not in it; nothing is fetched") from None
    # An empty registry, because the default one would fetch references.
    return kind(given, registry=EMPTY_REGISTRY)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item)
    elif isinstance(schema, dict):
        for name, value in schema.items():
            if name in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
                yield value
            elif name not in _DATA:
                yield from _references(value)


def examine(schema: str) -> dict[str, Any]:
    """``{"unusable": None}``, or why answers cannot be checked with the schema."""
    try:
        validator(schema.encode())
    except Unusable as error:
        return {"unusable": str(error)}
    return {"unusable": None}


def validate(text: str, schema: str | None, repair: bool) -> dict[str, Any]:
    """``{"verdict": "valid"}``, ``{"verdict": "repaired", "text"}``, or "wrong" with ``path``, ``rule`` and ``error``.

    ``path`` and ``rule`` are free of content; ``error`` is for the model and may quote its answer. ``schema`` None
    means any JSON object. Only a text that is not JSON is repaired: no value is invented to match a schema.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        message = f"It is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        repaired = _repaired(text) if repair else None
        if repaired is None:
            return {"verdict": "wrong", "path": "$", "rule": "syntax", "error": message}
        value, text = repaired
        return _violation(value, schema) or {"verdict": "repaired", "text": text}
    return _violation(value, schema) or {"verdict": "valid"}


def _repaired(text: str) -> tuple[Any, str] | None:
    """The value and its JSON text. None if there is no object or list in it: prose is not a value."""
    value: Any = json_repair.repair_json(text, return_objects=True, skip_json_loads=True)
    if not isinstance(value, dict | list) or not value:
        return None
    with suppress(ValueError):  # NaN and the infinities are not JSON
        return value, json.dumps(value, ensure_ascii=False, allow_nan=False)
    return None


def _violation(value: Any, schema: str | None) -> dict[str, Any] | None:
    if schema is None:
        if isinstance(value, dict):
            return None
        return {"verdict": "wrong", "path": "$", "rule": "type", "error": "It is not a JSON object."}
    error = best_match(validator(schema.encode()).iter_errors(value))
    if error is None:
        return None
    names = set(_properties(orjson.loads(schema)))
    path = "$" + "".join(_step(step, names) for step in error.absolute_path)
    message = f"At {path}: {error.message}"[:_MAX_ERROR]
    return {"verdict": "wrong", "path": path, "rule": str(error.validator), "error": message}


def _step(step: str | int, names: set[str]) -> str:
    """One step of a path. A name that is not in the schema is the model's content and is not shown."""
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if step in names and _NAME.match(step) else ".*"


def _properties(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _properties(item)
    elif isinstance(schema, dict):
        for name, value in schema.items():
            if name == "properties" and isinstance(value, dict):
                yield from value
            if name not in _DATA:
                yield from _properties(value)


def answer(job: dict[str, Any]) -> dict[str, Any]:
    try:
        return validate(**job) if "text" in job else examine(**job)
    except Exception as error:  # noqa: BLE001 - recursion, memory or a bug of a library: no verdict
        return {"undecided": type(error).__name__}


def serve(sock: socket.socket) -> None:
    stream = sock.makefile("rwb")
    while size := stream.read(4):
        job = orjson.loads(stream.read(int.from_bytes(size, "big")))
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        verdict = orjson.dumps(answer(job))
        signal.setitimer(signal.ITIMER_REAL, 0)
        stream.write(len(verdict).to_bytes(4, "big") + verdict)
        stream.flush()


if __name__ == "__main__":
    os.nice(10)  # the server's other work comes first
    with suppress(ValueError, OSError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    serve(socket.socket(fileno=0))
