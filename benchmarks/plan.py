"""What is asked, in which order, and what is kept of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks import load, servers, upstream
from benchmarks.load import Question, Sample
from benchmarks.servers import Servers

MANY = 32
WARM_UP = 0.5
"""How long, in rounds: the gateway connects to its database, its Redis and its upstreams at the first call."""
_OPENAI, _ANTHROPIC = "gpt-5-mini", "claude-haiku-4-5"
_SYSTEM = "You are the assistant of a shop for garden tools. Answer in short, plain sentences."
_USER = "Which spade is best for heavy clay, and how do I keep its blade from rusting over the winter?"


@dataclass
class Cell:
    """One thing that is measured, and its samples, one a round. ``process``: who answers, where that is known."""

    name: str
    question: Question
    connections: int
    process: int | None = None
    samples: list[Sample] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(sample.rate for sample in self.samples)

    def latency(self, share: float) -> float:
        """Milliseconds: the median over the rounds of a quantile of each."""
        return statistics.median(sample.quantile(share) for sample in self.samples) * 1000

    def first_token(self, share: float) -> float:
        """Milliseconds, over all rounds: there are few of them."""
        return load.quantile([first for sample in self.samples for first in sample.firsts], share) * 1000

    @property
    def chunk_rate(self) -> float:
        return statistics.median(sample.chunk_rate for sample in self.samples)

    @property
    def processor(self) -> float | None:
        """Milliseconds of the answering process' processor time per call."""
        return statistics.median(self.processor_seconds) * 1000 if self.processor_seconds else None


@dataclass
class Plan:
    """``plain`` holds a pair per row: one connection, and many."""

    plain: dict[str, tuple[Cell, Cell]]
    streams: dict[str, list[Cell]]
    firsts: list[Cell]

    def cells(self) -> list[Cell]:
        plain = [cell for pair in self.plain.values() for cell in pair]
        return [*plain, *(cell for cells in self.streams.values() for cell in cells), *self.firsts]


DIRECT, BARE = "upstream, asked directly", "bare Flask endpoint"
VERBATIM, CROSSING, SIMPLE = "gateway, OpenAI to OpenAI", "gateway, OpenAI to Anthropic", "gateway, simple API"
GATEWAY = (VERBATIM, CROSSING, SIMPLE)


def plan(where: Servers) -> Plan:
    def question(port: int, path: str, model: str, mode: str = "") -> Question:
        end = _end(path, bool(mode))
        chunk = upstream.TOKEN if mode else b""
        first = upstream.FIRST_TOKEN if mode == upstream.LATE else b""
        return Question(port, _request(path, where.key, _body(path, model, mode)), end, chunk, first)

    def of(name: str, mode: str = "") -> Question:
        path = "/v1/stream" if mode else "/v1/complete"
        return {
            DIRECT: question(where.upstream, "/v1/chat/completions", _OPENAI, mode),
            BARE: question(where.bare, "/v1/chat/completions", _OPENAI, mode),
            VERBATIM: question(where.gateway, "/v1/chat/completions", _OPENAI, mode),
            CROSSING: question(where.gateway, "/v1/chat/completions", _ANTHROPIC, mode),
            SIMPLE: question(where.gateway, path, _OPENAI, mode),
        }[name]

    def cell(name: str, connections: int, mode: str = "") -> Cell:
        return Cell(name, of(name, mode), connections, processes[name])

    processes = {DIRECT: None, BARE: where.bare_worker, **dict.fromkeys(GATEWAY, where.gateway_worker)}
    relayed = (DIRECT, VERBATIM, CROSSING)
    return Plan(
        plain={name: (cell(name, 1), cell(name, MANY)) for name in (DIRECT, BARE, VERBATIM, CROSSING, SIMPLE)},
        streams={
            mode: [cell(name, MANY, mode) for name in relayed] for mode in (upstream.AT_ONCE, upstream.ONE_BY_ONE)
        },
        firsts=[cell(name, 1, upstream.LATE) for name in relayed],
    )


def _body(path: str, model: str, mode: str) -> dict[str, Any]:
    # The upstream finds the mode in the prompt: the one place that reaches it in every dialect.
    user = f"{_USER} Answer {mode}." if mode else _USER
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": user}]
    stream = {"stream": True} if mode and path != "/v1/stream" else {}
    return {"model": model, "messages": messages, **stream}


def _end(path: str, stream: bool) -> bytes:
    """What the last bytes of a whole answer hold."""
    if stream:
        return b"data: [DONE]"
    return b'"stop_reason":' if path == "/v1/complete" else b'"usage":'


def _request(path: str, key: str, body: dict[str, Any]) -> bytes:
    written = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: benchmarks\r\nAccept: */*\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {len(written)}\r\n\r\n"
    )
    return head.encode() + written


def measure(plan: Plan, rounds: int, seconds: float, tell: Callable[[str], None]) -> None:
    """Fill the cells: every round asks for each once, every second one backwards, so that what the machine does
    meanwhile falls on all of them. Raises LoadError."""
    tell("warming up")
    for cell in plan.cells():
        load.run(cell.question, cell.connections, seconds * WARM_UP)
    for number, order in enumerate(_orders(plan.cells(), rounds), start=1):
        tell(f"round {number} of {rounds}")
        for cell in order:
            before = servers.processor_seconds(cell.process)
            sample = load.run(cell.question, cell.connections, seconds)
            after = servers.processor_seconds(cell.process)
            cell.samples.append(sample)
            if before is not None and after is not None:
                cell.processor_seconds.append((after - before) / sample.answered)


def _orders(cells: list[Cell], rounds: int) -> Iterator[list[Cell]]:
    for number in range(rounds):
        yield cells if number % 2 == 0 else cells[::-1]
