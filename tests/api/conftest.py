"""A second service for what the shared one is too generous for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api.books import CATALOGUE, wait_built
from tests.api.sender import Sender
from tests.conftest import settings_for
from tests.support.postgres import Postgres
from tests.support.server import Server
from tests.support.valkey import Valkey
from tests.upstream import Upstream

ANONYMOUS_RPM = 5
ORIGIN = "https://app.example"
QUICK_KEYS = ("a-quick-start-key", "ein-schlüssel-für-später")


@pytest.fixture(scope="session")
def strict(upstream_server: Upstream, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers behind one proxy, with keys of the environment, one allowed origin and few requests without a key."""
    environ = settings_for(
        upstream_server,
        valkey,
        WEB_CONCURRENCY="2",
        API_KEYS=", ".join(QUICK_KEYS),
        LLM_SERVICE_ANONYMOUS_RPM=str(ANONYMOUS_RPM),
        LLM_SERVICE_CORS_ORIGINS=ORIGIN,
        LLM_SERVICE_TRUSTED_PROXIES="1",
    )
    with Server(tmp_path_factory.mktemp("strict"), environ) as server:
        yield server


@contextmanager
def _books(folder: Path, upstream: Upstream, valkey: Valkey, **more: str) -> Iterator[Server]:
    (folder / "models.toml").write_text(CATALOGUE)
    more |= {"WEB_CONCURRENCY": "2", "LLM_SERVICE_MODELS": str(folder / "models.toml")}
    with Server(folder, settings_for(upstream, valkey, LLM_SERVICE_TRUSTED_PROXIES="1", **more)) as server:
        wait_built(server)
        yield server


@pytest.fixture(scope="session")
def books(upstream_server: Upstream, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers with the catalogue of ``books``, behind one proxy: keys have no limits but those that a test sets."""
    with _books(tmp_path_factory.mktemp("books"), upstream_server, valkey) as server:
        yield server


@pytest.fixture(scope="session")
def books_pg(
    upstream_server: Upstream, valkey: Valkey, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The same on PostgreSQL."""
    folder = tmp_path_factory.mktemp("books_pg")
    with _books(folder, upstream_server, valkey, DATABASE_URL=postgres.fresh_url()) as server:
        yield server


@pytest.fixture(params=["books", "books_pg"])
def any_books(request: pytest.FixtureRequest) -> Server:
    """For what must hold on both databases."""
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def sender(service: Server) -> Iterator[Sender]:
    """After the test every request it sent has exactly one row, with the status that was sent."""
    made = Sender(service)
    yield made
    made.close()
    rows = service.wait_rows(len(made.sent), key_id=made.key_id)
    assert {row["request_id"]: row["status"] for row in rows} == made.sent
    assert len(rows) == len(made.sent)
    assert {row["outcome"] for row in rows if row["status"] >= 400} <= {"refused"}
    assert all((row["error_type"] is not None) == (row["status"] >= 400) for row in rows)
