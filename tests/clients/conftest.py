"""The service in front of every kind of target, for clients and agents."""

from __future__ import annotations

import pytest

from tests.clients.targets import EVERYTHING, catalogue
from tests.conftest import MakeService
from tests.support.server import Server
from tests.upstream import Upstream

# ``make test-clients`` runs the client libraries.
collect_ignore = [] if EVERYTHING else ["test_libraries.py"]


@pytest.fixture(scope="module")
def gateway(shared_service: MakeService, upstream_server: Upstream) -> Server:
    return shared_service(models=catalogue(upstream_server))
