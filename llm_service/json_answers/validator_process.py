"""The judge itself, a process of its own: is a text JSON, can it be mended, does it keep to a schema?

Mending can take minutes for 16 KiB of braces, and a schema can hide a regular
expression or a tower of references that takes years. So this runs outside the
server, with a limit on its memory, and every job arms a timer whose signal ends
the process, also in the middle of a C library.

Jobs come in and verdicts go out on one socket, the standard input: four bytes of
length, then JSON. Nothing is written anywhere else.
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
_LONGEST_TOLD = 1000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}\Z")
# What stands below these is data, not a schema.
_DATA = ("const", "enum", "default", "examples")


class Unusable(Exception):
    """The schema cannot be checked against; the message completes "the schema ..."."""


@lru_cache(maxsize=32)
def validator(schema: bytes) -> Any:
    """Raises Unusable. The draft is the one that ``$schema`` names, else 2020-12."""
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
        except Exception:  # noqa: BLE001 - a reference can be wrong in as many ways as a URL
            raise Unusable("has a $ref to something that is not in it; nothing is fetched") from None
    # An empty registry, not the default one: that would fetch.
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
    """``{"unusable": None}``, or why the schema cannot be checked against."""
    try:
        validator(schema.encode())
    except Unusable as error:
        return {"unusable": str(error)}
    return {"unusable": None}


def judge(text: str, schema: str | None, mend: bool) -> dict[str, Any]:
    """``{"verdict": "valid"}``, ``{"verdict": "mended", "text"}``, or ``"wrong"`` with ``path`` and ``rule``, free of
    content, and ``told``, which is for the model and not.

    ``schema`` None: any JSON object. Only what is no JSON is mended: no value is invented to please a schema.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        told = f"It is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        wrong = {"verdict": "wrong", "path": "$", "rule": "syntax", "told": told}
        mended = _mended(text) if mend else None
        if mended is None:
            return wrong
        value, text = mended
        return _violation(value, schema) or {"verdict": "mended", "text": text}
    return _violation(value, schema) or {"verdict": "valid"}


def _mended(text: str) -> tuple[Any, str] | None:
    """The value and its JSON text; None where next to nothing was found: prose is not a value."""
    value: Any = json_repair.repair_json(text, return_objects=True, skip_json_loads=True)
    if not isinstance(value, dict | list) or not value:
        return None
    with suppress(ValueError):  # NaN and the infinities are no JSON
        return value, json.dumps(value, ensure_ascii=False, allow_nan=False)
    return None


def _violation(value: Any, schema: str | None) -> dict[str, Any] | None:
    if schema is None:
        if isinstance(value, dict):
            return None
        return {"verdict": "wrong", "path": "$", "rule": "type", "told": "It is not a JSON object."}
    error = best_match(validator(schema.encode()).iter_errors(value))
    if error is None:
        return None
    names = set(_properties(orjson.loads(schema)))
    path = "$" + "".join(_step(step, names) for step in error.absolute_path)
    told = f"At {path}: {error.message}"[:_LONGEST_TOLD]
    return {"verdict": "wrong", "path": path, "rule": str(error.validator), "told": told}


def _step(step: str | int, names: set[str]) -> str:
    """A name that the schema does not know is the model's own word."""
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
        return judge(**job) if "text" in job else examine(**job)
    except Exception as error:  # noqa: BLE001 - recursion, memory, a defect of a library: no verdict
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
    os.nice(10)  # those who wait for their own answers come first
    with suppress(ValueError, OSError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    serve(socket.socket(fileno=0))
