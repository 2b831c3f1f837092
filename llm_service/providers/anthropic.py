"""Anthropic through the official SDK: as ``openai``, with the API version chosen per call.

Version 2026-10-21 (the SDK's default) refuses ``temperature``, ``top_p`` and
``top_k``; 2023-06-01 takes them on the models that do. A client's own version
travels on when its body does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import anthropic
import httpx2

from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.events import Event
from llm_service.core.target import Provider, Target
from llm_service.formats import RelayedFormat
from llm_service.formats import anthropic_messages as messages
from llm_service.formats.small import count_tokens
from llm_service.providers import exchange
from llm_service.providers.http.sdk_head import Wire

DEFAULT_BASE_URL = "https://api.anthropic.com"
SAMPLING_VERSION = "2023-06-01"
_SAMPLING = ("temperature", "top_p", "top_k")


def connect(row: Provider, *, tick: float, echo_delay: float, gather: float = 0.0) -> Anthropic:
    return Anthropic(row, tick)


class Anthropic:
    def __init__(self, row: Provider, tick: float) -> None:
        self._row = row
        self._base_url = row.base_url or DEFAULT_BASE_URL
        self._tick = tick
        self._vendor = replace(self._lane(messages, "/v1/messages"), left_out=messages.left_out)
        self._counting = self._lane(count_tokens, "/v1/messages/count_tokens")

    def _lane(self, format: RelayedFormat, path: str) -> exchange.Vendor:
        """The way to one of the vendor's routes."""
        wire = Wire(self._base_url, partial(self._post, path))
        return exchange.Vendor(format=format, wire=wire, headers=_headers, tick=self._tick)

    def events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        return exchange.events(self._counting if call.kind == "count" else self._vendor, call, target, cancel)

    def _post(self, path: str, http_client: httpx2.Client, headers: dict[str, str]) -> object:
        # open_telemetry: the SDK would trace by itself and send trace headers to the vendor.
        client = anthropic.Anthropic(
            api_key=self._row.key or "none",
            base_url=self._base_url,
            max_retries=0,
            http_client=http_client,
            open_telemetry=False,
        )
        return client.post(path, cast_to=httpx2.Response, content=b"", options={"headers": headers})


def _headers(call: Call, body: Mapping[str, Any], verbatim: bool) -> Mapping[str, str]:
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if verbatim:
        # The API requires a version; a bare curl without one means the long-standing one.
        headers["anthropic-version"] = call.headers.get("anthropic-version", SAMPLING_VERSION)
        if "anthropic-beta" in call.headers:
            headers["anthropic-beta"] = call.headers["anthropic-beta"]
    elif any(name in body for name in _SAMPLING):
        headers["anthropic-version"] = SAMPLING_VERSION
    return headers
