"""The shapes of identifiers: what a text of a caller or of a vendor may look like to be logged or sent on.

Such a text can be anything, a prompt or a key too. Only a text of one of these shapes is kept; each function
returns the text if it has the shape, and otherwise its empty value. Every shape is ASCII.

| function | shape | for |
|---|---|---|
| ``loggable`` | 1 to 128 of ``A-Z a-z 0-9 . _ : / @ + -``, not like an API key | columns and log lines |
| ``request_id`` | 1 to 128 of ``A-Z a-z 0-9 . _ -`` | the request id that a client sends |
| ``field_name`` | 1 to 64 of ``A-Z a-z 0-9 . _ -`` | a field of a client's body, in an error message |
| ``field_path`` | 1 to 128 of ``A-Z a-z 0-9 . _ - [ ]`` | the field that a vendor's error names |
| ``vendor_code`` | 1 to 64 of ``A-Z a-z 0-9 . _ -`` | error types, error codes and service tiers of a vendor |
| ``model_name`` | 1 to 256 of ``A-Z a-z 0-9 . _ : / @ + -`` | the model that a vendor says it used |
"""

from __future__ import annotations

import re
from typing import Any

# Prefixes of the API keys and tokens of well-known services, with enough characters after them.
KEY_LIKE = re.compile(
    r"\b(?:(?:sk|lsk|pk|rk|hf|gsk|xai|ghp|gho|xox[abp])[-_][\w*.-]{4,}|(?:eyJ|AKIA|AIza)[\w*.-]{12,})"
)

_LOGGABLE = re.compile(r"[A-Za-z0-9._:/@+-]{1,128}\Z")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}\Z")
_FIELD_PATH = re.compile(r"[A-Za-z0-9_.\[\]-]{1,128}\Z")
_MODEL_NAME = re.compile(r"[A-Za-z0-9_.:/@+\-]{1,256}\Z")


def loggable(text: object) -> str | None:
    """``text`` if it looks like an identifier (a model, a request id, an error code) and not like an API key."""
    if not isinstance(text, str) or not _LOGGABLE.match(text) or KEY_LIKE.search(text):
        return None
    return text


def request_id(text: str) -> str | None:
    """``text`` if it may be the id of a request."""
    return text if _REQUEST_ID.match(text) else None


def field_name(name: str) -> str:
    """``name`` if it looks like the name of a field, else "(unnamed)"."""
    return name if _NAME.match(name) else "(unnamed)"


def field_path(path: str | None) -> str | None:
    """``path`` if it looks like the path of a field, such as ``messages[2].content``."""
    return path if path and _FIELD_PATH.match(path) else None


def vendor_code(value: Any) -> str | None:
    """``value`` if it is a short word such as ``rate_limit_error``."""
    return value if isinstance(value, str) and _NAME.match(value) else None


def model_name(value: Any) -> str:
    """``value`` if it looks like the name of a model, else ""."""
    return value if isinstance(value, str) and _MODEL_NAME.match(value) else ""
