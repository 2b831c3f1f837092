"""A client that sends many requests over one connection."""

from __future__ import annotations

from typing import Any

from tests.support.raw import Raw, Reply
from tests.support.server import HIGH_RPM, Server

MEBIBYTE = 1024 * 1024


class Sender:
    """Sends requests with a key of its own and records the statuses, so that a test can compare them with the rows."""

    def __init__(self, service: Server) -> None:
        self.service = service
        issued = service.create_key(rpm=HIGH_RPM)
        self.key, self.key_id = issued.text, issued.stored.id
        self.sent: dict[str, int] = {}
        self._raw: Raw | None = None

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        if self._raw is None:
            self._raw = self.service.raw(timeout=20)
        self._raw.request(method, path, body, self.key, headers)
        return self._keep(self._raw.read_reply())

    def send_chunked(self, path: str, body: bytes) -> Reply:
        """Send a chunked body in pieces of one mebibyte."""
        pieces = (body[start : start + MEBIBYTE] for start in range(0, len(body), MEBIBYTE))
        content = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        raw = self._raw = self._raw or self.service.raw(timeout=20)
        raw.request("POST", path, None, self.key, {"Transfer-Encoding": "chunked"})
        raw.send(content)
        return self._keep(raw.read_reply())

    def _keep(self, reply: Reply) -> Reply:
        self.sent[reply.headers["x-request-id"]] = reply.status
        if reply.headers.get("connection") == "close":
            self.close()
        return reply

    def close(self) -> None:
        if self._raw is not None:
            self._raw.close()
            self._raw = None
