"""``python -m benchmarks [--quick] [--seconds N]``: measures, prints the results, and removes its files."""

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
    parser.add_argument(
        "--quick", action="store_true", help=f"takes about {QUICK_SECONDS:g} s and gives a rough idea only"
    )
    parser.add_argument("--seconds", type=float, help=f"total measuring time in seconds (default {SECONDS:g})")
    parser.add_argument("--rounds", type=int, help=f"number of rounds for the medians (default {ROUNDS})")
    options = parser.parse_args()
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    signal.signal(signal.SIGTERM, _end)  # works like Ctrl-C, so the servers are stopped
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
        measure(planned, rounds, each, _show_progress)
        after = servers.memory(started.gateway_worker)
    _show_progress("")
    print("\n" + report.report(planned, (before, after)))
    return 0


def _show_progress(what: str) -> None:
    """Show the progress if a person watches, that is, if stderr is a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def _end(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
