"""Turns that say nothing: vendors reject them, or a part of them, when they stand in the history.

A client keeps what it got, and an answer may be empty: cut before its first word, refused without a word, or only
thoughts. Leaving such a turn out loses nothing. A turn of the user that says nothing is another matter: the model would
answer something else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llm_service.core.content import Message, Part, RedactedThinking, Refusal, Text, Thinking
from llm_service.core.conversation import Conversation
from llm_service.formats import validation


def fit(conversation: Conversation, drop: Callable[[str], None], *, blanks: bool = True) -> Conversation:
    """The conversation without turns that say nothing. ``drop`` gets the name of the thoughts that are left out.

    ``blanks``: whether the target takes text that is empty or white space alone. If not, such text is left out too.
    Raises UnsupportedParameter naming a turn of the user that says nothing to such a target, and the first turn if no
    turn is left.
    """
    system = tuple(part for part in conversation.system if blanks or _says(part))
    kept: list[Message] = []
    for message in conversation.messages:
        if not (message.role == "assistant" and _is_silent(message.parts, drop, blanks)):
            turn = message if blanks else _without_blanks(message)
            kept += [turn] if turn is not None else []
    # Nothing is to be continued there.
    while kept and kept[-1].role == "assistant" and _is_silent(kept[-1].parts, drop, blanks=False):
        kept.pop()
    if not kept and not system and conversation.messages:
        validation.unsupported(conversation.messages[0].path_of(), "no message says anything to the model")
    if len(system) == len(conversation.system) and tuple(kept) == conversation.messages:
        return conversation
    return replace(conversation, system=system, messages=tuple(kept))


def _is_silent(parts: tuple[Part, ...], drop: Callable[[str], None], blanks: bool) -> bool:
    """Whether a turn of the assistant says nothing. Vendors reject thoughts that nothing follows."""
    said = [part for part in parts if _says(part) or (blanks and isinstance(part, Text | Refusal))]
    if all(isinstance(part, Thinking | RedactedThinking) for part in said):
        if said:
            drop("thoughts")
        return True
    return False


def _without_blanks(message: Message) -> Message | None:
    """``message`` without texts of white space; None if a message of the system is nothing else."""
    said = [index for index, part in enumerate(message.parts) if _says(part)]
    if len(said) == len(message.parts):
        return message
    if not said and message.role == "system":
        return None
    if not said:
        validation.unsupported(message.path_of(), "it is only white space, which the model rejects: write some text")
    paths = tuple(message.path_of(index) for index in said)
    return replace(message, parts=tuple(message.parts[index] for index in said), paths=paths)


def _says(part: Part) -> bool:
    return bool(part.text.strip()) if type(part) is Text or type(part) is Refusal else True
