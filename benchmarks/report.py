"""Writes the results as text."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version

import llm_service
from benchmarks import upstream
from benchmarks.plan import BARE, DIRECT, GATEWAY, MANY_CONNECTIONS, Cell, Plan
from benchmarks.servers import Cores

TARGET_RATIO = 0.20


def heading(where: Cores, rounds: int, seconds: float) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("flask", "gunicorn", "gevent"))
    return (
        f"llm_service {llm_service.__version__}, Python {platform.python_version()}, {packages}\n"
        f"{os.cpu_count()} cores; {where}\n"
        "one worker with everything on: key, rate limit (Valkey), request log (SQLite), log lines, metrics\n"
        f"medians of {rounds} rounds of {seconds:.2f} s per line; times in milliseconds"
    )


def report(plan: Plan, memory: tuple[float | None, float | None]) -> str:
    parts = [_plain(plan), _ratio(plan), _streams(plan), _first_tokens(plan.firsts), _memory(*memory)]
    return "\n\n".join(parts)


def _plain(plan: Plan) -> str:
    head = ["plain answers", "1 conn: req/s", "p50", "p99", f"{MANY_CONNECTIONS} conn: req/s", "p50", "p99", "CPU/req"]
    rows = []
    for name, (one, many) in plan.plain.items():
        rows.append([name, *_speed(one), *_speed(many), _number(many.processor, 3)])
    direct = plan.plain[DIRECT]
    added = []
    for name in GATEWAY:
        cells: list[str] = [f"added by the {name}"]
        for cell, base in zip(plan.plain[name], direct, strict=True):
            cells += ["", *(_number(cell.latency(share) - base.latency(share), 2) for share in (0.5, 0.99))]
        added.append([*cells, ""])
    return _table(head, [*rows, *added])


def _speed(cell: Cell) -> list[str]:
    return [_number(cell.rate, 0), _number(cell.latency(0.5), 2), _number(cell.latency(0.99), 2)]


def _ratio(plan: Plan) -> str:
    bare = plan.plain[BARE][1].rate
    ratios = ", ".join(f"{plan.plain[name][1].rate / bare:.2f} ({name})" for name in GATEWAY)
    return f"of the bare Flask endpoint's rate at {MANY_CONNECTIONS} connections: {ratios}; wanted: {TARGET_RATIO:.2f}"


def _streams(plan: Plan) -> str:
    head = [
        f"streams of {upstream.CHUNKS} chunks, {MANY_CONNECTIONS} connections",
        "streams/s",
        "chunks/s",
        "CPU/stream",
    ]
    rows = []
    for mode, cells in plan.streams.items():
        for cell in cells:
            rate = cell.chunk_rate
            numbers = _number(rate / upstream.CHUNKS, 0), _number(rate, 0), _number(cell.processor, 2)
            rows.append([f"{cell.name}, {mode}", *numbers])
    return _table(head, rows)


def _first_tokens(cells: Sequence[Cell]) -> str:
    direct = cells[0]
    rows = []
    for cell in cells:
        times = [cell.first_token(share) for share in (0.5, 0.99)]
        added = [time - direct.first_token(share) for time, share in zip(times, (0.5, 0.99), strict=True)]
        rows.append([cell.name, *(_number(time, 2) for time in (*times, *added))])
    return _table(["time to the first token, 1 connection", "p50", "p99", "added p50", "added p99"], rows)


def _memory(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "memory of the gateway's worker: unknown, because this system has no /proc"
    return f"memory of the gateway's worker: {before:.0f} MB before, {after:.0f} MB after"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    written = [
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    return "\n".join(line.rstrip() for line in written)
