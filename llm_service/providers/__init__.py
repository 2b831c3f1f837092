"""Providers: each answers calls with the events of ``core.events``.

``events(call, target, cancel)`` yields ``Attempt`` right before it sends a request to
the vendor, then the answer's events, which end with one ``Finished``. It raises
``Rejected`` before the ``Attempt`` if the target cannot express the request, and
``UpstreamError`` for every failure of the vendor or of the connection to it.

``openai`` and ``anthropic`` use the vendors' SDKs; ``echo`` needs none. They share
``lanes`` (one for each route of a vendor), ``exchange`` (one request and its answer)
and ``http`` (the transport, and the request heads that an SDK writes). ``routing``
chooses the targets of a call, retries, and falls back to the next target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Protocol

from llm_service.catalog import key_sources
from llm_service.catalog.catalog import Catalog
from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.events import Event
from llm_service.core.target import Provider, Target


class Upstream(Protocol):
    def events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]: ...


def connect(row: Provider, *, tick: float, echo_delay: float, batch_window: float = 0.0) -> Upstream:
    """The provider of a catalogue row. All times are seconds.

    ``tick``: after this long without data, a stream yields ``IDLE``. ``echo_delay``:
    the pause between two words of ``echo``. ``batch_window``: how long a small
    embeddings request waits for others; 0 turns batching off.

    The provider's SDK is imported at the first call, unless ``load`` was called
    before. So CLI commands do not import it (Anthropic's takes 1 s).
    """
    return _Lazy(row, {"tick": tick, "echo_delay": echo_delay, "batch_window": batch_window})


def load(catalog: Catalog) -> None:
    """Import the SDKs of the configured providers and read their keys now, so that no call finds a wrong row.

    Raises ValueError with the name of a row whose key cannot be read.
    """
    for row in catalog.providers.values():
        if row.configured:
            _module(row.kind)
            key_sources.check(row)


def _module(kind: str) -> ModuleType:
    """The module of a kind: one of this package, or the module with that dotted name."""
    return import_module(kind if "." in kind else f"llm_service.providers.{kind}")


class _Lazy:
    def __init__(self, row: Provider, times: Mapping[str, float]) -> None:
        self._row, self._times = row, times
        self._upstream: Upstream | None = None

    def events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        if self._upstream is None:
            self._upstream = _module(self._row.kind).connect(self._row, **self._times)
        upstream: Upstream = self._upstream
        return upstream.events(call, target, cancel)
