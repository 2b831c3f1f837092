"""Ledgers of several workers on one real Valkey server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from llm_service.billing.ledger import Ledger, client
from tests.support.valkey import Valkey

from .support import Wire, build

MakeLedger = Callable[..., Ledger]


@pytest.fixture
def url(valkey: Valkey) -> str:
    return valkey.fresh_url()


@pytest.fixture
def wire(url: str) -> Iterator[Wire]:
    redis = client(url, timeout=5)
    yield Wire(redis)
    redis.close()


@pytest.fixture
def make(wire: Wire) -> MakeLedger:
    """Creates ledgers that use ``wire``. The first one finds Redis empty and builds its counters."""

    def ledger(worker: str = "w1", **more: object) -> Ledger:
        made = Ledger(wire, worker, **{"retry_seconds": 0.0, **more})  # type: ignore[arg-type]
        if wire.up and made.is_empty():
            build(made, {})
        return made

    return ledger


@pytest.fixture
def ledger(make: MakeLedger) -> Ledger:
    return make()
