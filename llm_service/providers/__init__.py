"""Upstreams. A provider answers a call with the events of ``conversation``:

``events(call, target, cancel)`` yields ``Attempt`` right before it asks, then the
answer's events ending with one ``Finished``; it raises ``Refusal`` before the
``Attempt`` for what the target cannot express and ``UpstreamError`` for
everything the vendor or the way to it does wrong.

One file per SDK (``anthropic``, ``openai``), ``echo`` without one; what they
share is in ``exchange``, the way from an SDK to the wire in ``clients``, the
HTTP below in ``transport`` (``proxied`` behind a proxy).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Protocol

from llm_service.catalog.catalog import Catalog
from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.events import Event
from llm_service.core.target import Provider, Target


class Upstream(Protocol):
    def events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]: ...


def connect(row: Provider, *, tick: float, echo_delay: float, gather: float = 0.0) -> Upstream:
    """The provider of a catalogue row; times in seconds. Its SDK is imported with the first call, unless ``load``
    came before: a CLI command needs none (1 s for Anthropic's)."""
    return _Connected(row, {"tick": tick, "echo_delay": echo_delay, "gather": gather})


def load(catalogue: Catalog) -> None:
    """Import the SDKs of the configured providers now, so that no call pays for it."""
    for row in catalogue.providers.values():
        if row.configured:
            import_module(f"llm_service.providers.{row.kind}")


class _Connected:
    def __init__(self, row: Provider, times: Mapping[str, float]) -> None:
        self._row, self._times = row, times
        self._provider: Upstream | None = None

    def events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        if self._provider is None:
            module = import_module(f"llm_service.providers.{self._row.kind}")
            self._provider = module.connect(self._row, **self._times)
        provider: Upstream = self._provider
        return provider.events(call, target, cancel)
