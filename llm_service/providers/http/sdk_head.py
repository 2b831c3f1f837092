"""How a request gets from an SDK to the wire: the SDK writes its head, one transport sends it.

An SDK takes 0.2 ms of processor time to write a request (options, merging of
headers, URLs), as much as a bare Flask endpoint takes in all, and writes the
same every time. So it writes one for each set of headers, and that is kept; the
SDK stays in charge of authentication, URL, version and headers of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from llm_service.providers.http.proxied import Proxied
from llm_service.providers.http.transport import Scope, Transport

# The sets of headers hold words of callers (anthropic-beta): what is kept must not grow with them.
_MOST_KEPT = 256


class Reply(Protocol):
    """A vendor's answer, whatever its status; its body is unread. ``close`` must be called.

    Reading raises UpstreamBroken, UpstreamTimeout, or the reason of the call's Cancel.
    """

    @property
    def status(self) -> int: ...

    @property
    def is_event_stream(self) -> bool: ...

    def header(self, name: str) -> str:
        """By its lower-case name; "" without one."""
        ...

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives; ``b""`` for a tick of silence."""
        ...

    def read(self) -> bytes:
        """The whole body."""
        ...

    def drain(self) -> None:
        """Read what little is left after a stream's terminal event, so that the connection can be reused."""
        ...

    def close(self) -> None: ...


class Wire:
    """Sends bodies to one URL of a vendor.

    ``post(http_client, headers)`` makes the vendor's SDK send an empty body there.
    """

    def __init__(self, base_url: str, post: Callable[[httpx2.Client, dict[str, str]], object]) -> None:
        self._base_url, self._post = base_url, post
        self._kept: dict[tuple[Any, ...], Callable[[bytes, Scope], Reply]] = {}

    def ask(self, body: bytes, headers: Mapping[str, str], scope: Scope) -> Reply:
        """Raises UpstreamUnreachable, UpstreamTimeout, UpstreamBroken, or the reason of the call's Cancel."""
        process = os.getpid()
        wanted = (process, *headers.items())
        ask = self._kept.get(wanted)
        if ask is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            ask = self._kept[wanted] = _way(self._base_url, process).prepare(self._request(dict(headers)))
        return ask(body, scope)

    def _request(self, headers: dict[str, str]) -> httpx2.Request:
        recorder = _Recorder()
        with httpx2.Client(transport=recorder, follow_redirects=False, trust_env=False) as client:
            self._post(client, headers)
        assert recorder.request is not None, "the SDK sends one request"
        return recorder.request


class _Recorder(httpx2.BaseTransport):
    """Keeps a request instead of sending it."""

    request: httpx2.Request | None = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.request = request
        return httpx2.Response(200, json={})


def _way(base_url: str, process: int) -> Transport | Proxied:
    """What all requests of this process share: sockets must not be shared between workers."""
    parts = urlsplit(base_url)
    proxy = getproxies().get(parts.scheme)
    return _proxied(process) if proxy and not proxy_bypass(parts.hostname or "") else _direct(process)


@cache
def _direct(process: int) -> Transport:
    return Transport()


@cache
def _proxied(process: int) -> Proxied:
    return Proxied()
