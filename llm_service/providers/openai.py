"""OpenAI, and every server that speaks its API, through the official SDK.

The SDK writes authentication, URL and headers (``http/sdk_head``). Three parts of it
are not used: its typed methods, because they have no types for fields that they do
not know, its retries, and its stream decoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import partial

import httpx2
import openai

from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import UnsupportedParameter
from llm_service.core.events import Event
from llm_service.core.target import Provider, Target
from llm_service.formats import openai_chat, openai_responses
from llm_service.formats.small import completions, embeddings, input_tokens
from llm_service.providers import exchange
from llm_service.providers.embeddings_batcher import EmbeddingsBatcher
from llm_service.providers.http.credentials import key_of
from llm_service.providers.lanes import Lanes, conversation_of

DEFAULT_BASE_URL = "https://api.openai.com/v1"


def connect(row: Provider, *, tick: float, echo_delay: float, batch_window: float = 0.0) -> OpenAI:
    return OpenAI(row, tick, batch_window)


class OpenAI:
    def __init__(self, row: Provider, tick: float, batch_window: float = 0.0) -> None:
        self._row = row
        self._base_url = row.base_url or DEFAULT_BASE_URL
        lanes = self._lanes = Lanes(row, self._base_url, key_of(row), self._post, tick)
        left_out = partial(openai_chat.left_out, to_openai=not row.own_address)
        self.chat = lanes.add_verbatim(lanes.lane(openai_chat, "/chat/completions", left_out), openai_chat.takes)
        self.completions = lanes.add_verbatim(lanes.lane(completions, "/completions"), self._serves_completions)
        unreadable = partial(openai_responses.left_out, provider=row)
        self.responses = lanes.lane(openai_responses, "/responses", unreadable)
        self.counting = lanes.lane(input_tokens, "/responses/input_tokens", unreadable)
        if row.responses:
            lanes.add_verbatim(self.responses)
        if row.counts_tokens:
            lanes.add_verbatim(self.counting)
        self.embeddings = EmbeddingsBatcher(lanes.lane(embeddings, "/embeddings"), batch_window)

    def events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        if call.kind == "embed":
            return self.embeddings.events(call, target, cancel)
        verbatim = self._lanes.verbatim(call, target, cancel)
        if verbatim is not None:
            return verbatim
        if call.kind == "count":
            return self._count(call, target, cancel)
        conversation = conversation_of(call)
        if not (self._row.chat or self._row.responses):
            raise UnsupportedParameter("The provider of this model has no route that generates text.", param="model")
        to_responses = not self._row.chat or openai_responses.needed(conversation, target)
        lane = self.responses if to_responses else self.chat
        return exchange.events(lane, call, target, cancel, conversation)

    def _count(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        if not self._row.counts_tokens:
            raise UnsupportedParameter(
                "The tokens of this model cannot be counted, because its provider has no route that counts tokens.",
                param="model",
            )
        return exchange.events(self.counting, call, target, cancel)

    def _serves_completions(self, call: Call, target: Target) -> bool:
        """Whether the server serves the model at ``/completions``."""
        return any(fnmatchcase(target.model, pattern) for pattern in self._row.completions)

    def _post(self, http_client: httpx2.Client, path: str, key: str, headers: dict[str, str]) -> object:
        client = openai.OpenAI(api_key=key, base_url=self._base_url, max_retries=0, http_client=http_client)
        if not self._row.is_the_vendor:
            # OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS are for OpenAI and for nobody else.
            client.organization = client.project = None
            client._custom_headers = {}
        return client.post(path, cast_to=httpx2.Response, content=b"", options={"headers": headers})
