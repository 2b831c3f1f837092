"""What may stay: in a log, a row, a metric or an error body.

Everything here errs towards removing. A caller's or a vendor's text stays only
where it is shaped like an identifier, is one of the words an API's error
messages are made of, or has been looked for in the request and not found there;
what cannot be looked for within a bounded amount of work is removed as well.
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
# Bounds of the look-ups in a request (it may have 32 MB): how many, and bytes read in all (about 0.1 s).
_MAX_LOOKUPS = 600
_MAX_BYTES_READ = 256 * 1024 * 1024


# Removed whatever the request says: addresses of any kind, keys, tokens, and anything not ASCII (our own and
# the vendors' sentences are English; a long run of letters in another script is a quotation).
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
# Long and yet no secret: "claude-sonnet-4-5-20250929".
_MODEL = re.compile(r"(?:claude|gpt|gemini|llama|mistral|qwen|deepseek|text-embedding)(?:-(?:[a-z]{1,12}|[0-9]{1,8}))+")
# Nor is "contract_spend_limit_reached": words, no digit and no capital.
_CODE = re.compile(r"[a-z]{1,16}(?:_[a-z]{1,16})+")
_WORD = re.compile(r"\w+")
_PART = re.compile(r"[A-Za-z0-9]+")
_QUOTED = re.compile(r"(?<!\w)(['\"`])(.{2,200}?)\1(?!\w)")
_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_SPACE_ESCAPE = re.compile(r"\\[nrt]")
_TYPOGRAPHY = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "\xa0": " "})
# Long unbroken ASCII at the start of a string: data (base64, a data: URL), not text.
_DATA = re.compile(r"[A-Za-z0-9+/=_:;,.%-]{512}")
_DATA_KEPT = 256

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_MAX_FRAMES = 20


def vendor_message(message: object, content: str) -> str:
    """A vendor's error message without anything the request said; at most 500 characters.

    ``content`` is ``request_text`` of the request. Replaced by ``[…]``: a word that shares six characters with
    it, a run of three words or a quoted piece that stands in it; and whatever it says URLs, hosts, mail
    addresses, keys, tokens of 24 characters that are no words, and anything not ASCII. Field names and the usual
    words of error messages stay (``VOCABULARY``), except in a run of five that the request has too.
    """
    if not isinstance(message, str):
        return ""
    text = _flattened(message)
    search = _Search(content)
    spans = [found.span() for found in _ALWAYS.finditer(text)]
    spans += [found.span() for found in _TOKEN.finditer(text) if not _is_harmless(found.group())]
    words = list(_WORD.finditer(text))
    spans += [word.span() for word in words if _quotes(word.group(), search)]
    spans += _runs(text, words, search)
    spans += [
        found.span(2) for found in _QUOTED.finditer(text) if not _is_vocabulary(found[2]) and search.has(found[2])
    ]
    return _masked(text, spans)[:MAX_MESSAGE]


def _flattened(message: str) -> str:
    """One line of printable characters. Escapes are undone first: a vendor may quote the JSON it received."""
    text = message[: 2 * MAX_MESSAGE]
    text = _UNICODE_ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    text = _SPACE_ESCAPE.sub(" ", text).translate(_TYPOGRAPHY)
    return "".join(char if char.isprintable() else " " for char in text)[:MAX_MESSAGE].strip()


def _is_vocabulary(text: str) -> bool:
    """Whether ``text`` has words, and all of them are ours. Small numbers count: they are positions and codes."""
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
    # By pieces, not as a whole: what is quoted may be cut at either end or glued to something else.
    return any(search.has(word[at : at + _GRAM]) for at in range(len(word) - _GRAM + 1))


def _runs(text: str, words: list[re.Match[str]], search: _Search) -> Iterator[tuple[int, int]]:
    """Runs of three words (five of the vocabulary: "must be a" proves nothing) that stand in the request."""
    known = [_is_vocabulary(word.group()) for word in words]
    for first in range(len(words) - 2):
        last = first + 2 if not all(known[first : first + 3]) else first + 4
        if last < len(words) and (last == first + 2 or all(known[first : last + 1])):
            span = words[first].start(), words[last].end()
            if search.spent:  # no run can be cleared any more, nor a short word
                yield from (words[at].span() for at in range(first, last + 1) if not known[at])
            elif search.has(text[slice(*span)]):
                yield span


def _masked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """``text`` with the spans replaced; spans with nothing but punctuation between them become one."""
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
    """Bounded look-ups in a request's text; ASCII letters of either case are the same."""

    def __init__(self, content: str) -> None:
        # Bytes: lowering 32 MB of text that is not ASCII as str takes 0.5 s, and only ASCII is looked for.
        spaced = content.encode("utf-8", "surrogatepass").translate(_SPACED)
        self._content = spaced.lower()
        self._left = min(_MAX_LOOKUPS, _MAX_BYTES_READ // (len(spaced) + 1))
        self._known: dict[str, bool] = {}

    @property
    def spent(self) -> bool:
        return self._left <= 0

    def has(self, text: str) -> bool:
        """Whether the request has ``text``. True when it may no longer look: what is not cleared goes."""
        if text not in self._known:
            if self.spent:
                return True
            self._left -= 1
            self._known[text] = text.lower().encode() in self._content
        return self._known[text]


_SPACED = bytes(max(byte, 32) for byte in range(256))


def request_text(body: object) -> str:
    """The text of a JSON request body: its string values and the object keys below the top level.

    Left out: the model's name, and all but both ends of data such as base64.
    """
    return "\n".join(
        value
        if len(value) <= 2 * _DATA_KEPT or not _DATA.match(value)
        else f"{value[:_DATA_KEPT]} {value[-_DATA_KEPT:]}"
        for value in _strings(body)
    )


def data_characters(body: object) -> int:
    """Characters of a JSON request body that are data (base64) rather than text, for token estimates."""
    return sum(len(value) for value in _strings(body) if len(value) > 2 * _DATA_KEPT and _DATA.match(value))


def _strings(body: object) -> Iterator[str]:
    """Without recursion: a body may be nested deep."""
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

    ``type`` is module and class, ``frames`` the "file:line function" of our own code only, outermost first,
    ``caused_by`` the types of the exceptions behind it. Messages are left out: an SDK's holds the vendor's
    reply, a database driver's the statement's values.
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
