"""``python -m tests.upstream --port 9100``: the scripted vendor as a process of its own.

It accepts any key, unless --key names the keys to accept. Script it over HTTP:

    curl -d '[{"text": "Hello"}, {"status": 529}]' http://127.0.0.1:9100/_script
    curl http://127.0.0.1:9100/_ledger
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys

from tests.upstream.server import Upstream


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.upstream", description="A scripted vendor.")
    parser.add_argument("--port", type=int, default=9100, help="the port to listen on; 0 picks a free one")
    parser.add_argument("--key", action="append", default=[], help="a key to accept (repeatable; default: any)")
    parser.add_argument("--ledger", type=int, default=1000, help="how many requests the ledger keeps")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Upstream(options.port, options.key, options.ledger) as upstream:
        sys.stdout.write(f"ANTHROPIC_BASE_URL={upstream.url} OPENAI_BASE_URL={upstream.openai_url}\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
