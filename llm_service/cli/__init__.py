"""``flask --app wsgi keys | requests | usage | models | db``.

Each command prints tables for people, or with ``--json`` one JSON object (lists:
an array of them) and nothing else on stdout. Exit codes: 0, 1 (it could not be
done), 2 (wrong usage); the reason is on stderr.
"""

from __future__ import annotations

from flask import Flask

from llm_service.cli import database, keys, models, requests, usage


def register(app: Flask) -> None:
    """Add the commands to ``app.cli``. They read ``app.extensions["llm_service"].settings`` and ``.catalog``."""
    for command in (keys.group, requests.group, usage.command, models.group, database.group):
        app.cli.add_command(command)
