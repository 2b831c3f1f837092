"""The address of a client, which trusted proxies write in several forms, and the part of it that limits count."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final

from werkzeug.middleware.proxy_fix import ProxyFix

# ``203.0.113.9:51234``, ``[2001:db8::1]:443`` and ``[2001:db8::1]``. An IPv6 address without brackets has no port.
_WITH_PORT: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|([0-9.]+):\d+")
_IPV6_PREFIX: Final = 64


def behind_proxies(wsgi_app: Any, trusted: int) -> Any:
    """The application behind ``trusted`` proxies. Their ``X-Forwarded-For`` says who the client is."""

    def without_port(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["REMOTE_ADDR"] = bare(environ.get("REMOTE_ADDR", ""))
        answer: Iterable[bytes] = wsgi_app(environ, start_response)
        return answer

    return ProxyFix(without_port, x_for=trusted)


def bare(address: str) -> str:
    """``address`` without a port and without brackets."""
    found = _WITH_PORT.fullmatch(address.strip())
    return (found[1] or found[2]) if found else address


@lru_cache(maxsize=4096)
def counted(address: str) -> str:
    """What a limit per address counts: an IPv4 address, or the /64 network of an IPv6 address.

    A host has a whole /64 network of IPv6 addresses, so a limit per address would not bind it.
    """
    try:
        known = ip_address(address)
    except ValueError:
        return address or "unknown"
    if not isinstance(known, IPv6Address):
        return address
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ip_network((known, _IPV6_PREFIX), strict=False))
