"""Request bodies as JSON, read so that the vendor gets exactly what the client sent.

orjson is stricter than the standard library (NaN). Half of a character, which it does not read, becomes U+FFFD. It
accepts three things that would change when the body is written again: a name that is given twice (the last one wins),
an integer of more than 64 bits (it becomes a float) and nesting that is deeper than orjson can write. Each is rejected
here, and the error names its position in bytes. No error quotes a word of the body.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from llm_service.core.errors import InvalidRequest

# orjson reads 1,024 levels and writes 254. The difference to 254 is for translations, which may nest a value deeper.
MAX_DEPTH = 200
_SPARE_DEPTH = 254 - MAX_DEPTH
# Parsing cannot be interrupted, and all other calls of the worker wait for it: each of these limits is about a third of
# a second. No conversation comes near them. Brackets inside text count too, so the number can only be too high.
_MAX_CONTAINERS = 500_000
_MAX_TOKENS = 1_000_000

_ZEROS = bytes(ord("0") if ord("0") <= byte <= ord("9") else byte for byte in range(256))
# Fewer digits always fit: 9,223,372,036,854,775,808 is the first negative number that does not.
_SUSPICIOUS_DIGITS = b"0" * 19
# Any escape of a string; ``half`` matches a surrogate without its other half.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:]|-?[0-9][0-9.eE+-]*', re.DOTALL)


def load_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in ``raw``.

    Raises InvalidRequest, naming the position, for anything that is not one JSON
    object in UTF-8 or that cannot be written again unchanged.
    """
    if len(raw) > 2 * _MAX_CONTAINERS and raw.count(b"{") + raw.count(b"[") > _MAX_CONTAINERS:
        raise _too_many_values()
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raw, damaged = _without_halves(raw), raw
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise InvalidRequest(_syntax(damaged, error)) from None
    if not isinstance(body, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    if not _survives(raw, body):
        _find_loss(raw)
    return body


def _without_halves(raw: bytes) -> bytes:
    """``raw`` with U+FFFD for each escaped half of a character (a surrogate) that stands alone.

    A server cuts its answer between two halves, and its client sends it back as it is.
    """
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape.lastgroup else escape.group(), raw)


def _too_many_values() -> InvalidRequest:
    return InvalidRequest("The request body has too many values.")


def _syntax(raw: bytes, error: orjson.JSONDecodeError) -> str:
    if not raw.strip():
        return "The request body is empty; it must be a JSON object."
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as invalid:
        return f"The request body is not valid UTF-8 at byte {invalid.start}."
    # orjson's messages are constants: they name the rule, not the text.
    return f"The request body is not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}."


def _survives(raw: bytes, body: dict[str, Any]) -> bool:
    """Whether ``body`` written again is the same as ``raw``; False means that there may be a difference.

    SDKs send compact JSON, which is the same byte for byte when it is written again (0.1 ms for 1 MB). For other JSON
    this looks for two signs of a difference (4 ms for 1 MB).
    """
    nested: Any = body
    for _ in range(_SPARE_DEPTH):
        nested = [nested]
    try:
        written = orjson.dumps(nested)[_SPARE_DEPTH:-_SPARE_DEPTH]
    except TypeError:  # nested too deep to write
        return False
    if written == raw:
        return True
    return _strings(written) == _strings(raw) and _SUSPICIOUS_DIGITS not in raw.translate(_ZEROS)


def _strings(text: bytes) -> int:
    """Twice the number of strings in a JSON text: a name given twice is read as one."""
    if b"\\" not in text:
        return text.count(b'"')
    text = text.replace(b"\\\\", b"")
    return text.count(b'"') - text.count(b'\\"')


def _find_loss(raw: bytes) -> None:
    """Raise InvalidRequest for the first name given twice, integer beyond 64 bits or level too deep."""
    names: list[set[str]] = []
    text = b""
    for number, token in enumerate(_TOKEN.finditer(raw)):
        if number > _MAX_TOKENS:
            raise _too_many_values()
        match token.group()[:1]:
            case b'"':
                text = token.group()
            case b":":
                name = orjson.loads(text)
                if name in names[-1]:
                    raise InvalidRequest(f"The request body gives a field twice, before byte {token.start()}.")
                names[-1].add(name)
            case b"{" | b"[":
                names.append(set())
                if len(names) > MAX_DEPTH:
                    raise InvalidRequest(
                        f"The request body is nested more than {MAX_DEPTH} levels deep at byte {token.start()}."
                    )
            case b"}" | b"]":
                names.pop()
            case _:
                if not _exact(token.group()):
                    raise InvalidRequest(
                        f"The request body has an integer of more than 64 bits at byte {token.start()}."
                    )


def _exact(number: bytes) -> bool:
    if not number.removeprefix(b"-").isdigit():
        return True  # a fraction: a double, here as everywhere
    return len(number) <= 20 and -(2**63) <= int(number) < 2**64
