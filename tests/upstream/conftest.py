"""The scripted vendor and the official SDKs as its clients, without the service between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.upstream import ANTHROPIC_KEY, OPENAI_KEY, Upstream

HELLO: Any = [{"role": "user", "content": "Hello there"}]
CLAUDE, GPT = "claude-haiku-4-5", "gpt-4o-mini"


def claude_headers(version: str = "2023-06-01") -> dict[str, str]:
    return {"x-api-key": ANTHROPIC_KEY, "anthropic-version": version}


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def vendor(server: Upstream) -> Upstream:
    server.reset()
    return server


@pytest.fixture
def claude(vendor: Upstream) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=vendor.url, api_key=ANTHROPIC_KEY, max_retries=0, timeout=5) as client:
        yield client


@pytest.fixture
def gpt(vendor: Upstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=vendor.openai_url, api_key=OPENAI_KEY, max_retries=0, timeout=5) as client:
        yield client
