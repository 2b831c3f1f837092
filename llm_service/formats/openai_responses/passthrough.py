"""OpenAI Responses, what travels verbatim: the client's body, plain answers and relayed streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_service.core import identifiers
from llm_service.core.call import Call
from llm_service.core.errors import UpstreamError
from llm_service.core.events import Answer, Event, Finished, Relay, Started
from llm_service.core.target import Target
from llm_service.formats import decoding, sse, storage
from llm_service.formats.decoding import broken
from llm_service.formats.openai_responses import decode_answer, history
from llm_service.formats.openai_responses.decode_stream import Stream
from llm_service.formats.openai_responses.schema import ENCRYPTED_REASONING, KEEP_ALIVE


def forward(call: Call, target: Target) -> dict[str, Any]:
    """The client's own body for ``target``. OpenAI keeps nothing of it unless the client asks and may ask for that.

    If this service says so in the client's place, reasoning comes back encrypted: the client expects that it may send
    reasoning back, and OpenAI reads only what it has kept or what is encrypted.

    Raises UnsupportedParameter for storage that is not allowed, and for the result of a call that was not kept.
    """
    storage.check(call, target.provider)
    body = {**call.body, "model": target.model}
    storage.write(body, target.provider)
    if call.body.get("store") is None and body.get("store") is False and target.thinking == "effort":
        include = call.body.get("include") or []
        body["include"] = include if ENCRYPTED_REASONING in include else [*include, ENCRYPTED_REASONING]
    if isinstance(body.get("input"), list):
        body["input"] = history.readable(call, target.provider)
    return body


def read_verbatim(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """A plain answer that the client gets as it is. Raises UpstreamBroken if it is malformed."""
    decode_answer.check_answer(body, may_be_pending=call is not None and bool(call.body.get("background")))
    return Answer(
        usage=decode_answer.usage_of(body, call, decode_answer.count_characters(body["output"])),
        stop_reason=decode_answer.stop_reason(body),
        model=identifiers.model_name(body.get("model")),
        body=body,
    )


class Passthrough(Stream):
    """A stream that is relayed as it is.

    Its terminal event is held back as the tail of ``Finished``, so that the cost can be added to it.
    """

    __slots__ = ("_held", "_relayed")

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._held: list[bytes] = []  # frames that are not relayed yet
        self._relayed = 0  # the characters of the frames that were relayed

    def feed_many(self, blocks: Iterable[bytes]) -> Iterator[Event]:
        if self.finished:
            return
        begun, failure, tail = self._begun, None, b""
        try:
            for block in blocks:
                _, data = sse.parse(block)
                if not data:
                    # Such a block is replaced by a comment: OpenAI's SDK fails at an event without data.
                    if self._begun:
                        self._held.append(KEEP_ALIVE)
                    continue
                if data.startswith(b"[DONE]"):  # other servers send it, but only after the terminal event
                    broken("it ended without its terminal event")
                self._follow(decoding.parse_json(data))
                if self.finished:
                    tail = block
                    break
                self._held.append(block)
        except UpstreamError as error:
            failure = error
        if self._begun and not begun:
            yield Started(model=self._model, verbatim=True)
        if self._begun and self._held:
            data, characters = b"".join(self._held), self._characters - self._relayed
            self._held.clear()
            self._relayed = self._characters
            yield Relay(data, characters)
        if failure is not None:
            raise failure
        if tail:
            yield Finished(self._answer(), tail)
