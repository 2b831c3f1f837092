"""``python -m benchmarks [--quick] [--seconds N]``: measure, print, leave nothing behind."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import NoReturn

from benchmarks import report, servers
from benchmarks.load import LoadError
from benchmarks.plan import WARM_UP, measure, plan
from benchmarks.servers import ServerError

ROUNDS, QUICK_ROUNDS = 5, 3
SECONDS, QUICK_SECONDS = 60.0, 8.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"about {QUICK_SECONDS:g} s: a look, not a measurement")
    parser.add_argument("--seconds", type=float, help=f"of measuring, in all (default {SECONDS:g})")
    parser.add_argument("--rounds", type=int, help=f"over which medians are taken (default {ROUNDS})")
    given = parser.parse_args()
    seconds = given.seconds or (QUICK_SECONDS if given.quick else SECONDS)
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    signal.signal(signal.SIGTERM, _end)  # as Ctrl-C: the servers are ended on the way out
    try:
        return _run(seconds, rounds)
    except (ServerError, LoadError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(seconds: float, rounds: int) -> int:
    where = servers.cores()
    with servers.running(where) as started:
        servers.pin_this_process(where)
        planned = plan(started)
        each = seconds / (len(planned.cells()) * (rounds + WARM_UP))
        print(report.heading(where, rounds, each), flush=True)
        before = servers.memory(started.gateway_worker)
        measure(planned, rounds, each, _tell)
        after = servers.memory(started.gateway_worker)
    _tell("")
    print("\n" + report.report(planned, (before, after)))
    return 0


def _tell(what: str) -> None:
    """Progress, for people only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def _end(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
