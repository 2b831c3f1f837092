"""``flask --app wsgi keys | budgets | limits | requests | usage | models | db``.

Each command prints a table for people. With ``--json`` it prints one JSON object
(lists: one array of objects) and nothing else on stdout; ``requests tail`` and
``requests export`` print one object per line. Exit codes: 0 (done), 1 (failed),
2 (wrong usage). The reason for a failure is printed on stderr.
"""

from __future__ import annotations

from flask import Flask

from llm_service.cli import budgets, database, keys, limits, models, requests, usage


def register(app: Flask) -> None:
    """Add the commands to ``app.cli``. They read ``app.extensions["llm_service"].settings`` and ``.catalog``."""
    groups = (keys.group, budgets.group, limits.group, requests.group, models.group, database.group)
    for command in (*groups, usage.command):
        app.cli.add_command(command)
