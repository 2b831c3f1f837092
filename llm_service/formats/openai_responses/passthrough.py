"""OpenAI Responses, the upstream's streams: what is learnt of one, and one relayed as it is.

A stream is whole only with ``response.completed`` or ``response.incomplete``. A
``response.failed`` and an ``error`` end it as well, but not as an answer. Events
of unknown types are borne anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_service.core.call import Call
from llm_service.core.errors import UpstreamError
from llm_service.core.events import Answer, Event, Finished, Relay, Started
from llm_service.core.identifiers import model_name
from llm_service.formats import decoding as upstream
from llm_service.formats import sse
from llm_service.formats.decoding import broken
from llm_service.formats.openai_responses.decode_answer import (
    characters_of,
    check_answer,
    in_band,
    stop_reason,
    usage_of,
)
from llm_service.formats.openai_responses.schema import KEEP_ALIVE

_ENDS = ("response.completed", "response.incomplete")
_FAILURES = ("response.failed", "response.cancelled", "error")


class Stream(upstream.Stream):
    """What ``Reader`` and ``Passthrough`` both learn from the events of one stream."""

    __slots__ = ("_begun", "_call", "_characters", "_model", "_response", "finished")

    def __init__(self, call: Call | None = None) -> None:
        self._call = call
        self._begun = False
        self._characters = 0
        self._model = ""
        self._response: Mapping[str, Any] = {}  # the answer's last and whole account of itself
        self.finished = False

    def _follow(self, event: dict[str, Any]) -> str:
        """Take note of ``event``; its type."""
        kind = event.get("type")
        if type(kind) is not str:
            if event.get("error"):  # some servers' way of failing
                raise in_band(event)
            broken("an event has no type")
        delta = event.get("delta")
        if type(delta) is str:
            if not self._begun:
                broken("a delta came before response.created")
            self._characters += len(delta)
        elif kind in _FAILURES:
            raise in_band(event)
        elif kind in _ENDS or kind == "response.created":
            self._note(kind, event.get("response"))
        return kind

    def _note(self, kind: str, response: Any) -> None:
        if type(response) is not dict or self._begun is (kind == "response.created"):
            broken("response.created is not the one first event")
        self._begun = True
        self._model = model_name(response.get("model")) or self._model
        if kind in _ENDS:
            check_answer(response)
            self._response = response
            self.finished = True

    def _answer(self) -> Answer:
        characters = max(self._characters, characters_of(self._response.get("output")))
        return Answer(
            usage=usage_of(self._response, self._call, characters),
            stop_reason=stop_reason(self._response),
            model=self._model,
        )


class Passthrough(Stream):
    """A stream that is relayed as it is. Its terminal event is held back as the tail of ``Finished``, to be priced."""

    __slots__ = ("_held", "_told")

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._held: list[bytes] = []  # frames not yet relayed
        self._told = 0  # characters already relayed

    def feed_many(self, blocks: Iterable[bytes]) -> Iterator[Event]:
        if self.finished:
            return
        begun, failure, tail = self._begun, None, b""
        try:
            for block in blocks:
                _, data = sse.parse(block)
                if not data:
                    # Only comments are safe to relay: an event without data breaks the OpenAI SDK.
                    if self._begun:
                        self._held.append(KEEP_ALIVE)
                    continue
                if data.startswith(b"[DONE]"):  # of other servers, behind the terminal event
                    broken("it ended without its terminal event")
                self._follow(upstream.parse_json(data))
                if self.finished:
                    tail = block
                    break
                self._held.append(block)
        except UpstreamError as error:
            failure = error
        if self._begun and not begun:
            yield Started(model=self._model, verbatim=True)
        if self._begun and self._held:
            data, characters = b"".join(self._held), self._characters - self._told
            self._held.clear()
            self._told = self._characters
            yield Relay(data, characters)
        if failure is not None:
            raise failure
        if tail:
            yield Finished(self._answer(), tail)
