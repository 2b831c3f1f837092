"""What a step answers to a request, before either vendor puts it into its own format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.upstream.ledger import Bill
from tests.upstream.steps import Step

DEFAULT_TEXT = "The quick brown fox jumps over the lazy dog."

#: One token may stand for this many characters of a prompt. Not what a tokenizer says, but always the same.
CHARACTERS_PER_TOKEN = 4


@dataclass
class Block:
    """``kind``: text, thinking, refusal or tool; ``pieces``: its deltas, one output token each."""

    kind: str
    pieces: list[str]
    name: str = ""

    @property
    def whole(self) -> str:
        return "".join(self.pieces)


@dataclass
class Answer:
    """``stop`` is in Anthropic's words, or a word of nobody's when the step says so."""

    blocks: list[Block]
    stop: str
    stop_sequence: str | None
    bill: Bill
    write_1h_tokens: int = 0

    @property
    def text(self) -> str:
        return "".join(block.whole for block in self.blocks if block.kind == "text")


@dataclass(frozen=True)
class Event:
    """One event of a stream as bytes, with the output tokens and the text in it."""

    data: bytes
    tokens: int = 0
    text: str = ""


@dataclass
class Asked:
    """What both vendors' requests have in common."""

    model: str
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    forced: str | None = None  # the tool the request insists on; "" is any
    tools: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    last_user: str = ""


def words_of(text: str) -> list[str]:
    """``"a b"`` -> ``["a", " b"]``, as models stream."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text)


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, without its keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def count_prompt(body: Mapping[str, Any]) -> int:
    """Input tokens of a request: the same for the same prompt, more for a longer one."""
    parts = [body.get(name) for name in ("messages", "system", "tools")]
    return 3 + sum(len(text) for part in parts for text in strings(part)) // CHARACTERS_PER_TOKEN


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(part.get("text", "") for part in content if isinstance(part, dict) and part.get("type") == "text")


def answer(step: Step, asked: Asked, body: Mapping[str, Any]) -> Answer:
    """The answer, ended by ``max_tokens`` and stop sequences as a model would be."""
    blocks: list[Block] = []
    if step.thinking is not None:
        blocks.append(Block("thinking", words_of(step.thinking) or [""]))
    calls = _calls(step, asked)
    stop, stop_sequence = "end_turn", None
    if step.refusal is not None:
        blocks.append(Block("refusal", words_of(step.refusal)))
        stop = "refusal"
    elif not calls or step.text is not None or step.pieces is not None or step.words is not None:
        pieces, stop_sequence = _stop_at(_pieces(step, asked), asked.stop)
        if step.fault == "huge":
            pieces.insert(min(max(step.after, 0), len(pieces)), "x" * step.size)
        blocks.append(Block("text", pieces))
        stop = "stop_sequence" if stop_sequence is not None else stop
    blocks += calls
    if calls:
        stop = "tool_use"
    if asked.max_tokens is not None and _shorten(blocks, asked.max_tokens):
        stop, stop_sequence = "max_tokens", None
    return Answer(
        blocks, step.stop_reason or stop, stop_sequence, _bill(step, blocks, body), step.cache_write_1h_tokens
    )


def _pieces(step: Step, asked: Asked) -> list[str]:
    if step.pieces is not None:
        return list(step.pieces)
    if step.words is not None:
        return [f"{' ' if number else ''}word{number + 1}" for number in range(step.words)]
    if step.text is not None:
        return words_of(step.text)
    return words_of(asked.last_user if step.echo else DEFAULT_TEXT)


def _stop_at(pieces: list[str], stops: Sequence[str]) -> tuple[list[str], str | None]:
    """Cut before the first stop sequence; it may lie across pieces."""
    whole = "".join(pieces)
    found = [(place, stop) for stop in stops if stop and (place := whole.find(stop)) >= 0]
    if not found:
        return pieces, None
    left, stop = min(found)
    kept: list[str] = []
    for piece in pieces:
        if left <= 0:
            break
        kept.append(piece[:left])
        left -= len(piece)
    return kept, stop


def _shorten(blocks: list[Block], tokens: int) -> bool:
    """Keep the first ``tokens`` pieces; whether anything was lost."""
    lost = False
    for block in blocks:
        kept = block.pieces[: max(tokens, 0)]
        lost = lost or len(kept) < len(block.pieces)
        tokens -= len(block.pieces)
        block.pieces = kept
    blocks[:] = [block for block in blocks if block.pieces]
    return lost


def _calls(step: Step, asked: Asked) -> list[Block]:
    calls = [(str(tool["name"]), _arguments(tool)) for tool in step.tools]
    wanted = step.call_tools
    offered = asked.tools
    # A vendor that is told to call a tool does so unasked by any script.
    if not calls and not wanted and asked.forced is not None and step.text is None:
        wanted = 1
        offered = [tool for tool in offered if not asked.forced or tool[0] == asked.forced]
    calls += [(name, json.dumps(_example(schema))) for name, schema in offered[:wanted]]
    return [Block("tool", _fragments(arguments), name) for name, arguments in calls]


def _arguments(tool: Mapping[str, Any]) -> str:
    return str(tool["arguments"]) if "arguments" in tool else json.dumps(tool.get("input", {}))


def _fragments(text: str) -> list[str]:
    """Arguments arrive in pieces that respect no boundary."""
    return [text[start : start + 7] for start in range(0, len(text), 7)] or [""]


def _example(schema: Mapping[str, Any]) -> Any:
    """A value that fits a simple JSON schema."""
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: _example(item) for name, item in schema.get("properties", {}).items()}
    values = {"string": "Paris", "integer": 3, "number": 2.5, "boolean": True, "array": [], "null": None}
    return values.get(kind if isinstance(kind, str) else "string", "Paris")


def _bill(step: Step, blocks: list[Block], body: Mapping[str, Any]) -> Bill:
    thought = sum(len(block.pieces) for block in blocks if block.kind == "thinking")
    reasoning = step.reasoning_tokens if step.reasoning_tokens is not None else thought
    produced = sum(len(block.pieces) for block in blocks) - thought + reasoning
    choices = body.get("n")
    produced *= choices if isinstance(choices, int) else 1
    written = step.cache_write_tokens + step.cache_write_1h_tokens
    return Bill(
        input_tokens=step.input_tokens
        if step.input_tokens is not None
        else count_prompt(body) + step.cached_tokens + written,
        output_tokens=step.output_tokens if step.output_tokens is not None else produced,
        cached_tokens=step.cached_tokens,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
    )


def describe(template: str, asked_text: str, completion: str, key: str) -> str:
    """A hostile vendor's message: {prompt}, {completion} and {key} are filled in."""
    for name, value in (("{prompt}", asked_text), ("{completion}", completion), ("{key}", key)):
        template = template.replace(name, value)
    return template
