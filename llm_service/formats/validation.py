"""The one home for "this field is wrong": checks of a client's body, and the errors that name the field and its rule.

No message quotes a value of the body: the values are content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from marshmallow import Schema

from llm_service.core.errors import InvalidRequest, UnsupportedParameter
from llm_service.core.identifiers import field_name

NO_COUNTERPART: Final = "the model's API has no counterpart"


def invalid(path: str, rule: str) -> NoReturn:
    raise InvalidRequest(f"{path} {rule}.", param=path)


def unsupported(path: str, why: str = NO_COUNTERPART) -> NoReturn:
    raise UnsupportedParameter(f"{path} is not supported on this route for this model: {why}.", param=path)


def contradiction(path: str, other: str) -> NoReturn:
    invalid(path, f"contradicts {other}: send one of the two, or the same in both")


@contextmanager
def for_this_target() -> Iterator[None]:
    """Errors about fields that only the target's format knows: another target of an alias may still take the call."""
    try:
        yield
    except UnsupportedParameter:
        raise
    except InvalidRequest as error:
        raise UnsupportedParameter(error.message, param=error.param, code=error.code) from None


def text_of(part: Mapping[str, Any], path: str, name: str = "text") -> str:
    """The string a text part holds."""
    text = part.get(name)
    if not isinstance(text, str):
        raise InvalidRequest(f"{path}.{name} must be a string.", param=f"{path}.{name}")
    return text


def text_at(given: Any, path: str, name: str, *, filled: bool = True) -> str:
    """The string ``given[name]``. Raises InvalidRequest naming its path."""
    value = given.get(name)
    if not isinstance(value, str) or (filled and not value):
        invalid(f"{path}.{name}", "must be a non-empty string" if filled else "must be a string")
    return value


def object_at(given: Any, path: str, name: str) -> dict[str, Any]:
    """The object ``given[name]``. Raises InvalidRequest naming its path."""
    value = given.get(name)
    if not isinstance(value, dict):
        invalid(f"{path}.{name}", "must be an object")
    return value


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
        name = field_name(next(name for name in body if name in errors))
        raise InvalidRequest(f"{name} is not a field of this route.", param=name)
    path, _, rule = f"{name}{_first(errors[name])}".partition(" ")
    raise InvalidRequest(f"{path} {rule}.", param=path)


def _first(problems: Any) -> str:
    """The first problem as the rest of a path and a rule: ``[2].role must be ...``, `` is required``."""
    problem = str(problems[0])
    return problem if problem.startswith(("[", " ", ".")) else f" {problem}"
