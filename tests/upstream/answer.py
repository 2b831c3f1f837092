"""The answer that a step gives to a request, before a vendor writes it in its own format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.upstream.ledger import Bill
from tests.upstream.steps import Step

DEFAULT_TEXT = "The quick brown fox jumps over the lazy dog."

#: The number of characters per token of a prompt. A real tokenizer counts differently, but this count is repeatable.
CHARACTERS_PER_TOKEN = 4


@dataclass
class Block:
    """``kind`` is text, thinking, refusal or tool. ``pieces`` are the deltas; each is one output token."""

    kind: str
    pieces: list[str]
    name: str = ""

    @property
    def whole(self) -> str:
        return "".join(self.pieces)


@dataclass
class Answer:
    """``stop`` is one of Anthropic's stop reasons, or any other word that the step sets."""

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
    """One event of a stream as bytes, with its number of output tokens and its text."""

    data: bytes
    tokens: int = 0
    text: str = ""


@dataclass
class CommonRequest:
    """The fields that the requests of all formats have in common."""

    model: str
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    forced: str | None = None  # the tool that the request forces; "" means any tool
    tools: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    last_user: str = ""


def words_of(text: str) -> list[str]:
    """``"a b"`` -> ``["a", " b"]``: the pieces in which models stream text."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text)


def strings(value: Any) -> Iterator[str]:
    """Every string value in a JSON value. Keys are left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def count_prompt(body: Mapping[str, Any]) -> int:
    """The input tokens of a request: the same for the same prompt, more for a longer one."""
    parts = [body.get(name) for name in ("messages", "system", "tools")]
    return 3 + sum(len(text) for part in parts for text in strings(part)) // CHARACTERS_PER_TOKEN


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(part.get("text", "") for part in content if isinstance(part, dict) and part.get("type") == "text")


def answer(step: Step, request: CommonRequest, body: Mapping[str, Any]) -> Answer:
    """The answer, cut at ``max_tokens`` and at stop sequences as a model's answer is."""
    blocks: list[Block] = []
    if step.thinking is not None:
        blocks.append(Block("thinking", words_of(step.thinking) or [""]))
    calls = _calls(step, request)
    stop, stop_sequence = "end_turn", None
    if step.refusal is not None:
        blocks.append(Block("refusal", words_of(step.refusal)))
        stop = "refusal"
    elif not calls or step.text is not None or step.pieces is not None or step.words is not None:
        pieces, stop_sequence = _stop_at(_pieces(step, request), request.stop)
        if step.fault == "huge":
            pieces.insert(min(max(step.after, 0), len(pieces)), "x" * step.size)
        blocks.append(Block("text", pieces))
        stop = "stop_sequence" if stop_sequence is not None else stop
    blocks += calls
    if calls:
        stop = "tool_use"
    if request.max_tokens is not None and _shorten(blocks, request.max_tokens):
        stop, stop_sequence = "max_tokens", None
    return Answer(
        blocks, step.stop_reason or stop, stop_sequence, _bill(step, blocks, body), step.cache_write_1h_tokens
    )


def _pieces(step: Step, request: CommonRequest) -> list[str]:
    if step.pieces is not None:
        return list(step.pieces)
    if step.words is not None:
        return [f"{' ' if number else ''}word{number + 1}" for number in range(step.words)]
    if step.text is not None:
        return words_of(step.text)
    return words_of(request.last_user if step.echo else DEFAULT_TEXT)


def _stop_at(pieces: list[str], stops: Sequence[str]) -> tuple[list[str], str | None]:
    """Cut the text before the first stop sequence, which may span several pieces."""
    whole = "".join(pieces)
    matches = [(position, stop) for stop in stops if stop and (position := whole.find(stop)) >= 0]
    if not matches:
        return pieces, None
    left, stop = min(matches)
    kept: list[str] = []
    for piece in pieces:
        if left <= 0:
            break
        kept.append(piece[:left])
        left -= len(piece)
    return kept, stop


def _shorten(blocks: list[Block], tokens: int) -> bool:
    """Keep the first ``tokens`` pieces. Returns whether anything was cut off."""
    was_cut = False
    for block in blocks:
        kept = block.pieces[: max(tokens, 0)]
        was_cut = was_cut or len(kept) < len(block.pieces)
        tokens -= len(block.pieces)
        block.pieces = kept
    blocks[:] = [block for block in blocks if block.pieces]
    return was_cut


def _calls(step: Step, request: CommonRequest) -> list[Block]:
    calls = [(str(tool["name"]), _arguments(tool)) for tool in step.tools]
    wanted = step.call_tools
    offered = request.tools
    # When the request forces a tool call, the vendor makes one even if the script has none.
    if not calls and not wanted and request.forced is not None and step.text is None:
        wanted = 1
        offered = [tool for tool in offered if not request.forced or tool[0] == request.forced]
    calls += [(name, json.dumps(_example(schema))) for name, schema in offered[:wanted]]
    return [Block("tool", _fragments(arguments), name) for name, arguments in calls]


def _arguments(tool: Mapping[str, Any]) -> str:
    return str(tool["arguments"]) if "arguments" in tool else json.dumps(tool.get("input", {}))


def _fragments(text: str) -> list[str]:
    """The arguments in pieces of 7 characters, which ignore the boundaries of words and escapes."""
    return [text[start : start + 7] for start in range(0, len(text), 7)] or [""]


def _example(schema: Mapping[str, Any]) -> Any:
    """A value that matches a simple JSON schema."""
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: _example(item) for name, item in schema.get("properties", {}).items()}
    values = {"string": "Paris", "integer": 3, "number": 2.5, "boolean": True, "array": [], "null": None}
    return values.get(kind if isinstance(kind, str) else "string", "Paris")


def _bill(step: Step, blocks: list[Block], body: Mapping[str, Any]) -> Bill:
    thinking = sum(len(block.pieces) for block in blocks if block.kind == "thinking")
    reasoning = step.reasoning_tokens if step.reasoning_tokens is not None else thinking
    produced = sum(len(block.pieces) for block in blocks) - thinking + reasoning
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


def describe(template: str, prompt: str, completion: str, key: str) -> str:
    """A hostile vendor's message: ``template`` with {prompt}, {completion} and {key} filled in."""
    for name, value in (("{prompt}", prompt), ("{completion}", completion), ("{key}", key)):
        template = template.replace(name, value)
    return template
