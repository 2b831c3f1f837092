"""A plain answer from the events of a stream: some servers stream though they were not asked to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from llm_service.core.content import Part, RedactedThinking, Refusal, Text, Thinking, TokenLogprob, ToolCall
from llm_service.core.events import (
    Answer,
    Choice,
    Delta,
    Event,
    Finished,
    RefusalDelta,
    ThinkingDelta,
    ThinkingEnd,
    ToolCallDelta,
    ToolCallStart,
)


class _Parts:
    """The parts of one choice. Pieces of the same kind that follow each other are one part."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.logprobs: tuple[TokenLogprob, ...] = ()
        self._thinks = False  # whether the last part is a thought that may go on

    def _extend(self, kind: type[Text | Refusal | Thinking], text: str) -> None:
        last = self.parts[-1] if self.parts else None
        if isinstance(last, kind) and (kind is not Thinking or self._thinks):
            self.parts[-1] = replace(last, text=last.text + text)
        else:
            self.parts.append(kind(text))
        self._thinks = kind is Thinking

    def add(self, event: Event) -> None:
        match event:
            case Delta(text):
                if text:
                    self._extend(Text, text)
                self.logprobs += event.logprobs
            case RefusalDelta(text):
                self._extend(Refusal, text)
            case ThinkingDelta(text):
                self._extend(Thinking, text)
            case ThinkingEnd(signature, vendor):
                self._extend(Thinking, "")
                self.parts[-1] = replace(self.parts[-1], signature=signature, vendor=vendor)  # type: ignore[arg-type]
                self._thinks = False
            case RedactedThinking():
                self.parts.append(event)
            case ToolCallStart(_, id, name):
                self.parts.append(ToolCall(id, name, ""))
            case ToolCallDelta(_, arguments) if type(call := self.parts[-1]) is ToolCall:
                self.parts[-1] = replace(call, arguments=call.arguments + arguments)


def of_events(events: Iterable[Event]) -> Answer:
    """The answer of a stream's ``events``, the last of which is ``Finished``."""
    choices: dict[int, _Parts] = {0: _Parts()}
    for event in events:
        if type(event) is Finished:
            return _filled(event.answer, choices)
        choices.setdefault(getattr(event, "choice", 0), _Parts()).add(event)
    raise AssertionError("a stream ends with Finished")


def _filled(answer: Answer, choices: dict[int, _Parts]) -> Answer:
    def filled(value: Any, index: int) -> Any:
        known = choices.get(index) or _Parts()
        return replace(value, parts=tuple(known.parts), logprobs=known.logprobs)

    whole: Answer = filled(answer, 0)
    several: tuple[Choice, ...] = tuple(filled(choice, choice.index) for choice in answer.choices)
    return replace(whole, choices=several)
