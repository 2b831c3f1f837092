"""The measurements, their order, and the samples that they collect."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks import load, servers, upstream
from benchmarks.load import LoadRequest, Sample
from benchmarks.servers import Servers

MANY_CONNECTIONS = 32
WARM_UP = 0.5
"""The length of the warm-up in rounds. The gateway connects to its database, Redis and upstreams at the first call."""
_OPENAI, _ANTHROPIC = "gpt-5-mini", "claude-haiku-4-5"
_SYSTEM = "You are the assistant of a shop for garden tools. Answer in short, plain sentences."
_USER = "Which spade is best for heavy clay, and how do I keep its blade from rusting over the winter?"


@dataclass
class Cell:
    """One measurement, with one sample per round. ``process`` is the id of the answering process, if it is known."""

    name: str
    request: LoadRequest
    connections: int
    process: int | None = None
    samples: list[Sample] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(sample.rate for sample in self.samples)

    def latency(self, share: float) -> float:
        """In milliseconds: the median of the rounds' quantiles."""
        return statistics.median(sample.quantile(share) for sample in self.samples) * 1000

    def first_token(self, share: float) -> float:
        """In milliseconds: the quantile over all rounds, because one round has few first tokens."""
        return load.quantile([first for sample in self.samples for first in sample.firsts], share) * 1000

    @property
    def chunk_rate(self) -> float:
        return statistics.median(sample.chunk_rate for sample in self.samples)

    @property
    def processor(self) -> float | None:
        """The processor time of the answering process per call, in milliseconds."""
        return statistics.median(self.processor_seconds) * 1000 if self.processor_seconds else None


@dataclass
class Plan:
    """All measurements. ``plain`` has a pair per row: with one connection, and with many."""

    plain: dict[str, tuple[Cell, Cell]]
    streams: dict[str, list[Cell]]
    firsts: list[Cell]

    def cells(self) -> list[Cell]:
        plain = [cell for pair in self.plain.values() for cell in pair]
        return [*plain, *(cell for cells in self.streams.values() for cell in cells), *self.firsts]


DIRECT, BARE = "upstream, asked directly", "bare Flask endpoint"
VERBATIM, CROSSING, SIMPLE = "gateway, OpenAI to OpenAI", "gateway, OpenAI to Anthropic", "gateway, simple API"
GATEWAY = (VERBATIM, CROSSING, SIMPLE)


def plan(started: Servers) -> Plan:
    def request(port: int, path: str, model: str, mode: str = "") -> LoadRequest:
        end = _end(path, bool(mode))
        chunk = upstream.TOKEN if mode else b""
        first = upstream.FIRST_TOKEN if mode == upstream.LATE else b""
        return LoadRequest(port, _request(path, started.key, _body(path, model, mode)), end, chunk, first)

    def request_for(name: str, mode: str = "") -> LoadRequest:
        path = "/v1/stream" if mode else "/v1/complete"
        return {
            DIRECT: request(started.upstream, "/v1/chat/completions", _OPENAI, mode),
            BARE: request(started.bare, "/v1/chat/completions", _OPENAI, mode),
            VERBATIM: request(started.gateway, "/v1/chat/completions", _OPENAI, mode),
            CROSSING: request(started.gateway, "/v1/chat/completions", _ANTHROPIC, mode),
            SIMPLE: request(started.gateway, path, _OPENAI, mode),
        }[name]

    def cell(name: str, connections: int, mode: str = "") -> Cell:
        return Cell(name, request_for(name, mode), connections, processes[name])

    processes = {DIRECT: None, BARE: started.bare_worker, **dict.fromkeys(GATEWAY, started.gateway_worker)}
    relayed = (DIRECT, VERBATIM, CROSSING)
    return Plan(
        plain={
            name: (cell(name, 1), cell(name, MANY_CONNECTIONS)) for name in (DIRECT, BARE, VERBATIM, CROSSING, SIMPLE)
        },
        streams={
            mode: [cell(name, MANY_CONNECTIONS, mode) for name in relayed]
            for mode in (upstream.AT_ONCE, upstream.ONE_BY_ONE)
        },
        firsts=[cell(name, 1, upstream.LATE) for name in relayed],
    )


def _body(path: str, model: str, mode: str) -> dict[str, Any]:
    # The upstream reads the mode from the prompt, which is the only field that it gets in every format.
    user = f"{_USER} Answer {mode}." if mode else _USER
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": user}]
    stream = {"stream": True} if mode and path != "/v1/stream" else {}
    return {"model": model, "messages": messages, **stream}


def _end(path: str, stream: bool) -> bytes:
    """The bytes that must be near the end of a complete answer."""
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


def measure(plan: Plan, rounds: int, seconds: float, show_progress: Callable[[str], None]) -> None:
    """Fill the cells. Each round measures every cell once, and every second round goes backwards.

    So the other work of the machine affects all cells alike. Raises LoadError.
    """
    show_progress("warming up")
    for cell in plan.cells():
        load.run(cell.request, cell.connections, seconds * WARM_UP)
    for number, order in enumerate(_orders(plan.cells(), rounds), start=1):
        show_progress(f"round {number} of {rounds}")
        for cell in order:
            before = servers.processor_seconds(cell.process)
            sample = load.run(cell.request, cell.connections, seconds)
            after = servers.processor_seconds(cell.process)
            cell.samples.append(sample)
            if before is not None and after is not None:
                cell.processor_seconds.append((after - before) / sample.answered)


def _orders(cells: list[Cell], rounds: int) -> Iterator[list[Cell]]:
    for number in range(rounds):
        yield cells if number % 2 == 0 else cells[::-1]
