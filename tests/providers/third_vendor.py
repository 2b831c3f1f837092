"""A provider of a third vendor: the model is in the path, the token changes every second, and each body is signed.

The catalogue names this module: ``kind = "tests.providers.third_vendor"``. Such a vendor needs no other code. Its
format is OpenAI's chat.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Iterator, Mapping

import httpx2

from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.errors import UnsupportedParameter
from llm_service.core.events import Event
from llm_service.core.target import Provider, Target
from llm_service.formats import openai_chat
from llm_service.providers import exchange
from llm_service.providers.http.credentials import ExpiringToken
from llm_service.providers.lanes import Lanes

SECRET = b"the third vendor's signing secret"


def token_of(second: int) -> str:
    return f"token-{second}"


def signature_of(url: str, body: bytes) -> str:
    return hmac.new(SECRET, url.encode() + b"\n" + body, hashlib.sha256).hexdigest()


def connect(row: Provider, *, tick: float, echo_delay: float, batch_window: float = 0.0) -> ThirdVendor:
    return ThirdVendor(row, tick)


class ThirdVendor:
    def __init__(self, row: Provider, tick: float) -> None:
        assert row.base_url is not None
        self._base_url = row.base_url
        lanes = self._lanes = Lanes(row, row.base_url, ExpiringToken(_fetch), self._post, tick, sign=_sign)
        self._chat = lanes.add_verbatim(lanes.lane(openai_chat, "/models/{model}:generate"))

    def events(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event]:
        if call.kind != "generate":  # it has no route for embeddings and for counting tokens
            raise UnsupportedParameter("The provider of this model only generates text.", param="model")
        return self._lanes.verbatim(call, target, cancel) or exchange.events(self._chat, call, target, cancel)

    def _post(self, http_client: httpx2.Client, path: str, key: str, headers: dict[str, str]) -> object:
        return http_client.post(self._base_url + path, headers={**headers, "Authorization": f"Token {key}"})


def _fetch() -> tuple[str, float]:
    """A token that is valid until the current second ends."""
    now = time.time()
    return token_of(int(now)), 1.0 - now % 1.0


def _sign(method: str, url: str, body: bytes) -> Mapping[str, str]:
    return {"X-Signature": signature_of(url, body)}
