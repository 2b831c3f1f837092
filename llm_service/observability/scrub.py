"""Removes content from text that goes into a log, a row, a metric or an error body.

In case of doubt, text is removed. Text of a caller or a vendor is kept only if it looks like an identifier, if it is
one of the usual words of error messages, or if it was searched for in the request and not found. Text that cannot be
searched for within a bounded amount of work is removed too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from llm_service.core.identifiers import KEY_LIKE, loggable
from llm_service.observability.scrub_words import VOCABULARY

MASK = "[…]"
MAX_MESSAGE = 500
# The shortest piece of a word that counts as quoted from the request.
_GRAM = 6
# Bounds of the searches in a request, which may have 32 MB: their number, and the bytes read in all (about 0.1 s).
_MAX_LOOKUPS = 600
_MAX_BYTES_READ = 256 * 1024 * 1024


# Always removed, whatever the request contains: addresses of any kind, keys, tokens, and anything that is not ASCII.
# Our sentences and the vendors' are English, so letters of another script are a quotation.
_ALWAYS = re.compile(
    r"[a-z][a-z0-9+.-]*://\S+"
    r"|[\w.+-]+@[\w-]+\.[\w.-]+"
    r"|\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?"
    r"|\b(?:localhost:\d+|[\w-]+:\d{4,5})\b(?:/\S*)?"
    r"|\b(?:[\w-]+\.)+(?:com|net|org|io|ai|dev|app|cloud|local|internal|lan)\b(?::\d+)?(?:/\S*)?"
    r"|\b(?:org|proj|acct)[-_][\w-]{4,}"
    r"|" + KEY_LIKE.pattern + r"|[^\x00-\x7f]+",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"[A-Za-z0-9+/=_-]{24,}")
# Long but not a secret: "claude-sonnet-4-5-20250929".
_MODEL = re.compile(r"(?:claude|gpt|gemini|llama|mistral|qwen|deepseek|text-embedding)(?:-(?:[a-z]{1,12}|[0-9]{1,8}))+")
# "contract_spend_limit_reached" is not a secret either: words without digits and capitals.
_CODE = re.compile(r"[a-z]{1,16}(?:_[a-z]{1,16})+")
_WORD = re.compile(r"\w+")
_PART = re.compile(r"[A-Za-z0-9]+")
_QUOTED = re.compile(r"(?<!\w)(['\"`])(.{2,200}?)\1(?!\w)")
_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_SPACE_ESCAPE = re.compile(r"\\[nrt]")
_TYPOGRAPHY = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "\xa0": " "})
# A long piece of ASCII without spaces at the start of a string is data (base64, a data: URL), not text.
_DATA = re.compile(r"[A-Za-z0-9+/=_:;,.%-]{512}")
_DATA_KEPT = 256

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_MAX_FRAMES = 20


def vendor_message(message: object, content: str) -> str:
    """A vendor's error message without anything that the request said, at most 500 characters long.

    ``content`` is ``request_text`` of the request. ``[…]`` replaces a word that shares six characters with it, and a
    run of three words or a quoted piece that is in it. Whatever the request contains, it also replaces URLs, hosts,
    mail addresses, keys, tokens of 24 characters that are not words, and anything that is not ASCII. Field names and
    the usual words of error messages are kept (``VOCABULARY``), except in a run of five words that the request has.
    """
    if not isinstance(message, str):
        return ""
    text = _flattened(message)
    search = _Search(content)
    spans = [match.span() for match in _ALWAYS.finditer(text)]
    spans += [match.span() for match in _TOKEN.finditer(text) if not _is_harmless(match.group())]
    words = list(_WORD.finditer(text))
    spans += [word.span() for word in words if _quotes(word.group(), search)]
    spans += _runs(text, words, search)
    spans += [
        match.span(2) for match in _QUOTED.finditer(text) if not _is_vocabulary(match[2]) and search.has(match[2])
    ]
    return _masked(text, spans)[:MAX_MESSAGE]


def _flattened(message: str) -> str:
    """One line of printable characters. Escapes are decoded first, because a vendor may quote the JSON it received."""
    text = message[: 2 * MAX_MESSAGE]
    text = _UNICODE_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    text = _SPACE_ESCAPE.sub(" ", text).translate(_TYPOGRAPHY)
    return "".join(char if char.isprintable() else " " for char in text)[:MAX_MESSAGE].strip()


def _is_vocabulary(text: str) -> bool:
    """Whether all words of ``text`` are in the vocabulary. Small numbers are allowed: they are positions and codes."""
    parts = _PART.findall(text)
    return bool(parts) and all(_is_known(part.lower()) for part in parts) and text.isascii()


def _is_harmless(token: str) -> bool:
    return _is_vocabulary(token) or any(shape.fullmatch(token) for shape in (_MODEL, _CODE))


def _is_known(part: str) -> bool:
    if part.isdigit():
        return len(part) < 4
    return part in VOCABULARY or (part.endswith("s") and part[:-1] in VOCABULARY)


def _quotes(word: str, search: _Search) -> bool:
    if not word.isascii():
        return True
    if len(word) < _GRAM or _is_vocabulary(word):
        return False
    # In pieces, because a quotation may be cut at either end or joined to other text.
    return any(search.has(word[at : at + _GRAM]) for at in range(len(word) - _GRAM + 1))


def _runs(text: str, words: list[re.Match[str]], search: _Search) -> Iterator[tuple[int, int]]:
    """Runs of three words that are in the request. Of the vocabulary it takes five: "must be a" proves nothing."""
    known = [_is_vocabulary(word.group()) for word in words]
    for first in range(len(words) - 2):
        last = first + 2 if not all(known[first : first + 3]) else first + 4
        if last < len(words) and (last == first + 2 or all(known[first : last + 1])):
            span = words[first].start(), words[last].end()
            if search.spent:  # neither a run nor a short word can be checked any more
                yield from (words[at].span() for at in range(first, last + 1) if not known[at])
            elif search.has(text[slice(*span)]):
                yield span


def _masked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """``text`` with the spans replaced. Spans with only punctuation between them become one."""
    pieces: list[str] = []
    end = 0
    for start, stop in sorted(spans):
        if stop <= end:
            continue
        gap = text[end:start]
        if not pieces or _WORD.search(gap):
            pieces += [gap, MASK]
        end = stop
    return "".join(pieces) + text[end:]


class _Search:
    """A bounded number of searches in the text of a request. The case of ASCII letters does not matter."""

    def __init__(self, content: str) -> None:
        # As bytes: lower() of 32 MB of str that is not ASCII takes 0.5 s, and only ASCII is searched for.
        spaced = content.encode("utf-8", "surrogatepass").translate(_SPACED)
        self._content = spaced.lower()
        self._left = min(_MAX_LOOKUPS, _MAX_BYTES_READ // (len(spaced) + 1))
        self._known: dict[str, bool] = {}

    @property
    def spent(self) -> bool:
        return self._left <= 0

    def has(self, text: str) -> bool:
        """Whether the request contains ``text``. True if no search is left: text that was not checked is removed."""
        if text not in self._known:
            if self.spent:
                return True
            self._left -= 1
            self._known[text] = text.lower().encode() in self._content
        return self._known[text]


_SPACED = bytes(max(byte, 32) for byte in range(256))


def request_text(body: object) -> str:
    """The text of a JSON request body: its string values and the object keys below the top level.

    The name of the model is left out, and of data such as base64 everything but both ends.
    """
    return "\n".join(
        value
        if len(value) <= 2 * _DATA_KEPT or not _DATA.match(value)
        else f"{value[:_DATA_KEPT]} {value[-_DATA_KEPT:]}"
        for value in _strings(body)
    )


def data_characters(body: object) -> int:
    """The number of characters in a JSON request body that are data (base64) and not text, for token estimates."""
    return sum(len(value) for value in _strings(body) if len(value) > 2 * _DATA_KEPT and _DATA.match(value))


def _strings(body: object) -> Iterator[str]:
    """All strings of ``body``. There is no recursion, because a body may be nested deeply."""
    waiting: list[Any] = []
    if isinstance(body, dict):
        waiting = [value for name, value in body.items() if name != "model" or loggable(value) is None]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from (name for name in value if isinstance(name, str))
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value


def safe_exception(error: BaseException) -> dict[str, Any]:
    """An exception without its text: ``{"type", "frames", "caused_by"}``.

    ``type`` is the module and the class. ``frames`` are the "file:line function" of our own code only, outermost first.
    ``caused_by`` are the types of the exceptions that caused it. Messages are left out: that of an SDK contains the
    vendor's reply, and that of a database driver the values of the statement.
    """
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename.startswith(_PACKAGE + os.sep):
            path = os.path.relpath(code.co_filename, os.path.dirname(_PACKAGE))
            frames.append(f"{path}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    causes: list[str] = []
    cause = error.__cause__ or error.__context__
    while cause is not None and len(causes) < 5:
        causes.append(_type_name(cause))
        cause = cause.__cause__ or cause.__context__
    return {"type": _type_name(error), "frames": frames[-_MAX_FRAMES:], "caused_by": causes}


def _type_name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"
