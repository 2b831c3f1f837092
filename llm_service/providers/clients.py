"""The one HTTP client under the SDKs' clients.

A client costs 21 ms to make (CA certificates), so a process has one. It is made
at the first use after the fork: sockets must not be shared between workers.
"""

from __future__ import annotations

import os
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from llm_service.providers.transport import IDLE_EXPIRY, Transport


def http_client(base_url: str) -> httpx2.Client:
    """The shared client, or one through the environment's proxy where that applies to ``base_url``."""
    parts = urlsplit(base_url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        return _proxied(os.getpid())
    return _direct(os.getpid())


@cache
def _direct(pid: int) -> httpx2.Client:
    # follow_redirects: a redirect would take the request, prompt included, to another host.
    return httpx2.Client(transport=Transport(), follow_redirects=False, trust_env=False)


@cache
def _proxied(pid: int) -> httpx2.Client:
    limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=IDLE_EXPIRY)
    return httpx2.Client(limits=limits, timeout=httpx2.Timeout(120.0, connect=5.0), follow_redirects=False)
