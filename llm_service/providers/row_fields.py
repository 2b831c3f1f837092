"""What a provider's row changes in every body that goes to it: the fields in ``drop`` and ``add``.

A path in ``drop`` names a field of the vendor's body: ``store``, ``stream_options.include_usage`` or
``messages[].name``. With a value behind it (``frequency_penalty=0``) it is dropped only if it has that value, which
many clients send although it changes nothing. ``add`` sets fields that the body does not have after that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from llm_service.core.call import Call
from llm_service.core.target import Provider


def fitted(body: Mapping[str, Any], call: Call, row: Provider) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """``body`` as the row wants it, and the paths of what the caller sent and the vendor does not get."""
    if not row.drop and not row.add:
        return body, ()
    fitting: Any = body
    names = []
    for entry in row.drop:
        path, _, value = entry.partition("=")
        if value:
            if path in fitting and fitting[path] == orjson.loads(value):
                fitting = _without(fitting, [path])
            continue
        without = _without(fitting, path.replace("[]", ".[]").split("."))
        if without is not fitting:
            fitting = without
            if path.partition(".")[0].partition("[")[0] in call.body:  # what the service itself added is no loss
                names.append(path)
    return {**row.add, **fitting}, tuple(names)


def _without(value: Any, path: Sequence[str]) -> Any:
    """``value`` without what is at ``path``: a copy, or ``value`` itself if there is nothing."""
    name, *rest = path
    if name == "[]":
        if not isinstance(value, list):
            return value
        items = [_without(item, rest) for item in value] if rest else []
        changed = any(new is not old for new, old in zip(items, value, strict=False)) or not rest
        return items if changed else value
    if not isinstance(value, Mapping) or name not in value:
        return value
    if not rest:
        return {key: item for key, item in value.items() if key != name}
    inner = _without(value[name], rest)
    return value if inner is value[name] else {**value, name: inner}
