"""Checks an answer that should be JSON before the caller gets it. It is off unless the request or its key asks for it.

| ``Call.json_answers`` | the answer is not JSON | the answer violates the schema |
|---|---|---|
| ``off`` | it passes | it passes |
| ``check`` | ``InvalidJsonAnswer`` | ``InvalidJsonAnswer`` |
| ``repair`` | it is repaired if that is possible, else ``InvalidJsonAnswer`` | ``InvalidJsonAnswer`` |
| ``retry`` | as ``repair``, else the model is asked once more | the model is shown its error and asked once more |

The reply's header ``X-JSON-Answer`` always says what was done: ``valid``, ``repaired``, ``retried``,
``retried, repaired`` or ``unchecked``. The last one is for an answer that cannot be checked (it was cut, it refuses, it
calls a tool, it has several choices), that is too long, or whose check took too long.

The answer is held back until it is checked. So the text of a stream then comes in one piece. An answer that was not
changed passes byte for byte. An answer that was changed is written again, like an answer of another vendor. The caller
pays for both attempts: their usage and cost are added.
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
    TargetRefused,
    characters_in,
)
from llm_service.formats import registry
from llm_service.json_answers import answer_text
from llm_service.json_answers.validator_pool import VALIDATORS, Undecided

HEADER = "X-JSON-Answer"
MAX_TEXT = 256 * 1024
MAX_SCHEMA = 64 * 1024

_NOTE = (
    "Your last answer could not be used. {error}\n"
    "Answer again with the whole corrected JSON and nothing else: no prose before or after it, no code fences."
)


def checked(call: Call, ask: Callable[[Call, Cancel], Iterator[Event]], cancel: Cancel) -> Iterator[Event]:
    """``ask(call, cancel)``, with its JSON checked as ``call`` asks for it.

    Raises:
        InvalidRequest: before the vendor is asked, because no answer can be checked with the schema.
        InvalidJsonAnswer: from the iterator, when the answer is wrong in the end.
    """
    if call.json_answers == "off" or call.kind != "generate":
        return ask(call, cancel)
    wanted = registry.format_of(call).json_format(call.body)
    return ask(call, cancel) if wanted is None else _checked(call, ask, cancel, _schema(wanted))


def _checked(
    call: Call, ask: Callable[[Call, Cancel], Iterator[Event]], cancel: Cancel, schema: str | None
) -> Iterator[Event]:
    repair = call.json_answers != "check"
    held = yield from _hold(ask(call, cancel))
    answer = _check(call, held, schema, repair)
    if answer.wrong is not None and call.json_answers == "retry":
        first = _end(held)
        yield DiscardedAnswer(first.usage, first.cost_nanousd)
        following = answer_text.again(call, answer.text, _NOTE.format(error=answer.wrong["error"]))
        held = yield from _hold(ask(following, cancel))
        answer = _check(call, held, schema, repair)
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
class _Checked:
    """An answer's events as the caller gets them, the value of the header, and what is wrong with it.

    ``opened`` are the events in a form whose usage can be changed.
    """

    events: list[Event]
    word: str
    opened: list[Event] | None = None
    text: str = ""
    wrong: dict[str, Any] | None = None

    def after(self, first: Answer) -> _Checked:
        """The answer with the usage and the cost of the first attempt added."""
        events = list(self.opened or self.events)
        finished = cast(Finished, events[-1])
        answer = finished.answer
        both = DiscardedAnswer(first.usage, first.cost_nanousd).plus(answer.usage, answer.cost_nanousd)
        answer = replace(answer, usage=both.usage, cost_nanousd=both.cost_nanousd)
        events[-1] = replace(finished, answer=answer)
        return replace(self, events=events, word="retried" if self.word == "valid" else f"retried, {self.word}")


def _hold(events: Iterator[Event]) -> Generator[Event, None, list[Event]]:
    """Collect the answer's events. Only events without content pass at once: they keep the connection alive."""
    held: list[Event] = []
    for event in events:
        if type(event) is Attempt or type(event) is TargetRefused or event is IDLE:
            yield event
        else:
            held.append(event)
            if characters := characters_in(event):
                yield HeldBack(characters)  # a client that disconnects now pays for it
    return held


def _end(events: list[Event]) -> Answer:
    return cast(Finished, events[-1]).answer


def _check(call: Call, held: list[Event], schema: str | None, repair: bool) -> _Checked:
    opened = answer_text.opened(call, held)
    text = answer_text.text_of(opened) if opened is not None else None
    if opened is None or text is None or len(text) > MAX_TEXT:
        return _Checked(held, "unchecked", opened)
    try:
        verdict = VALIDATORS.validate(text, schema, repair=repair)
    except Undecided:
        # The check of JSON took too long, or the repair of something else, and that is known to be wrong.
        if _is_json(text):
            return _Checked(held, "unchecked", opened)
        verdict = {"verdict": "wrong", "path": "$", "rule": "syntax", "error": "It is not valid JSON."}
    match verdict["verdict"]:
        case "valid":
            return _Checked(held, "valid", opened, text)
        case "repaired":
            repaired = answer_text.with_text(opened, verdict["text"])
            return _Checked(repaired, "repaired", repaired, verdict["text"])
    return _Checked(held, "unchecked", opened, text, wrong=verdict)


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _labelled(answer: _Checked) -> Iterator[Event]:
    """The answer's events, with the header in the event from which the edge takes the headers."""
    header = {HEADER: answer.word}
    for event in answer.events:
        if type(event) is Started:
            yield replace(event, headers={**event.headers, **header})
        elif type(event) is Finished:
            yield replace(event, answer=replace(event.answer, headers={**event.answer.headers, **header}))
        else:
            yield event


def _schema(wanted: JsonFormat) -> str | None:
    """The schema as JSON text, None for any object.

    Raises InvalidRequest for an unusable schema, and Unavailable if no validator process can be had.
    """
    if wanted.schema is None:
        return None
    schema = orjson.dumps(wanted.schema).decode()
    if len(schema) > MAX_SCHEMA:
        raise InvalidRequest(
            f"{wanted.path} is longer than {MAX_SCHEMA} bytes, the maximum with {HEADER}.", param=wanted.path
        )
    try:
        unusable = VALIDATORS.examine(schema)
    except Undecided as error:
        if not error.started:
            raise Unavailable("JSON answers cannot be checked right now.", retry_after=5) from None
        unusable = "takes too long to check"
    if unusable is not None:
        raise InvalidRequest(f"{wanted.path} {unusable}.", param=wanted.path)
    return schema
