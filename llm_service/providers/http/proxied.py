"""HTTP to the vendors through the environment's proxy (HTTPS_PROXY, ALL_PROXY, ...), with httpx2.

It replaces ``transport`` where a proxy is needed, and can do less: it has one
time-out per operation instead of four deadlines, it does not report idle time, and a
call that waits for the vendor cannot be cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx2

from llm_service.core.errors import UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from llm_service.providers.http.transport import IDLE_EXPIRY, Scope

_LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=IDLE_EXPIRY)


class Proxied:
    def __init__(self) -> None:
        self._client = httpx2.Client(limits=_LIMITS, follow_redirects=False)

    def prepare(self, request: httpx2.Request) -> Callable[[bytes, Scope, Mapping[str, str] | None], ProxiedReply]:
        """A function that sends ``request`` with another body; it raises as ``Transport.ask`` does."""
        headers = [(name, value) for name, value in request.headers.multi_items() if name != "content-length"]

        def send(body: bytes, scope: Scope, more: Mapping[str, str] | None = None) -> ProxiedReply:
            scope.cancel.check()
            limits = scope.timeouts
            timeout = httpx2.Timeout(max(limits.first_byte, limits.idle), connect=limits.connect)
            sent = httpx2.Request(
                request.method,
                request.url,
                headers=[*headers, *(more or {}).items()],
                content=body,
                extensions={"timeout": timeout.as_dict()},
            )
            with _our_errors():
                return ProxiedReply(self._client.send(sent, stream=True))

        return send

    def close(self) -> None:
        self._client.close()


class ProxiedReply:
    """The same methods as ``transport.Reply``."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self.status = response.status_code

    def header(self, name: str) -> str:
        return self._response.headers.get(name, "")

    @property
    def complete(self) -> bool:
        """As in ``transport.Reply``. httpx2 raises if a body with a length ends early."""
        headers = self._response.headers
        framed = "content-length" in headers or "transfer-encoding" in headers
        return self._response.is_stream_consumed and (framed or self._response.http_version == "HTTP/2")

    def pieces(self) -> Iterator[bytes]:
        with _our_errors():
            yield from self._response.iter_bytes()

    def read(self) -> bytes:
        with _our_errors():
            return self._response.read()

    def drain(self) -> None:
        """httpx2 keeps the connection by itself if the answer was read to its end."""

    def close(self) -> None:
        self._response.close()


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except httpx2.TimeoutException:
        raise UpstreamTimeout("The provider did not answer in time.") from None
    except (httpx2.RemoteProtocolError, httpx2.DecodingError):
        raise UpstreamBroken("The provider's answer is incomplete or malformed.") from None
    except httpx2.HTTPError:
        raise UpstreamUnreachable("The provider could not be reached.") from None
