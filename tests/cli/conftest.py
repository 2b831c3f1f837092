"""The real application on SQLite. Its commands run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from llm_service import create_app, store
from llm_service.extensions import db
from llm_service.settings import Settings
from llm_service.store.engine import database_url
from llm_service.store.writer import Writer

Rows = list[dict[str, Any]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(instance=tmp_path / "instance", secret_text="a key of sixteen bytes or more")


@pytest.fixture
def bare_app(settings: Settings) -> Iterator[Flask]:
    """An application whose database has no tables yet."""
    app = create_app(settings)
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def app(bare_app: Flask) -> Flask:
    store.upgrade(bare_app)
    return bare_app


class Commands:
    """``flask ARGUMENTS``: ``run`` returns click's result, ``json`` returns what ``--json`` prints."""

    def __init__(self, app: Flask) -> None:
        self._runner = app.test_cli_runner()

    def run(self, *arguments: str, fails: int = 0) -> Result:
        result: Result = self._runner.invoke(args=list(arguments))
        assert result.exit_code == fails, result.output
        # A failure is one sentence. Any other exception would be shown to people as a traceback.
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    def json(self, *arguments: str) -> Any:
        """Return what the command prints. It must be one JSON document on one line."""
        stdout = self.run(*arguments, "--json").stdout
        assert stdout.count("\n") == 1
        return json.loads(stdout)


@pytest.fixture
def flask(app: Flask) -> Commands:
    return Commands(app)


@pytest.fixture
def write(app: Flask, settings: Settings) -> Callable[[Rows], None]:
    """Writes rows into the log as the service does."""

    def write(rows: Rows) -> None:
        writer = Writer(database_url(settings))
        for row in rows:
            assert writer.put(row)
        assert writer.close(10) == 0

    return write
