"""OpenAI Chat Completions, the upstream's side: the text in a delta of a stream or in the message of a plain answer.

OpenAI sends text as a string. Mistral sends thoughts as parts of the content, other servers as fields of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

import orjson

from llm_service.core.content import Refusal, Text, Thinking
from llm_service.formats.decoding import broken

Piece: TypeAlias = Text | Thinking | Refusal
# The fields of thoughts. Servers that send more than one of them send the same text in each.
THOUGHTS: Final = ("reasoning_content", "reasoning", "thinking")


def pieces_of(given: Mapping[str, Any]) -> Iterator[Piece]:
    """The thoughts, the text and the refusal of a delta or a message. Raises UpstreamBroken for other content."""
    for name in THOUGHTS:
        if (thought := given.get(name)) and (text := _inner_text(thought)):
            yield Thinking(text)
            break
    content, refusal = given.get("content"), given.get("refusal")
    if type(content) is str:
        if content:
            yield Text(content)
    elif content:
        yield from _parts(content)
    if refusal:
        if type(refusal) is not str:
            broken("a refusal is not a string")
        yield Refusal(refusal)


def _parts(content: Any) -> Iterator[Piece]:
    if type(content) is not list:
        broken("its content is neither text nor a list of parts")
    for part in content:
        match part:
            case str(text) | {"type": "text" | "output_text", "text": str(text)}:
                piece: Piece = Text(text)
            case {"type": "thinking" | "reasoning"}:
                piece = Thinking(_inner_text(part.get("thinking") or part.get("reasoning") or part.get("text")))
            case {"type": "refusal", "refusal": str(text)}:
                piece = Refusal(text)
            case {"type": "reference"}:  # Mistral's citations
                continue
            case _:
                broken("its content has a part that is not text")
        if piece.text:
            yield piece


def _inner_text(given: Any) -> str:
    """The text of thoughts, which are a string or parts. What is neither is no text."""
    if type(given) is str:
        return given
    items = given if type(given) is list else ()
    texts = (item.get("text") if type(item) is dict else item for item in items)
    return "".join(text for text in texts if type(text) is str)


def characters_of(delta: Mapping[str, Any]) -> int:
    """The number of characters of all text in a delta or a message of any shape, for an estimate of its tokens."""
    total = thoughts = 0
    for name, value in delta.items():
        if not value or name == "role":
            continue
        if name in ("content", "refusal"):
            total += _length(value)
        elif name in THOUGHTS:
            thoughts = max(thoughts, _length(value))
        elif name == "tool_calls" and type(value) is list:
            for call in value:
                if type(call) is dict and type(function := call.get("function")) is dict:
                    total += len(arguments_text(function.get("arguments")))
        elif name == "function_call" and type(value) is dict:
            total += len(arguments_text(value.get("arguments")))
    return total + thoughts


def arguments_text(given: Any) -> str:
    """A tool call's arguments, which some servers send as an object. Other values are no text."""
    if type(given) is str:
        return given
    return orjson.dumps(given).decode() if given and type(given) is dict else ""


def _length(given: Any) -> int:
    if type(given) is str:
        return len(given)
    if type(given) is list:
        return sum(_length(item) for item in given)
    if type(given) is dict:
        return sum(_length(given.get(name)) for name in ("text", "thinking", "reasoning", "refusal"))
    return 0
