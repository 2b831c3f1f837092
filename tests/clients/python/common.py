"""What the scripts of all clients share: the task, and one case of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

PROMPT = "Hi"


class Answer(BaseModel):
    """The structured answer that the clients ask for."""

    q: str


@dataclass(frozen=True)
class Service:
    """Where the service is, and what to ask of it. ``api`` is "chat", "responses" or "messages"."""

    base: str
    key: str
    api: str
    model: str

    @property
    def v1(self) -> str:
        """The base URL of OpenAI's clients; Anthropic's add ``/v1`` to ``base`` themselves."""
        return f"{self.base}/v1"


class Look:
    """The tool that the models call. It remembers its results."""

    def __init__(self) -> None:
        self.results: list[str] = []

    def __call__(self, q: str) -> str:
        self.results.append(f"found {q}")
        return self.results[-1]


_LOOP = asyncio.new_event_loop()
asyncio.set_event_loop(_LOOP)


def wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in the only event loop of the process, because connections belong to their loop."""
    return _LOOP.run_until_complete(coroutine)
