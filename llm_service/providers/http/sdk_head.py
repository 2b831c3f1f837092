"""The head of a vendor's request: the vendor's SDK writes it once, and one transport sends it with each body.

An SDK takes 0.2 ms of processor time to write a request (options, merging of
headers, URLs), as much as a bare Flask endpoint takes in total, and it writes the
same head every time. So it writes one head for each path, key and set of headers,
and the head is kept. The SDK stays in charge of authentication, URL, version and
its own headers.

A lane of a provider describes its requests with an ``Endpoint``:

* ``path`` may depend on the call and its target, such as a model in the path;
* ``key`` is called for each request, so a token may expire: a new token gets a new head. If the vendor refuses it with
  401 and it can be renewed, the request is sent once more with the new one;
* ``finish`` changes the headers that the SDK has written, as the provider's row says;
* ``sign`` adds headers that depend on the body, such as a signature.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from llm_service.core.call import Call
from llm_service.core.target import Target
from llm_service.providers.http.credentials import Key
from llm_service.providers.http.proxied import Proxied
from llm_service.providers.http.transport import Scope, Transport

# Callers choose a part of the heads (anthropic-beta, model names), so their number must be limited.
_MAX_HEADS = 256

# (method, url, body) -> the headers that are added to the request.
Signer = Callable[[str, str, bytes], Mapping[str, str]]


class Reply(Protocol):
    """A vendor's answer with any status. Its body is not read yet. ``close`` must be called.

    Reading raises UpstreamBroken, UpstreamTimeout, or the reason of the call's Cancel.
    """

    @property
    def status(self) -> int: ...

    def header(self, name: str) -> str:
        """The value of the header with this lower-case name; "" if there is none."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the body was read to an end that its headers announced, not only to the end of the connection."""
        ...

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives; ``b""`` whenever nothing arrived for a tick."""
        ...

    def read(self) -> bytes:
        """The whole body."""
        ...

    def drain(self) -> None:
        """Read the few bytes that may follow a stream's terminal event, so that the connection can be reused."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the requests of a lane go, and how they are authenticated.

    ``post(http_client, path, key, headers)`` makes the vendor's SDK send an empty
    body to ``path``. ``finish(headers, key)`` changes the headers that the SDK wrote.
    ``sign(method, url, body)`` returns the headers that are added to one request.
    """

    base_url: str
    path: Callable[[Call, Target], str]
    key: Key
    post: Callable[[httpx2.Client, str, str, dict[str, str]], object]
    sign: Signer | None = None
    finish: Callable[[httpx2.Headers, str], None] | None = None


@dataclass(frozen=True, slots=True)
class _Head:
    """A head that an SDK has written. ``send`` sends it with a body and, if requests are signed, with more headers."""

    url: str
    send: Callable[[bytes, Scope, Mapping[str, str] | None], Reply]


class Wire:
    """Sends bodies to an endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._heads: dict[tuple[Any, ...], _Head] = {}

    def ask(self, call: Call, target: Target, body: bytes, headers: Mapping[str, str], scope: Scope) -> Reply:
        """Send ``body`` and return the answer before its body is read.

        Raises UpstreamUnreachable, UpstreamTimeout, UpstreamBroken, or the reason of the call's Cancel.
        """
        path, key = self._endpoint.path(call, target), self._endpoint.key()
        reply = self._send(path, key, body, headers, scope)
        if reply.status == 401 and self._endpoint.key.renew(key):
            reply.close()
            reply = self._send(path, self._endpoint.key(), body, headers, scope)
        return reply

    def _send(self, path: str, key: str, body: bytes, headers: Mapping[str, str], scope: Scope) -> Reply:
        endpoint, process = self._endpoint, os.getpid()
        head_key = (process, path, key, *headers.items())
        head = self._heads.get(head_key)
        if head is None:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            request = self._write_head(path, key, dict(headers))
            head = _Head(str(request.url), _transport(endpoint.base_url, process).prepare(request))
            self._heads[head_key] = head
        return head.send(body, scope, None if endpoint.sign is None else endpoint.sign("POST", head.url, body))

    def _write_head(self, path: str, key: str, headers: dict[str, str]) -> httpx2.Request:
        recorder = _Recorder()
        with httpx2.Client(transport=recorder, follow_redirects=False, trust_env=False) as client:
            self._endpoint.post(client, path, key, headers)
        assert recorder.request is not None, "the SDK sends one request"
        if self._endpoint.finish is not None:
            self._endpoint.finish(recorder.request.headers, key)
        return recorder.request


class _Recorder(httpx2.BaseTransport):
    """Keeps a request instead of sending it."""

    request: httpx2.Request | None = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.request = request
        return httpx2.Response(200, json={})


def _transport(base_url: str, process: int) -> Transport | Proxied:
    """The transport that all requests of this process share. Each worker has its own, as sockets cannot be shared."""
    parts = urlsplit(base_url)
    proxy = getproxies().get(parts.scheme)
    return _proxied(process) if proxy and not proxy_bypass(parts.hostname or "") else _direct(process)


@cache
def _direct(process: int) -> Transport:
    return Transport()


@cache
def _proxied(process: int) -> Proxied:
    return Proxied()
