"""A model that repeats the last user message. Deterministic, no network; for trying out and for tests.

It counts honestly by its own rule: one token per word (a run of non-space
characters), in and out. It obeys ``max_tokens`` and ``stop`` and streams word by
word with a delay between two words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.content import Text
from llm_service.core.conversation import Conversation
from llm_service.core.events import IDLE, Answer, Attempt, Delta, Event, Finished, Started, StopReason
from llm_service.core.target import Provider, Target
from llm_service.core.usage import Usage
from llm_service.formats import registry
from llm_service.formats.encoding import RequestWriter
from llm_service.formats.rules import FieldRule, drop_unless
from llm_service.formats.small import embeddings
from llm_service.providers import echo_vectors as vectors

# The hints of all formats are dropped and named. All other fields that not every format knows are rejected.
_EXTRA_RULES: Mapping[str, FieldRule] = dict.fromkeys(
    (
        "diagnostics",
        "max_tool_calls",
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "seed",
        "speed",
        "store",
        "verbosity",
    ),
    drop_unless(),
)
_WORD = re.compile(r"\s*\S+\s*?(?=\s|$)")


def connect(row: Provider, *, tick: float, echo_delay: float, gather: float = 0.0) -> Echo:
    return Echo(tick, echo_delay)


class Echo:
    def __init__(self, tick: float, delay: float) -> None:
        self._tick, self._delay = tick, delay

    def events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        if call.kind == "embed":
            return self._embed(call, target)
        if call.kind == "count":
            return self._tell_count(call, target)
        return self._answer(call, target, cancel)

    def _tell_count(self, call: Call, target: Target) -> Iterator[Event]:
        count = _count(registry.format_of(call).read_request(call.body, call.headers))
        yield Attempt(target.provider.name, target.model, target.price)
        yield Finished(Answer(usage=Usage(), model=target.model, body={"input_tokens": count}))

    def _embed(self, call: Call, target: Target) -> Iterator[Event]:
        yield Attempt(target.provider.name, target.model, target.price)
        yield Finished(embeddings.read_verbatim(vectors.reply(call.body, target.model), call))

    def _answer(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        conversation = registry.format_of(call).read_request(call.body, call.headers)
        writer = RequestWriter(call, conversation, target)
        writer.write_extras(_EXTRA_RULES, {})
        dropped = (*conversation.dropped, *writer.dropped)
        words, stop_reason, stop_sequence = _reply(conversation)
        usage = Usage(input_tokens=_count(conversation), output_tokens=len(words))
        yield Attempt(target.provider.name, target.model, target.price)
        if call.stream:
            yield Started(model=target.model, usage=Usage(usage.input_tokens), dropped=dropped)
            for number, word in enumerate(words):
                if number:
                    yield from self._pause(cancel)
                yield Delta(word)
        text = "".join(words)
        yield Finished(
            Answer(
                usage=usage,
                stop_reason=stop_reason,
                stop_sequence=stop_sequence,
                parts=(Text(text),) if text else (),
                model=target.model,
                dropped=dropped,
            )
        )

    def _pause(self, cancel: Cancel) -> Iterator[Event]:
        left = self._delay
        while left > self._tick:
            cancel.sleep(self._tick)
            left -= self._tick
            yield IDLE
        cancel.sleep(left)


def _reply(conversation: Conversation) -> tuple[list[str], StopReason, str | None]:
    said = [message.text for message in conversation.messages if message.role == "user"]
    text = said[-1] if said else ""
    stop_reason: StopReason = "end_turn"
    stop_sequence = None
    hits = [(text.index(stop), stop) for stop in conversation.stop if stop and stop in text]
    if hits:
        end, stop_sequence = min(hits)
        text, stop_reason = text[:end], "stop_sequence"
    words = _WORD.findall(text)
    limit = conversation.max_tokens
    if limit is not None and len(words) > limit:
        words, stop_reason, stop_sequence = words[:limit], "max_tokens", None
    return words, stop_reason, stop_sequence


def _count(conversation: Conversation) -> int:
    texts = [*(part.text for part in conversation.system), *(message.text for message in conversation.messages)]
    return sum(len(text.split()) for text in texts)
