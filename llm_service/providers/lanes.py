"""The lanes of a provider: one for each of its routes. A lane has the wire format of its route.

If the client speaks the format of a lane and the lane takes the call, the
client's body travels on that lane verbatim. Any other call crosses: it is decoded
into a conversation, and the provider chooses the lane for it.
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
from llm_service.providers.http.credentials import Key
from llm_service.providers.http.sdk_head import Endpoint, Signer, Wire

Headers = Callable[[Call, Mapping[str, Any], bool], Mapping[str, str]]
JSON = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


def json_headers(call: Call, body: Mapping[str, Any], verbatim: bool) -> Mapping[str, str]:
    """The headers that are added to the SDK's own, for a vendor that needs only these."""
    return JSON


def path_of(template: str) -> Callable[[Call, Target], str]:
    """A function that returns the path of a request: ``{model}`` is replaced by the target's model, percent-encoded."""
    if "{model}" not in template:
        return lambda call, target: template
    return lambda call, target: template.replace("{model}", quote(target.model, safe="@"))


def finisher(row: Provider) -> Callable[[httpx2.Headers, str], None] | None:
    """What a row changes in the headers that an SDK wrote: the header of the key, and headers of its own."""
    own_header = row.key_header.lower() != "authorization"
    if not own_header and not row.headers:
        return None

    def finish(headers: httpx2.Headers, key: str) -> None:
        if own_header:
            headers.pop("authorization", None)
            if row.key is not None or not row.keyless:
                headers[row.key_header] = key
        for name, value in row.headers.items():
            headers[name] = value

    return finish


class Lanes:
    """The lanes of one provider row.

    ``post(http_client, path, key, headers)`` makes the vendor's SDK send an empty body;
    ``key`` is the current key or token; ``sign`` is as in ``Endpoint``.
    """

    def __init__(
        self,
        row: Provider,
        base_url: str,
        key: Key,
        post: Callable[[httpx2.Client, str, str, dict[str, str]], object],
        tick: float,
        headers: Headers = json_headers,
        sign: Signer | None = None,
    ) -> None:
        self._row, self._base_url, self._key, self._post = row, base_url, key, post
        self._tick, self._headers, self._sign = tick, headers, sign
        # By the client's format: the lane, and whether it takes a call to a target.
        self._verbatim: dict[object, tuple[exchange.Lane, Callable[[Call, Target], bool]]] = {}

    def lane(
        self, format: RelayedFormat, path: str, left_out: Callable[[Call], tuple[str, ...]] = lambda call: ()
    ) -> exchange.Lane:
        """A lane to ``path``, or to the row's own path for the format.

        ``left_out`` names the fields that are left out of a body that travels verbatim.
        """
        own, own_stream = registry.paths(self._row, format, path)
        plain, streamed = path_of(own), path_of(own_stream)

        def path_for(call: Call, target: Target) -> str:
            return streamed(call, target) if call.stream else plain(call, target)

        endpoint = Endpoint(self._base_url, path_for, self._key, self._post, self._sign, finisher(self._row))
        names_model = own == path or "{model}" not in own
        return exchange.Lane(format, Wire(endpoint), self._headers, self._tick, left_out, names_model)

    def add_verbatim(
        self, lane: exchange.Lane, takes: Callable[[Call, Target], bool] = lambda call, target: True
    ) -> exchange.Lane:
        """Let bodies in the format of ``lane`` travel on it verbatim, if it ``takes`` the call to its target.

        Nothing is added if the row does not list the format (``Provider.formats``).
        """
        if registry.serves(self._row, lane.format):
            self._verbatim[lane.format] = (lane, takes)
        return lane

    def verbatim(self, call: Call, target: Target, cancel: Cancel) -> Iterator[Event] | None:
        """The events of a call whose body can travel verbatim; None if it must cross."""
        entry = self._verbatim.get(registry.format_of(call))
        if entry is None:
            return None
        lane, takes = entry
        if not takes(call, target):
            return None
        return exchange.events(lane, call, target, cancel)


def conversation_of(call: Call) -> Conversation:
    """The conversation of a call that crosses. Raises UnsupportedParameter with the field that cannot cross."""
    return registry.format_of(call).read_request(call.body, call.headers)
