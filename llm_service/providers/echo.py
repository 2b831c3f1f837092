"""A model that repeats the last user message, for first steps and for tests. It is deterministic and uses no network.

It counts one token per word (a run of characters without spaces), in the prompt and
in the answer. It obeys ``max_tokens`` and ``stop``, and streams word by word with a
delay between two words.
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
from llm_service.providers import echo_vectors

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


def connect(row: Provider, *, tick: float, echo_delay: float, batch_window: float = 0.0) -> Echo:
    return Echo(tick, echo_delay)


class Echo:
    def __init__(self, tick: float, delay: float) -> None:
        self._tick, self._delay = tick, delay

    def events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        if call.kind == "embed":
            return self._embed(call, target)
        if call.kind == "count":
            return self._count_tokens(call, target)
        return self._answer(call, target, cancel)

    def _count_tokens(self, call: Call, target: Target) -> Iterator[Event]:
        conversation = registry.format_of(call).read_request(call.body, call.headers)
        writer = RequestWriter(call, conversation, target)
        writer.write_extras(_EXTRA_RULES, {})
        dropped = (*conversation.dropped, *writer.dropped)
        count = _prompt_tokens(conversation)
        yield Attempt(target.provider.name, target.model, target.price)
        yield Finished(Answer(usage=Usage(), model=target.model, body={"input_tokens": count}, dropped=dropped))

    def _embed(self, call: Call, target: Target) -> Iterator[Event]:
        yield Attempt(target.provider.name, target.model, target.price)
        yield Finished(embeddings.read_verbatim(echo_vectors.reply(call.body, target.model), call))

    def _answer(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        conversation = registry.format_of(call).read_request(call.body, call.headers)
        writer = RequestWriter(call, conversation, target)
        writer.write_extras(_EXTRA_RULES, {})
        dropped = (*conversation.dropped, *writer.dropped)
        words, stop_reason, stop_sequence = _reply(conversation)
        usage = Usage(input_tokens=_prompt_tokens(conversation), output_tokens=len(words))
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
        remaining = self._delay
        while remaining > self._tick:
            cancel.sleep(self._tick)
            remaining -= self._tick
            yield IDLE
        cancel.sleep(remaining)


def _reply(conversation: Conversation) -> tuple[list[str], StopReason, str | None]:
    """The words of the answer, why it stops, and the stop sequence that stopped it."""
    user_texts = [message.text for message in conversation.messages if message.role == "user"]
    text = user_texts[-1] if user_texts else ""
    stop_reason: StopReason = "end_turn"
    stop_sequence = None
    matches = [(text.index(stop), stop) for stop in conversation.stop if stop and stop in text]
    if matches:
        end, stop_sequence = min(matches)
        text, stop_reason = text[:end], "stop_sequence"
    words = _WORD.findall(text)
    limit = conversation.max_tokens
    if limit is not None and len(words) > limit:
        words, stop_reason, stop_sequence = words[:limit], "max_tokens", None
    return words, stop_reason, stop_sequence


def _prompt_tokens(conversation: Conversation) -> int:
    texts = [*(part.text for part in conversation.system), *(message.text for message in conversation.messages)]
    return sum(len(text.split()) for text in texts)
