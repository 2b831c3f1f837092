"""The lanes of a provider: one for each of its routes, by the wire format of the route.

A call whose client speaks the format of a lane takes that lane verbatim, if the
lane serves the call's model. Any other call is read into a conversation, and the
provider chooses the lane that can carry it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx2

from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.conversation import Conversation
from llm_service.core.events import Event
from llm_service.core.target import Provider, Target
from llm_service.formats import RelayedFormat, registry
from llm_service.providers import exchange
from llm_service.providers.http.sdk_head import Endpoint, Signed, Wire

Headers = Callable[[Call, Mapping[str, Any], bool], Mapping[str, str]]
JSON = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


def json_headers(call: Call, body: Mapping[str, Any], verbatim: bool) -> Mapping[str, str]:
    """The headers of a request beside those that the SDK writes, for a vendor that wants no others."""
    return JSON


def path_of(template: str) -> Callable[[Call, Target], str]:
    """The path of a request; ``{model}`` in it becomes the target's model, percent-encoded."""
    if "{model}" not in template:
        return lambda call, target: template
    return lambda call, target: template.replace("{model}", quote(target.model, safe=""))


class Lanes:
    """The lanes of one provider row: only those whose format the row lists (``Provider.formats``).

    ``post(http_client, path, key, headers)`` makes the vendor's SDK send an empty body;
    ``key`` returns the key or token of now; ``sign`` is as in ``Endpoint``.
    """

    def __init__(
        self,
        row: Provider,
        base_url: str,
        key: Callable[[], str],
        post: Callable[[httpx2.Client, str, str, dict[str, str]], object],
        tick: float,
        headers: Headers = json_headers,
        sign: Signed | None = None,
    ) -> None:
        self._row, self._base_url, self._key, self._post = row, base_url, key, post
        self._tick, self._headers, self._sign = tick, headers, sign
        self._own: dict[object, tuple[exchange.Lane, Callable[[Target], bool]]] = {}  # by the client's format

    def lane(
        self, format: RelayedFormat, path: str, left_out: Callable[[Call], tuple[str, ...]] = lambda call: ()
    ) -> exchange.Lane:
        """A lane to ``path``. ``left_out`` names what is left out of a body that travels verbatim."""
        endpoint = Endpoint(self._base_url, path_of(path), self._key, self._post, self._sign)
        return exchange.Lane(format, Wire(endpoint), self._headers, self._tick, left_out)

    def own(self, lane: exchange.Lane, serves: Callable[[Target], bool] = lambda target: True) -> exchange.Lane:
        """Let clients that speak the format of ``lane`` take it for the targets that it serves."""
        if registry.serves(self._row, lane.format):
            self._own[lane.format] = (lane, serves)
        return lane

    def verbatim(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event] | None:
        """The events of a call that has a lane of its own; None if it must cross."""
        own = self._own.get(registry.format_of(call))
        if own is None or not own[1](target):
            return None
        return exchange.events(own[0], call, target, cancel)


def conversation_of(call: Call) -> Conversation:
    """The conversation of a call that crosses. Raises UnsupportedParameter naming what cannot cross."""
    return registry.format_of(call).read_request(call.body, call.headers)
