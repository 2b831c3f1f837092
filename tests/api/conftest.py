"""A second service for what the shared one is too generous for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import settings_for
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
