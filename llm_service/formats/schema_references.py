"""References inside a JSON schema: what they point to, and how they are written for Anthropic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from llm_service.core.identifiers import field_name
from llm_service.formats import validation

_DATA: Final = frozenset({"const", "enum", "default", "example", "examples"})  # values, not schemas
_DEFINITIONS: Final = "#/$defs/"


def target_of(root: Mapping[str, Any], reference: str) -> Any:
    """The part of ``root`` that ``reference`` points to; None if there is none."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    place: Any = root
    for step in reference[1:].split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(place, list) and name.isascii() and name.isdigit() and int(name) < len(place):
            place = place[int(name)]
        elif isinstance(place, Mapping):
            place = place.get(name)
        else:
            return None
    return place


def into_definitions(schema: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """``schema`` whose references all point into ``$defs``, the only place that Anthropic's strict schemas may have.

    Raises UnsupportedParameter naming a reference to nothing in the schema, and a definition that refers to itself:
    Anthropic has no recursive schemas.
    """
    writer = _Writer(schema)
    written: dict[str, Any] = writer.write(schema, path)
    while writer.waiting:
        name, part = writer.waiting.pop()
        writer.definitions[name] = writer.write(part, path)
    older = written.pop("definitions", None)
    definitions = {**(older if isinstance(older, dict) else {}), **_named(written.get("$defs")), **writer.definitions}
    if definitions:
        _check_recursion(definitions, path)
        written["$defs"] = definitions
    return written


class _Writer:
    """``definitions`` gets the parts elsewhere that something refers to. Those in ``waiting`` are not written yet."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._names: dict[str, str] = {}
        self.waiting: list[tuple[str, Any]] = []
        self.definitions: dict[str, Any] = {}

    def write(self, schema: Any, path: str) -> Any:
        if isinstance(schema, list):
            return [self.write(inner, f"{path}[{number}]") for number, inner in enumerate(schema)]
        if not isinstance(schema, Mapping):
            return schema
        return {
            name: self._reference(value, path)
            if name == "$ref" and isinstance(value, str)
            else value
            if name in _DATA
            else self.write(value, f"{path}.{field_name(name)}")
            for name, value in schema.items()
        }

    def _reference(self, reference: str, path: str) -> str:
        found = target_of(self._root, reference)
        if found is None:
            validation.unsupported(f"{path}.$ref", "it must point to a part of the same schema")
        for older in ("#/definitions/", _DEFINITIONS):
            if reference.startswith(older) and "/" not in reference.removeprefix(older):
                return _DEFINITIONS + reference.removeprefix(older)
        if reference not in self._names:
            self._names[reference] = f"part_{len(self._names) + 1}"
            self.waiting.append((self._names[reference], found))
        return _DEFINITIONS + self._names[reference]


def _named(definitions: Any) -> Mapping[str, Any]:
    return definitions if isinstance(definitions, Mapping) else {}


def _check_recursion(definitions: Mapping[str, Any], path: str) -> None:
    """Raises UnsupportedParameter if a definition refers to itself, directly or through others."""
    needs = {name: set(_references(inner)) for name, inner in definitions.items()}
    waiting = dict(needs)
    while waiting:
        free = [name for name, needed in waiting.items() if not needed & waiting.keys()]
        if not free:
            name = field_name(next(iter(waiting)))
            validation.unsupported(f"{path}.$defs.{name}", "it refers to itself, and Anthropic has no such schemas")
        for name in free:
            del waiting[name]


def _references(schema: Any) -> Iterator[str]:
    """The names of the definitions that ``schema`` refers to."""
    if isinstance(schema, list):
        for inner in schema:
            yield from _references(inner)
    elif isinstance(schema, Mapping):
        for name, value in schema.items():
            if name == "$ref" and isinstance(value, str):
                yield value.removeprefix(_DEFINITIONS).replace("~1", "/").replace("~0", "~")
            elif name not in _DATA:
                yield from _references(value)
