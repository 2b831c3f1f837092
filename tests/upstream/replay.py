"""Recorded answers, which are sent as they were recorded.

Use ``Step(replay="anthropic/streaming/tool_use_response.sse")``. A file of request and response pairs needs the
number of the pair: ``"anthropic/recorded/NAME.json#1"`` is the second response.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.upstream.answer import Event

FIXTURES = Path(__file__).parent.parent / "fixtures" / "upstream"


@dataclass(frozen=True)
class Recording:
    """``events`` of a stream, or ``body`` of a plain answer. ``reply`` is a JSON object with the last known usage."""

    status: int
    events: list[Event] | None
    body: bytes
    reply: dict[str, Any]


def load(name: str) -> Recording:
    """The recording in a file. Raises FileNotFoundError, and ValueError for a path outside the fixtures folder."""
    name, _, number = name.partition("#")
    path = (FIXTURES / name).resolve()
    if FIXTURES.resolve() not in path.parents:
        raise ValueError(f"{name} is outside {FIXTURES}")
    status, content = 200, path.read_bytes()
    if path.suffix == ".json":
        document = json.loads(content)
        if isinstance(document, list):
            response = document[int(number or 0)]["response"]
            status, document = response["status_code"], response["body"]
        if not isinstance(document, str):
            return Recording(status, None, json.dumps(document).encode(), document)
        content = document.encode()
    return _stream(status, content)


def _stream(status: int, content: bytes) -> Recording:
    events: list[Event] = []
    usage: dict[str, Any] = {}
    blocks = content.replace(b"\r\n", b"\n").split(b"\n\n")
    for block in blocks:
        if not block.strip():
            continue
        value = _data(block)
        whole = next((value[name] for name in ("message", "response") if isinstance(value.get(name), dict)), value)
        usage |= whole.get("usage") or {}
        text = _text(value)
        events.append(Event(block.lstrip(b"\n") + b"\n\n", 1 if text else 0, text))
    return Recording(status, events, b"", {"usage": usage})


def _data(block: bytes) -> dict[str, Any]:
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            try:
                value = json.loads(line[5:])
            except ValueError:
                return {}
            return value if isinstance(value, dict) else {}
    return {}


def _text(value: dict[str, Any]) -> str:
    """The text of one event of any format."""
    delta = value.get("delta")
    if isinstance(delta, dict):
        return delta.get("text") or ""
    if isinstance(delta, str):
        return delta if value.get("type") == "response.output_text.delta" else ""
    choices = value.get("choices") or [{}]
    return (choices[0].get("delta") or {}).get("content") or ""
