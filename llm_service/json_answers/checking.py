"""An answer that was asked to be JSON, checked before the caller gets it: off unless the request or its key says so.

| ``Call.json_answers`` | what is no JSON | what breaks the schema |
|---|---|---|
| ``off`` | passes | passes |
| ``check`` | ``InvalidJsonAnswer`` | ``InvalidJsonAnswer`` |
| ``repair`` | is mended where that can be done | ``InvalidJsonAnswer`` |
| ``retry`` | as ``repair``, else the model is asked once more | the model is asked once more, shown its error |

Never silently: the reply's header ``X-JSON-Answer`` has ``valid``, ``repaired``,
``retried``, ``retried, repaired`` or ``unchecked``, the last for what is no such
answer (cut, refused, a tool call, several choices), what is too long, and what
could not be judged in time.

The answer is held back until it is judged, also a stream: the text then comes in
one piece. What passes unchanged passes byte for byte; what was changed is written
anew, as an answer of another vendor would be. Both attempts are paid for, and
their usage and cost are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import orjson

from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.content import JsonFormat
from llm_service.core.errors import InvalidJsonAnswer, InvalidRequest, Unavailable
from llm_service.core.events import (
    IDLE,
    Answer,
    Attempt,
    DiscardedAnswer,
    Event,
    Finished,
    HeldBack,
    Started,
    characters_in,
)
from llm_service.formats import registry
from llm_service.json_answers import answer_text
from llm_service.json_answers.validator_pool import VALIDATORS, Undecided

HEADER = "X-JSON-Answer"
LONGEST_TEXT = 256 * 1024
LONGEST_SCHEMA = 64 * 1024

_NOTE = (
    "Your last answer could not be used. {told}\n"
    "Answer again with the whole corrected JSON and nothing else: no prose before or after it, no code fences."
)


def checked(call: Call, ask: Callable[[Call, Cancel], Iterator[Event]], cancel: Cancel) -> Iterator[Event]:
    """``ask(call, cancel)``, its JSON checked as ``call`` wants it.

    Raises, beside what ``ask`` raises, out of the iterator:
        InvalidRequest: before anything was asked; the schema cannot be checked against.
        InvalidJsonAnswer: the answer is wrong and nothing helped.
    """
    if call.json_answers == "off" or call.kind != "generate":
        return ask(call, cancel)
    wanted = registry.format_of(call).json_format(call.body)
    return ask(call, cancel) if wanted is None else _checked(call, ask, cancel, _schema(wanted))


def _checked(
    call: Call, ask: Callable[[Call, Cancel], Iterator[Event]], cancel: Cancel, schema: str | None
) -> Iterator[Event]:
    mend = call.json_answers != "check"
    held = yield from _hold(ask(call, cancel))
    answer = _judge(call, held, schema, mend)
    if answer.wrong is not None and call.json_answers == "retry":
        first = _end(held)
        yield DiscardedAnswer(first.usage, first.cost_nanousd)
        following = answer_text.again(call, answer.text, _NOTE.format(told=answer.wrong["told"]))
        held = yield from _hold(ask(following, cancel))
        answer = _judge(call, held, schema, mend)
        if answer.wrong is None:
            answer = answer.after(first)
    if answer.wrong is not None:
        last = _end(held)
        yield DiscardedAnswer(last.usage, last.cost_nanousd)
        raise InvalidJsonAnswer(
            f"The model's answer is not the JSON that was asked for: {answer.wrong['rule']} at {answer.wrong['path']}."
        )
    yield from _labelled(answer)


@dataclass(frozen=True, slots=True)
class _Judged:
    """An answer's events as the caller is to get them, the word for its header, and what is wrong with it.

    ``opened`` are the events in which a sum of usage can be told.
    """

    events: list[Event]
    word: str
    opened: list[Event] | None = None
    text: str = ""
    wrong: dict[str, Any] | None = None

    def after(self, first: Answer) -> _Judged:
        """With what the attempt before it cost."""
        events = list(self.opened or self.events)
        finished = cast(Finished, events[-1])
        answer = finished.answer
        both = DiscardedAnswer(first.usage, first.cost_nanousd).plus(answer.usage, answer.cost_nanousd)
        answer = replace(answer, usage=both.usage, cost_nanousd=both.cost_nanousd)
        events[-1] = replace(finished, answer=answer)
        return replace(self, events=events, word="retried" if self.word == "valid" else f"retried, {self.word}")


def _hold(events: Iterator[Event]) -> Generator[Event, None, list[Event]]:
    """Everything but what tells that the call goes on; the edge keeps the client's connection alive by the clock."""
    held: list[Event] = []
    for event in events:
        if type(event) is Attempt or event is IDLE:
            yield event
        else:
            held.append(event)
            if characters := characters_in(event):
                yield HeldBack(characters)  # who leaves now pays for it
    return held


def _end(events: list[Event]) -> Answer:
    return cast(Finished, events[-1]).answer


def _judge(call: Call, held: list[Event], schema: str | None, mend: bool) -> _Judged:
    opened = answer_text.opened(call, held)
    text = answer_text.text_of(opened) if opened is not None else None
    if opened is None or text is None or len(text) > LONGEST_TEXT:
        return _Judged(held, "unchecked", opened)
    try:
        verdict = VALIDATORS.judge(text, schema, mend=mend)
    except Undecided:
        # JSON whose check, or no JSON whose mending took too long: of the second the verdict is known.
        if _is_json(text):
            return _Judged(held, "unchecked", opened)
        verdict = {"verdict": "wrong", "path": "$", "rule": "syntax", "told": "It is not valid JSON."}
    match verdict["verdict"]:
        case "valid":
            return _Judged(held, "valid", opened, text)
        case "mended":
            mended = answer_text.with_text(opened, verdict["text"])
            return _Judged(mended, "repaired", mended, verdict["text"])
    return _Judged(held, "unchecked", opened, text, wrong=verdict)


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _labelled(answer: _Judged) -> Iterator[Event]:
    """The answer's events, the word in the headers of the one that the edge takes them from."""
    told = {HEADER: answer.word}
    for event in answer.events:
        if type(event) is Started:
            yield replace(event, headers={**event.headers, **told})
        elif type(event) is Finished:
            yield replace(event, answer=replace(event.answer, headers={**event.answer.headers, **told}))
        else:
            yield event


def _schema(wanted: JsonFormat) -> str | None:
    """The schema as JSON text, None for any object. Raises InvalidRequest, and Unavailable when nobody can tell."""
    if wanted.schema is None:
        return None
    schema = orjson.dumps(wanted.schema).decode()
    if len(schema) > LONGEST_SCHEMA:
        raise InvalidRequest(
            f"{wanted.place} is longer than the {LONGEST_SCHEMA} bytes that {HEADER} takes.", param=wanted.place
        )
    try:
        unusable = VALIDATORS.examine(schema)
    except Undecided as error:
        if not error.begun:
            raise Unavailable("JSON answers cannot be checked right now.", retry_after=5) from None
        unusable = "takes too long to check"
    if unusable is not None:
        raise InvalidRequest(f"{wanted.place} {unusable}.", param=wanted.place)
    return schema
