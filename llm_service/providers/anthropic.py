"""Anthropic through the official SDK, with the API version chosen per call.

Version 2026-10-21 (the SDK's default) rejects ``temperature``, ``top_p`` and
``top_k``; 2023-06-01 accepts them for the models that have them. A client's body
that travels verbatim keeps the version that the client chose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import anthropic
import httpx2

from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import UnsupportedParameter
from llm_service.core.events import Event
from llm_service.core.target import Provider, Target
from llm_service.formats import anthropic_messages
from llm_service.formats.small import count_tokens
from llm_service.providers import exchange
from llm_service.providers.http.credentials import key_of
from llm_service.providers.lanes import JSON, Lanes

DEFAULT_BASE_URL = "https://api.anthropic.com"
SAMPLING_VERSION = "2023-06-01"
_SAMPLING = ("temperature", "top_p", "top_k")


def connect(row: Provider, *, tick: float, echo_delay: float, batch_window: float = 0.0) -> Anthropic:
    return Anthropic(row, tick)


class Anthropic:
    def __init__(self, row: Provider, tick: float) -> None:
        self._row = row
        self._base_url = row.base_url or DEFAULT_BASE_URL
        lanes = self._lanes = Lanes(row, self._base_url, key_of(row), self._post, tick, _headers)
        left_out = partial(anthropic_messages.left_out, to_anthropic=not row.own_address)
        self.messages = lanes.add_verbatim(lanes.lane(anthropic_messages, "/v1/messages", left_out))
        self.counting = lanes.add_verbatim(lanes.lane(count_tokens, "/v1/messages/count_tokens"))

    def events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        if call.kind == "count" and not self._row.counts_tokens:
            raise UnsupportedParameter(
                "The tokens of this model cannot be counted, because its provider has no route that counts tokens.",
                param="model",
            )
        verbatim = self._lanes.verbatim(call, target, cancel)
        if verbatim is not None:
            return verbatim
        return exchange.events(self.counting if call.kind == "count" else self.messages, call, target, cancel)

    def _post(self, http_client: httpx2.Client, path: str, key: str, headers: dict[str, str]) -> object:
        # With open_telemetry the SDK would trace by itself and send trace headers to the vendor.
        client = anthropic.Anthropic(
            api_key=key, base_url=self._base_url, max_retries=0, http_client=http_client, open_telemetry=False
        )
        if not self._row.is_the_vendor:
            client._custom_headers = {}  # ANTHROPIC_CUSTOM_HEADERS are for Anthropic and for nobody else
        return client.post(path, cast_to=httpx2.Response, content=b"", options={"headers": headers})


def _headers(call: Call, body: Mapping[str, Any], verbatim: bool) -> Mapping[str, str]:
    headers = dict(JSON)
    if verbatim:
        # The API requires a version. A client that sends none (such as plain curl) gets the oldest one.
        headers["anthropic-version"] = call.headers.get("anthropic-version", SAMPLING_VERSION)
        if "anthropic-beta" in call.headers:
            headers["anthropic-beta"] = call.headers["anthropic-beta"]
    elif any(name in body for name in _SAMPLING):
        headers["anthropic-version"] = SAMPLING_VERSION
    return headers
