"""What a provider's row changes in every body that goes to it: the fields in ``drop`` and ``add``.

A path in ``drop`` names a field of the vendor's body: ``store``, ``stream_options.include_usage`` or
``messages[].name``. With a value behind it (``frequency_penalty=0``) it is dropped only if it has that value, which
many clients send although it changes nothing. ``add`` sets fields that the body does not have after that.
``catalog.body_fields`` says what both may name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from llm_service.core.call import Call
from llm_service.core.target import Provider

_ANY: Final = object()


def fitted(body: Mapping[str, Any], call: Call, row: Provider) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """``body`` as the row wants it, and the paths of what the caller sent and the vendor does not get."""
    if not row.drop and not row.add:
        return body, ()
    fitting: Any = body
    names = []
    for entry in row.drop:
        path, _, text = entry.partition("=")
        value = orjson.loads(text) if text else _ANY
        without = _without(fitting, path.replace("[]", ".[]").split("."), value)
        if without is not fitting:
            fitting = without
            # A value that changes nothing is no loss, nor is what the service itself added.
            if value is _ANY and path.partition(".")[0].partition("[")[0] in call.body:
                names.append(path)
    return {**row.add, **fitting}, tuple(names)


def _without(value: Any, path: Sequence[str], only: Any) -> Any:
    """``value`` without what is at ``path`` and is ``only``: a copy, or ``value`` itself if there is nothing."""
    name, *rest = path
    if name == "[]":
        if not isinstance(value, list):
            return value
        if not rest:
            items = [item for item in value if not _is(item, only)]
            return value if len(items) == len(value) else items
        items = [_without(item, rest, only) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if not isinstance(value, Mapping) or name not in value:
        return value
    if not rest:
        return {key: item for key, item in value.items() if key != name} if _is(value[name], only) else value
    inner = _without(value[name], rest, only)
    return value if inner is value[name] else {**value, name: inner}


def _is(value: Any, only: Any) -> bool:
    """Whether ``value`` is what JSON calls the same as ``only``: 0 is 0.0, but 1 is not true."""
    return only is _ANY or (value == only and isinstance(value, bool) == isinstance(only, bool))
