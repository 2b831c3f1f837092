"""Each test has a fresh, empty database of each kind. PostgreSQL comes from tests/conftest.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from llm_service import store
from llm_service.core import ids
from llm_service.extensions import db
from llm_service.settings import Settings
from llm_service.store.requests import COLUMNS

KEY = b"a key of sixteen bytes or more"


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a database that has no tables yet."""
    instance = tmp_path / "instance"
    if request.param == "sqlite":
        return Settings(instance=instance, secret_text=KEY.decode())
    url = request.getfixturevalue("postgres_url")
    return Settings(instance=instance, secret_text=KEY.decode(), database_url=url)


@pytest.fixture
def postgres_settings(postgres_url: str, tmp_path: Path) -> Settings:
    return Settings(instance=tmp_path / "instance", secret_text=KEY.decode(), database_url=postgres_url)


@pytest.fixture
def sqlite_settings(tmp_path: Path) -> Settings:
    return Settings(instance=tmp_path / "instance", secret_text=KEY.decode())


@pytest.fixture
def bare_app() -> Iterator[Callable[[Settings], Flask]]:
    """Creates an application on a database without migrating it. Closes its connections at the end."""
    made: list[Flask] = []

    def make(settings: Settings) -> Flask:
        app = Flask("test")
        store.configure(app, settings)
        made.append(app)
        return app

    yield make
    for app in made:
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def app(settings: Settings, bare_app: Callable[[Settings], Flask]) -> Iterator[Flask]:
    """An application context on a migrated database."""
    app = bare_app(settings)
    store.upgrade(app)
    with app.app_context():
        yield app


def row(**values: Any) -> dict[str, Any]:
    """A row of the request log."""
    return {
        **dict.fromkeys(COLUMNS),
        "id": ids.new_id(),
        "created_at": datetime.now(UTC),
        "key_id": "abcdefgh",
        "route": "/v1/complete",
        "dialect": "simple",
        "stream": False,
        "model_asked": "fast",
        "provider": "echo",
        "model_served": "echo",
        "attempts": 1,
        "status": 200,
        "outcome": "ok",
        "input_tokens": 3,
        "output_tokens": 5,
        "cached_tokens": 0,
        "usage_exact": True,
        "cost_nanousd": 7,
        "latency_ms": 12,
        **values,
    }
