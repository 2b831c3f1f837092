"""OpenAI Chat Completions, the upstream's side: what every reader of a stream learns from its chunks.

Real servers send chunks that add nothing, usage in any chunk, and errors in several shapes: all of these are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from llm_service.core import identifiers
from llm_service.core.call import Call
from llm_service.core.errors import UpstreamError
from llm_service.core.events import Answer, StopReason
from llm_service.core.usage import Usage
from llm_service.formats import decoding
from llm_service.formats.decoding import broken
from llm_service.formats.openai_chat.decode_answer import choices_asked, read_usage, reported
from llm_service.formats.openai_chat.decode_errors import in_band
from llm_service.formats.openai_chat.decode_pieces import characters_of

# The names of events that only keep a connection alive. Their data need not be JSON.
_HEARTBEATS: Final = frozenset({b"ping", b"heartbeat", b"keep-alive", b"keepalive"})
_NOTHING: Final[Mapping[str, Any]] = {"choices": ()}


class ChunkStream(decoding.Stream):
    """What ``StreamDecoder`` and ``Passthrough`` both read from the chunks of one stream."""

    __slots__ = (
        "_begun",
        "_call",
        "_characters",
        "_counted",
        "_first",
        "_is_strict",
        "_tier",
        "_usage",
        "_whole",
        "finished",
    )

    # The members whose text a reader joins over several chunks (``lenient_json``).
    _JOINED: frozenset[str] = frozenset()

    def __init__(self, call: Call | None = None) -> None:
        self._call = call
        self._begun = False  # whether a chunk came that adds something to the answer
        self._characters = 0
        self._counted = 0  # how many characters had come when the usage was last reported
        self._first: Mapping[str, Any] | None = None  # the first chunk with a choice
        self._is_strict = True  # whether all chunks were JSON that orjson reads
        self._tier: Any = None
        self._usage: dict[str, Any] | None = None
        self._whole = False  # whether the text comes in messages, not in deltas
        self.finished = False

    def _chunk(self, data: bytes, event: bytes | None) -> Mapping[str, Any]:
        """The chunk in ``data``. Its usage and its service tier are kept for the end. Its choices are a list, or ()
        if it has none.

        Raises UpstreamBroken, and an UpstreamError if the chunk is an error.
        """
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            if event in _HEARTBEATS:
                return _NOTHING
            chunk = self._leniently(data)
        if type(chunk) is not dict:
            return _not_a_chunk(chunk, event)
        if chunk.get("error"):
            raise self._failed(chunk)
        choices = chunk.get("choices")
        if type(choices) is not list:
            if chunk.get("object") == "error" or event == b"error":  # vLLM: the chunk itself is the error object
                raise self._failed(chunk)
            if choices is not None:
                broken("its choices are not a list")
            choices = chunk["choices"] = ()
        elif self._first is None and choices:
            self._first = chunk
        usage = chunk.get("usage")
        if usage is not None:
            deltas = [choice.get("delta") for choice in choices if type(choice) is dict]
            coming = sum(characters_of(delta) for delta in deltas if type(delta) is dict)
            self._note_usage(usage, self._characters + coming)
        tier = chunk.get("service_tier")
        if tier is not None:
            self._tier = tier
        return chunk

    def _failed(self, chunk: Mapping[str, Any]) -> UpstreamError:
        self._note_usage(reported(chunk), self._characters)
        return in_band(chunk)

    def reported(self) -> Usage | None:
        return self._read_usage() if decoding.has_counts(self._usage) else None

    def _leniently(self, data: bytes) -> Any:
        self._is_strict = False
        return decoding.parse_leniently(data, self._JOINED)

    def _note_usage(self, usage: Any, characters: int) -> None:
        if type(usage) is dict:
            self._usage = usage if self._usage is None else decoding.merge_counts(self._usage, usage)
            self._counted = characters

    def _note_last_usage(self, chunk: Mapping[str, Any], choice: Mapping[str, Any]) -> None:
        """The usage that some servers put elsewhere into the chunk of a finish_reason: Groq and Moonshot."""
        groq = chunk.get("x_groq")
        for holder in (groq if type(groq) is dict else {}, choice):
            self._note_usage(holder.get("usage"), self._characters)

    def _message_of(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        """What a choice without a delta says. Some servers send a whole message in its place, or leave it out.

        A message after deltas only repeats them.
        """
        if choice.get("delta") is not None:
            broken("a delta is not an object")
        message = choice.get("message")
        if type(message) is not dict or (self._characters and not self._whole):
            return {}
        self._whole = True
        return message

    def _model(self) -> str:
        return identifiers.model_name(self._first.get("model")) if self._first else ""

    def _answer(self, reasons: Mapping[int, StopReason | None], *, marked: bool) -> Answer:
        """The end of the stream. ``marked``: by ``[DONE]``, not only by the end of its body.

        Raises UpstreamBroken unless each of its choices ended.
        """
        if not reasons or None in reasons.values() or (not marked and len(reasons) < choices_asked(self._call)):
            broken("it ended without a finish_reason, or went on after the finish_reason")
        return Answer(
            usage=self._read_usage(),
            stop_reason=reasons.get(0) or next(iter(reasons.values())),
            model=self._model(),
            usage_lost=not marked and self._usage is None,
        )

    def _read_usage(self) -> Usage:
        usage = read_usage(self._usage, self._characters, self._call, self._tier)
        estimate = decoding.estimated_output(self._characters)
        if self._characters > self._counted and usage.output_tokens < estimate:
            return replace(usage, output_tokens=estimate, exact=False, lost=True)  # the count was of an earlier chunk
        return usage


def index_of(choice: Mapping[str, Any]) -> int:
    index = choice.get("index") or 0
    if type(index) is not int:
        broken("the index of a choice is not a number")
    return index


def _not_a_chunk(value: Any, event: bytes | None) -> Mapping[str, Any]:
    if event in _HEARTBEATS or value is None:
        return _NOTHING
    if type(value) is list and value and type(value[0]) is dict and value[0].get("error"):  # Gemini
        raise in_band(value[0])
    broken("an event is not a JSON object")
