"""Anthropic Messages, the upstream's side: requests, answers and streams that travel verbatim."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_service.core import identifiers
from llm_service.core.call import Call
from llm_service.core.errors import UpstreamError
from llm_service.core.events import Answer, Event, Finished, Relay
from llm_service.core.target import Target
from llm_service.formats import decoding, sse, storage
from llm_service.formats.anthropic_messages import history
from llm_service.formats.anthropic_messages.decode_answer import STOP_REASONS, characters_in, content_of, read_usage
from llm_service.formats.anthropic_messages.decode_stream import Stream
from llm_service.formats.anthropic_messages.schema import KEEP_ALIVE


def forward(call: Call, target: Target) -> dict[str, Any]:
    """The client's own body, for the model of ``target``, without what the server rejects in earlier answers.

    Raises UnsupportedParameter for storage that is not allowed.
    """
    storage.check(call, target.provider, storage.NEEDING_ANTHROPIC)
    turns, left_out = history.forwarded(call.body, to_anthropic=not target.provider.own_address)
    body = {name: value for name, value in call.body.items() if name not in left_out}
    return {**body, "model": target.model, "messages": turns}


def left_out(call: Call, *, to_anthropic: bool = True) -> tuple[str, ...]:
    """The names of the fields that ``forward`` leaves out."""
    return history.forwarded(call.body, to_anthropic=to_anthropic)[1]


def read_verbatim(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer that the client gets verbatim. Raises UpstreamBroken if ``body`` is not an answer."""
    content_of(body)
    return Answer(
        usage=read_usage(body.get("usage"), characters_in(body), call),
        stop_reason=STOP_REASONS.get(str(body.get("stop_reason")), "other"),
        model=identifiers.model_name(body.get("model")),
        body=body,
    )


class Passthrough(Stream):
    """A stream that is relayed byte for byte.

    The block of ``message_stop`` is held back: it becomes the tail of ``Finished``.
    """

    __slots__ = ("_alike", "_relayed_characters", "_waiting")

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._alike = sse.Alike()
        self._waiting: list[bytes] = []  # blocks that are not relayed yet
        self._relayed_characters = 0

    def feed_many(self, blocks: Iterable[bytes]) -> Iterator[Event]:
        if self.finished:
            return
        begun, failure, tail = self._begun, None, b""
        try:
            for block in blocks:
                if self._open and (length := self._alike.length(block)):
                    self._characters += length
                    self._waiting.append(block)
                    continue
                _, data = sse.parse(block)
                if not data:
                    if self._begun:
                        self._waiting.append(KEEP_ALIVE)
                elif self._note_block(block, data) == "message_stop":
                    tail = block
                    break
                else:
                    self._waiting.append(block)
        except UpstreamError as error:
            failure = error
        if self._begun and not begun:
            yield self._started(verbatim=True)
        if self._begun and self._waiting:
            data, characters = b"".join(self._waiting), self._characters - self._relayed_characters
            self._waiting.clear()
            self._relayed_characters = self._characters
            yield Relay(data, characters)
        if failure is not None:
            raise failure
        if tail:
            yield Finished(self._answer(), tail)

    def _note_block(self, block: bytes, data: bytes) -> str:
        event = decoding.parse_json(data)
        kind = self._note_event(event)
        if kind == "content_block_delta" and type(text := event["delta"].get("text")) is str:
            self._alike.learn(block, text)
        return kind
