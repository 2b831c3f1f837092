"""One signed POST to the operator's webhook, as standardwebhooks.com specifies it.

It has three headers: ``webhook-id``, which is the same for every attempt, ``webhook-timestamp`` in Unix seconds, and
``webhook-signature``: ``v1,`` and the base64 of HMAC-SHA-256 over ``{id}.{timestamp}.{body}``. A 2xx means that the
message was delivered. Anything else, including a redirect, is a failure. The receiver's answer is neither kept nor
logged.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from llm_service.core.cancellation import Cancel
from llm_service.core.errors import ServiceError
from llm_service.core.money import NANO_PER_DOLLAR
from llm_service.core.target import Timeouts
from llm_service.core.version import __version__
from llm_service.store.alerts import Alert

TIMEOUTS = Timeouts(connect=5.0, first_byte=10.0, idle=10.0, total=10.0)
# Characters that may stand in a path and a query as they are. Spaces, double quotes and the like are encoded.
_SAFE = "/%:@!$&'()*+,;=~-._?"


class Webhook:
    """The address and the key of the webhook; neither is in ``repr``. Safe between greenlets and threads."""

    def __init__(self, url: str, key: bytes, timeouts: Timeouts = TIMEOUTS) -> None:
        """``url`` was checked by the settings."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        self._origin = parts.scheme, host, parts.port or (443 if parts.scheme == "https" else 80)
        path = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
        self._lines = (
            f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: llm-service/{__version__}\r\n"
            "Accept: */*\r\nContent-Type: application/json\r\nConnection: close\r\n"
        )
        self._key = key
        self._timeouts = timeouts

    def send(self, alert: Alert, now: datetime, cancel: Cancel) -> str | None:
        """Deliver one message. Return None, or why it failed: a status, or a word such as ``connect_timeout``.

        This takes at most 10 seconds and the time to look up the host's name. ``cancel`` ends it sooner.
        """
        # Imported here because commands also build the application and need no HTTP client.
        from llm_service.providers.http.transport import Head, Scope, Transport

        body = orjson.dumps(payload(alert))
        signed = "".join(f"{name}: {value}\r\n" for name, value in headers(self._key, alert.id, now, body).items())
        head = Head(self._origin, (self._lines + signed).removesuffix("\r\n").encode("ascii"))
        try:
            reply = Transport().ask(head, body, Scope(self._timeouts, cancel, tick=self._timeouts.total))
            try:
                reply.drain()  # if it were cut off, the receiver might report a failure
                status = reply.status
            finally:
                reply.discard()
        except ServiceError as error:
            return str(error.code).removeprefix("upstream_")
        except UnicodeError:  # a name that cannot be one of a host; from Python 3.13 on a subclass says so
            return UnicodeError.__name__
        except (OSError, ValueError) as error:
            return type(error).__name__
        return None if 200 <= status < 300 else str(status)


def headers(key: bytes, message_id: str, now: datetime, body: bytes) -> dict[str, str]:
    timestamp = int(now.timestamp())
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def payload(alert: Alert) -> dict[str, Any]:
    """The message. It is the same for every attempt."""
    return {
        "type": "budget.threshold_reached",
        "id": alert.id,
        "timestamp": _rfc3339(alert.created_at),
        "data": {
            "threshold_percent": alert.threshold,
            "budget": {
                "scope": alert.scope,
                "kind": alert.scope_kind,
                "name": alert.scope_name or None,
                "model": alert.model or None,
                "amount_usd": alert.amount_nanousd / NANO_PER_DOLLAR,
                "amount_nanousd": alert.amount_nanousd,
                "per": alert.period,
                "period": alert.period_id,
                "resets_at": None if alert.resets_at is None else _rfc3339(alert.resets_at),
            },
            "spent_usd": alert.spent_nanousd / NANO_PER_DOLLAR,
            "spent_nanousd": alert.spent_nanousd,
        },
    }


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
