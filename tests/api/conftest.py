"""Services with strict limits and with prices, and a sender of many requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api.budget_helpers import CATALOGUE, wait_for_counters
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
    """Two workers behind one trusted proxy.

    Some keys are in the environment, one origin is allowed, and few requests without a key are allowed.
    """
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
def _priced_service(folder: Path, upstream: Upstream, valkey: Valkey, **more: str) -> Iterator[Server]:
    (folder / "models.toml").write_text(CATALOGUE)
    more |= {"WEB_CONCURRENCY": "2", "LLM_SERVICE_MODELS": str(folder / "models.toml")}
    with Server(folder, settings_for(upstream, valkey, LLM_SERVICE_TRUSTED_PROXIES="1", **more)) as server:
        wait_for_counters(server)
        yield server


@pytest.fixture(scope="session")
def priced(upstream_server: Upstream, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers behind one trusted proxy, with the catalogue of ``budget_helpers``.

    Keys have no limits except those that a test sets.
    """
    with _priced_service(tmp_path_factory.mktemp("priced"), upstream_server, valkey) as server:
        yield server


@pytest.fixture(scope="session")
def priced_pg(
    upstream_server: Upstream, valkey: Valkey, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The same service on PostgreSQL."""
    folder = tmp_path_factory.mktemp("priced_pg")
    with _priced_service(folder, upstream_server, valkey, DATABASE_URL=postgres.fresh_url()) as server:
        yield server


@pytest.fixture(params=["priced", "priced_pg"])
def any_priced(request: pytest.FixtureRequest) -> Server:
    """For tests of what must hold on both databases."""
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def sender(service: Server) -> Iterator[Sender]:
    """A sender whose requests must each have exactly one row with the status of the reply. Checked after the test."""
    made = Sender(service)
    yield made
    made.close()
    rows = service.wait_rows(len(made.sent), key_id=made.key_id)
    assert {row["request_id"]: row["status"] for row in rows} == made.sent
    assert len(rows) == len(made.sent)
    assert {row["outcome"] for row in rows if row["status"] >= 400} <= {"refused"}
    assert all((row["error_type"] is not None) == (row["status"] >= 400) for row in rows)
