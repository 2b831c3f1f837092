"""OpenAI, and every server that speaks its API, through the official SDK.

The SDK keeps authentication, base URL, headers and typed errors; its typed
methods are left out (``client.post`` costs a tenth on long conversations, see
the measurements in the SDK's ``maybe_transform``), and so are its retries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import openai

from llm_service import catalog
from llm_service.cancellation import Cancel
from llm_service.conversation import Call, Event
from llm_service.dialects import chat
from llm_service.providers import exchange
from llm_service.providers.clients import http_client

DEFAULT_BASE_URL = "https://api.openai.com/v1"


def connect(row: catalog.Provider, *, tick: float, echo_delay: float) -> OpenAI:
    return OpenAI(row, tick)


class OpenAI:
    def __init__(self, row: catalog.Provider, tick: float) -> None:
        self._row = row
        self._client: openai.OpenAI | None = None
        self._vendor = exchange.Vendor(
            dialect=chat,
            path="/chat/completions",
            post=self._post,
            headers=_headers,
            status_error=openai.APIStatusError,
            connection_error=openai.APIConnectionError,
            tick=tick,
        )

    def events(self, call: Call, target: catalog.Target, cancel: Cancel) -> Iterator[Event]:
        return exchange.events(self._vendor, call, target, cancel)

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> httpx2.Response:
        if self._client is None:
            base_url = self._row.base_url or DEFAULT_BASE_URL
            # A keyless server gets a word where the SDK insists on a key.
            self._client = openai.OpenAI(
                api_key=self._row.key or "none",
                base_url=base_url,
                max_retries=0,
                http_client=http_client(base_url),
            )
        response: Any = self._client.post(
            path,
            cast_to=httpx2.Response,
            content=body,
            options={"headers": dict(headers)},
            stream=True,
            stream_cls=openai.Stream[object],
        )
        assert isinstance(response, httpx2.Response)
        return response


def _headers(call: Call, body: Mapping[str, Any], verbatim: bool) -> Mapping[str, str]:
    return {"Content-Type": "application/json", "Accept-Encoding": "identity"}
