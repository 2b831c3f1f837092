"""``flask --app wsgi keys | budgets | limits | requests | usage | models | db``.

Each command prints tables for people, or with ``--json`` one JSON object (lists:
an array of them) and nothing else on stdout. Exit codes: 0, 1 (it could not be
done), 2 (wrong usage); the reason is on stderr.
"""

from __future__ import annotations

from flask import Flask

from llm_service.cli import budgets, database, keys, limits, models, requests, usage


def register(app: Flask) -> None:
    """Add the commands to ``app.cli``. They read ``app.extensions["llm_service"].settings`` and ``.catalog``."""
    groups = (keys.group, budgets.group, limits.group, requests.group, models.group, database.group)
    for command in (*groups, usage.command):
        app.cli.add_command(command)
