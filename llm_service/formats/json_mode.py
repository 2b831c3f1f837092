"""An answer that must be a JSON object, from a vendor that knows only schemas.

The model gets an instruction, and its answer is checked. Prose where a program expects JSON is reported as a failure.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from llm_service.core.conversation import Conversation
from llm_service.core.errors import UpstreamBroken
from llm_service.core.events import Answer, Delta, Event, Finished

INSTRUCTION = "Answer with one valid JSON object and nothing else: no prose before or after it, no code fences."


def asks_for_object(conversation: Conversation) -> bool:
    return conversation.format is not None and conversation.format.schema is None


def check(answer: Answer, text: str | None = None) -> None:
    """Raises UpstreamBroken unless ``text``, or the answer's own, is a JSON object.

    An answer that was cut, that refuses or that calls a tool is not checked: its stop reason says so.
    """
    if answer.stop_reason not in ("end_turn", "stop_sequence", "other", None):
        return
    try:
        is_object = type(orjson.loads(answer.text if text is None else text)) is dict
    except orjson.JSONDecodeError:
        is_object = False
    if not is_object:
        failure = UpstreamBroken("The model was asked for a JSON object and answered with something else.")
        failure.usage = answer.usage
        raise failure


def checked(events: Iterator[Event]) -> Iterator[Event]:
    """``events``, with their text checked before ``Finished``. Raises UpstreamBroken in its place."""
    pieces: list[str] = []
    for event in events:
        if type(event) is Delta:
            pieces.append(event.text)
        elif type(event) is Finished:
            check(event.answer, "".join(pieces))
        yield event
