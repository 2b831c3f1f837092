"""The words ``drop`` and ``add`` of a row: what they may do to a body. ``providers.row_fields`` does it.

They change the body after its cost has been bounded and its budget checked. So ``drop`` may not remove the limit of
the output, and ``add`` may not set what makes a call cost more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

# Every name that a server of some format has for the limit of the output.
LIMITS: Final = frozenset(
    {
        "max_completion_tokens", "max_output_tokens", "max_tokens", "max_tokens_to_sample",
        "max_new_tokens", "max_length", "n_predict", "num_predict",
    }
)  # fmt: skip
# What else an answer's cost depends on: how many answers there are and at which price, what the vendor reads for them,
# and what it runs. ``provider``, which chooses among the servers of a router, is the operator's, as its price is.
COSTLY: Final = LIMITS | {
    "min_tokens", "n", "best_of", "num_return_sequences", "prediction", "service_tier", "speed", "modalities", "audio",
    "model", "models", "fallbacks", "inference_geo",
    "messages", "input", "prompt", "suffix", "system", "instructions", "documents",
    "tools", "functions", "mcp_servers", "plugins", "skills", "connectors", "web_search", "web_search_options",
    "search_parameters", "search_options", "enable_search",
    "background", "cache_control", "compaction", "container", "context_management", "conversation",
    "previous_response_id", "thread",
}  # fmt: skip
_PATH: Final = re.compile(r"\w+(\[\])?(\.\w+(\[\])?)*")


def is_drop(value: Any) -> bool:
    """Whether it is a list of paths, each without a value or with one in JSON."""
    return isinstance(value, list) and all(isinstance(entry, str) and _is_entry(entry) for entry in value)


def _is_entry(entry: str) -> bool:
    path, equals, text = entry.partition("=")
    if not _PATH.fullmatch(path):
        return False
    try:
        # The same parser reads the value for each call. null would be a field that is not there.
        return not equals or orjson.loads(text) is not None
    except orjson.JSONDecodeError:
        return False


def limits_in(entries: Iterable[str], limit_field: str) -> list[str]:
    """The limits of the output that a checked ``drop`` would remove.

    A server that wants ``max_tokens`` gets the limit by this name, so the newer name beside it may be dropped.
    """
    needed = LIMITS - {"max_completion_tokens"} if limit_field == "max_tokens" else LIMITS
    roots = (re.split(r"[.\[=]", entry, maxsplit=1)[0] for entry in entries)
    return [root for root in roots if root in needed]


def costly_in(fields: Iterable[str]) -> list[str]:
    """The fields of an ``add`` that may make a call cost more."""
    return [name for name in fields if name in COSTLY]
