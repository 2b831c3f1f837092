"""What the server needs from a vendor's format. There is one object per format, without state."""

from __future__ import annotations

import string
from typing import Any, Protocol

from tests.upstream.answer import Answer, CommonRequest, Event
from tests.upstream.ledger import Bill
from tests.upstream.rejection import Rejected
from tests.upstream.steps import Step

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase

#: Model aliases and the dated names under which the vendors serve them.
DATED = {
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5-nano": "gpt-5-nano-2025-08-07",
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
    "claude-opus-4-5": "claude-opus-4-5-20251101",
}


class Vendor(Protocol):
    name: str

    def common_request(self, body: dict[str, Any]) -> CommonRequest: ...

    def headers(self, request_id: str, serial: int) -> dict[str, str]: ...

    def request_id(self, serial: int) -> str: ...

    def answer_id(self, serial: int) -> str: ...

    def reply(self, body: dict[str, Any], step: Step, answer: Answer, answer_id: str) -> dict[str, Any]: ...

    def events(self, body: dict[str, Any], step: Step, answer: Answer, answer_id: str) -> list[Event]: ...

    def terminal(self, event: bytes) -> bool: ...

    def error(self, rejected: Rejected, request_id: str) -> bytes: ...

    def error_event(self, rejected: Rejected, request_id: str) -> bytes: ...

    def event(self, kind: str, data: bytes) -> bytes: ...

    def error_of(self, status: int) -> tuple[str, str, str | None]: ...

    def bill(self, reply: dict[str, Any]) -> Bill: ...


def identifier(prefix: str, serial: int, length: int) -> str:
    """``prefix`` and ``length`` characters that look random. They depend on ``serial`` only and differ for each."""
    number = serial * 0x9E3779B97F4A7C15 % 2**64 * 0xD1B54A32D192ED03 + serial
    characters = []
    for _ in range(length - 5):
        number, digit = divmod(number * 6364136223846793005 % 2**128 + 1442695040888963407, 62)
        characters.append(_ALPHABET[digit])
    tail = ""
    for _ in range(5):
        serial, digit = divmod(serial, 62)
        tail = _ALPHABET[digit] + tail
    return prefix + "".join(characters) + tail


def overlay(usage: dict[str, Any], step: Step) -> dict[str, Any]:
    """``usage`` with the step's values instead of the true ones. The value "absent" removes a key."""
    merged = {**usage, **(step.usage or {})}
    return {name: value for name, value in merged.items() if value != "absent"}
