"""OpenAI, and every server that speaks its API, through the official SDK.

The SDK keeps authentication, base URL and headers (``clients``); its typed
methods are left out, since it cannot type what it does not know, and so are its
retries and its way of reading streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import httpx2
import openai

from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import UnsupportedParameter
from llm_service.core.events import Event
from llm_service.core.target import Provider, Target
from llm_service.formats import RelayedFormat, registry
from llm_service.formats import openai_chat as chat
from llm_service.formats import openai_responses as responses
from llm_service.formats.small import completions, embeddings, input_tokens
from llm_service.providers import exchange
from llm_service.providers.embeddings_batcher import EmbeddingsBatcher
from llm_service.providers.http.sdk_head import Wire

DEFAULT_BASE_URL = "https://api.openai.com/v1"


def connect(row: Provider, *, tick: float, echo_delay: float, gather: float = 0.0) -> OpenAI:
    return OpenAI(row, tick, gather)


class OpenAI:
    def __init__(self, row: Provider, tick: float, gather: float = 0.0) -> None:
        self._row = row
        self._base_url = row.base_url or DEFAULT_BASE_URL
        self._tick = tick
        self._vendor = self._lane(chat, "/chat/completions")
        self._responses = replace(self._lane(responses, "/responses"), left_out=responses.left_out)
        self._completions = self._lane(completions, "/completions")
        self._counting = self._lane(input_tokens, "/responses/input_tokens")
        self._embeddings = EmbeddingsBatcher(self._lane(embeddings, "/embeddings"), gather)

    def _lane(self, format: RelayedFormat, path: str) -> exchange.Vendor:
        """The way to one of the vendor's routes."""
        wire = Wire(self._base_url, partial(self._post, path))
        return exchange.Vendor(format=format, wire=wire, headers=_headers, tick=self._tick)

    def events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        if call.kind == "embed":
            return self._embeddings.events(call, target, cancel)
        if call.kind == "count":
            return self._count(call, target, cancel)
        if registry.speaks(call, completions) and any(fnmatchcase(target.model, it) for it in self._row.completions):
            return exchange.events(self._completions, call, target, cancel)
        if registry.speaks(call, chat):
            return exchange.events(self._vendor, call, target, cancel)
        if registry.speaks(call, responses) and self._row.responses:
            return exchange.events(self._responses, call, target, cancel)
        conversation = registry.format_of(call).read_request(call.body, call.headers)
        lane = self._responses if responses.needed(conversation, target) else self._vendor
        return exchange.events(lane, call, target, cancel, conversation)

    def _count(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        if not self._row.responses:
            raise UnsupportedParameter("model cannot be counted for: its provider has no such route.", param="model")
        return exchange.events(self._counting, call, target, cancel)

    def _post(self, path: str, http_client: httpx2.Client, headers: dict[str, str]) -> object:
        # A keyless server gets a word where the SDK insists on a key.
        client = openai.OpenAI(
            api_key=self._row.key or "none", base_url=self._base_url, max_retries=0, http_client=http_client
        )
        return client.post(path, cast_to=httpx2.Response, content=b"", options={"headers": headers})


def _headers(call: Call, body: Mapping[str, Any], verbatim: bool) -> Mapping[str, str]:
    return {"Content-Type": "application/json", "Accept-Encoding": "identity"}
