"""Anthropic Messages, the upstream's side: requests, answers and streams that travel verbatim."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from llm_service.core import identifiers
from llm_service.core.call import Call
from llm_service.core.errors import UpstreamError
from llm_service.core.events import Answer, Event, Finished, Relay
from llm_service.core.target import Target
from llm_service.formats import decoding, reasoning, sse, storage
from llm_service.formats.anthropic_messages.decode_answer import STOP_REASONS, characters_in, content_of, read_usage
from llm_service.formats.anthropic_messages.decode_stream import Stream
from llm_service.formats.anthropic_messages.schema import KEEP_ALIVE, NAME, THINKING


def forward(call: Call, target: Target) -> dict[str, Any]:
    """The client's own body, for the model of ``target``.

    What Anthropic rejects in earlier answers is left out: the reasoning of another vendor's model, which Anthropic did
    not sign, blank text, reasoning at the end of a turn, and a turn of which nothing is left.

    Raises UnsupportedParameter for storage that is not allowed.
    """
    storage.check(call, target.provider, storage.NEEDING_ANTHROPIC)
    turns = (after for _, after in _forwarded(call.body["messages"], not target.provider.own_address))
    return {**call.body, "model": target.model, "messages": [turn for turn in turns if turn is not None]}


def left_out(call: Call, *, to_anthropic: bool = True) -> tuple[str, ...]:
    """The names of the fields that ``forward`` leaves out."""
    turns = _forwarded(call.body["messages"], to_anthropic)
    fewer = any(_count_thoughts(after) < _count_thoughts(turn) for turn, after in turns if after is not turn)
    return ("messages[].thinking",) if fewer else ()


def _count_thoughts(turn: Mapping[str, Any] | None) -> int:
    content = turn["content"] if turn is not None else ()
    return 0 if isinstance(content, str) else sum(block["type"] in THINKING for block in content)


def _forwarded(
    turns: Sequence[dict[str, Any]], to_anthropic: bool
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Each turn with what is sent of it: itself, a turn with fewer blocks, or None if nothing is left of it.

    Another server that speaks this format may want its unsigned reasoning back.
    """
    for index, turn in enumerate(turns):
        content = turn["content"]
        if turn["role"] != "assistant":
            yield turn, turn
        elif isinstance(content, str):
            yield turn, turn if content.strip() else None
        else:
            # Anthropic reads the next turn as a part of this one if it is the assistant's too.
            ends = index + 1 == len(turns) or turns[index + 1]["role"] != "assistant"
            kept = _kept(content, to_anthropic, ends)
            same = len(kept) == len(content) != 0
            yield turn, turn if same else {**turn, "content": kept} if kept else None


def _kept(content: Iterable[dict[str, Any]], to_anthropic: bool, ends: bool) -> list[dict[str, Any]]:
    kept = [block for block in content if not _is_blank(block) and not _is_foreign(block, to_anthropic)]
    while to_anthropic and ends and kept and kept[-1]["type"] in THINKING:
        kept.pop()
    return kept


def _is_blank(block: Mapping[str, Any]) -> bool:
    return block["type"] == "text" and isinstance(block.get("text"), str) and not block["text"].strip()


def _is_foreign(block: Mapping[str, Any], to_anthropic: bool) -> bool:
    """Whether a block is reasoning that another vendor signed, or that Anthropic would miss its signature of."""
    if block["type"] not in THINKING:
        return False
    signature = block.get("data" if block["type"] == "redacted_thinking" else "signature") or ""
    if not isinstance(signature, str):
        return False  # the vendor says what is wrong with it
    return to_anthropic if not signature else reasoning.unsign(signature)[1] != NAME


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
