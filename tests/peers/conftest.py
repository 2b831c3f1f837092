"""These tests are only collected where ``make test-peers`` asks for them."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("PEERS") else ["test_*.py"]
