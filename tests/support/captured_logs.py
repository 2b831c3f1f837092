"""Capture the service's log lines in a list instead of stderr, and restore the logging configuration afterwards."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from llm_service.observability import logs


@contextmanager
def captured_logs(level: str = "DEBUG") -> Iterator[list[dict[str, Any]]]:
    root, last_resort, show = logging.getLogger(), logging.lastResort, warnings.showwarning
    handlers, root_level = root.handlers[:], root.level
    ours, gunicorn = logging.getLogger(logs.OURS), logging.getLogger(logs.GUNICORN)
    levels = ours.level, gunicorn.level
    lines: list[dict[str, Any]] = []
    try:
        logs.configure(level, lambda line: lines.append(orjson.loads(line)))
        yield lines
    finally:
        root.handlers[:] = handlers
        root.setLevel(root_level)
        ours.setLevel(levels[0])
        gunicorn.setLevel(levels[1])
        logging.lastResort, warnings.showwarning = last_resort, show
