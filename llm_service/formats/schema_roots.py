"""The root of a tool's schema: an object with properties, as every vendor wants it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from llm_service.formats import validation
from llm_service.formats.schema_references import target_of

# OpenAI and Anthropic reject these at the root.
_RULES: Final = ("anyOf", "oneOf", "allOf", "not", "enum", "const")
_MOST_STEPS: Final = 20  # of references and variants inside each other; deeper ones are not read
_MOST_READ: Final = 1000  # variants of one schema


def fit(schema: Mapping[str, Any], path: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The schema of an object, which has ``properties``, and the rules that its root had and may not have.

    The properties of variants become properties of the root, so that the model knows them all.
    Raises UnsupportedParameter if the root is not an object.
    """
    root = _resolved(schema, schema)
    kind = root.get("type")
    if kind is not None and kind != "object" and not (isinstance(kind, list) and "object" in kind):
        validation.unsupported(f"{path}.type", "it must be object, because the arguments of a tool are an object")
    rule = {name: root[name] for name in _RULES if name in root}
    if kind == "object" and not rule and "properties" in root:
        return root, {}
    written: dict[str, Any] = {**root, "type": "object"}
    if rule:
        for name in rule:
            del written[name]
        properties, required = _Variants(schema).members(root)
        written["properties"] = properties
        if required:
            written["required"] = required
    written.setdefault("properties", {})
    return written, rule


def can_refer(root: Mapping[str, Any], reference: str) -> bool:
    """Whether ``reference`` points to a part of the schema ``root`` that is still there after ``fit``."""
    return not reference.startswith(tuple(f"#/{name}/" for name in _RULES)) and target_of(root, reference) is not None


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """``schema`` with what its reference points to in place of the reference."""
    for _ in range(_MOST_STEPS):
        reference = schema.get("$ref")
        found = target_of(root, reference) if isinstance(reference, str) else None
        if not isinstance(found, Mapping) or found is schema:
            break
        schema = {**found, **{name: value for name, value in schema.items() if name != "$ref"}}
    return {name: value for name, value in schema.items() if name != "$ref"} if "$ref" in schema else schema


class _Variants:
    """Reads the properties of a schema and of its variants.

    References can name the same variants again and again, so it reads at most ``_MOST_READ`` of them.
    """

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = _MOST_READ

    def members(self, schema: Mapping[str, Any], step: int = 0) -> tuple[dict[str, Any], list[str]]:
        """The properties of ``schema`` and of its variants, and the names that all of them require."""
        own = schema.get("properties")
        properties: dict[str, Any] = dict(own) if isinstance(own, Mapping) else {}
        required: dict[str, None] = dict.fromkeys(_names(schema.get("required")))
        found: dict[str, list[Any]] = {}
        for word in ("allOf", "anyOf", "oneOf"):
            read = [self.members(variant, step + 1) for variant in self._variants(schema.get(word), step)]
            for members, _ in read:
                for name, inner in members.items():
                    if inner not in found.setdefault(name, []):
                        found[name].append(inner)
            needed = [set(names) for _, names in read]
            if needed:
                names = set.union(*needed) if word == "allOf" else set.intersection(*needed)
                required |= dict.fromkeys(sorted(names))
        for name, inners in found.items():
            properties.setdefault(name, inners[0] if len(inners) == 1 else {"anyOf": inners})
        return properties, [name for name in required if name in properties]

    def _variants(self, given: Any, step: int) -> Iterator[Mapping[str, Any]]:
        if not isinstance(given, list) or step >= _MOST_STEPS:
            return
        for variant in given:
            if self._left and isinstance(variant, Mapping):
                self._left -= 1
                yield _resolved(variant, self._root)


def _names(given: Any) -> Iterable[str]:
    return (name for name in given if isinstance(name, str)) if isinstance(given, list) else ()
