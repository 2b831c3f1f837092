"""Calls, targets, recorded streams, and the official SDKs that read bytes of this service."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
from hypothesis import strategies as st

from llm_service.catalog.prices import Rates
from llm_service.core.call import Call, Caller
from llm_service.core.conversation import Conversation
from llm_service.core.events import Event, Relay
from llm_service.core.target import Provider, Target, Timeouts
from llm_service.core.usage import Usage
from llm_service.formats import StreamDecoder, StreamEncoder, sse

FIXTURES = Path(__file__).parents[1] / "fixtures" / "upstream"
TURN = [{"role": "user", "content": "Hello"}]

# Plausible counts: no part is larger than the whole.
USAGES = st.builds(
    lambda plain, cached, wrote, said, thought: Usage(
        plain + cached + wrote, said + thought, cached, wrote, reasoning_tokens=thought
    ),
    st.integers(1, 10**6),
    *[st.integers(0, 10**6)] * 2,
    st.integers(1, 10**6),
    st.integers(0, 10**6),
)


def call(format: str, body: Mapping[str, Any], *, stream: bool = False, **facts: Any) -> Call:
    return Call(
        id="01hzy3v7k4e8w9d2n5q6r7s8t0",
        request_id="req-1",
        route="/test",
        format=format,
        model=body.get("model", "fast"),
        stream=stream,
        body=body,
        caller=Caller(key_id="k"),
        created=1_700_000_000,
        **{"body_bytes": 400, **facts},
    )


def asked_by(format: Any, conversation: Conversation) -> Conversation:
    """``conversation`` as a client of ``format`` sends it, with the names of that format."""
    return replace(conversation, field_names=format.FIELD_NAMES)


def target(kind: str = "openai", model: str = "gpt-4o-mini", **facts: Any) -> Target:
    provider = Provider(name=kind, kind=kind, key="k", **facts.pop("provider", {}))
    rates = Rates(input=Decimal("1.25"), output=Decimal(10))
    return Target(**{"provider": provider, "model": model, "timeouts": Timeouts(), "price": rates, **facts})


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def fixture_names(folder: str, pattern: str = "*.sse") -> list[str]:
    return sorted(f"{folder}/{path.name}" for path in (FIXTURES / folder).glob(pattern))


def recorded(name: str) -> dict[str, Any]:
    """The last recorded response of a file of request and response pairs."""
    body: dict[str, Any] = json.loads(fixture(f"anthropic/recorded/{name}"))[-1]["response"]["body"]
    return body


def read(reader: StreamDecoder, *pieces: bytes) -> list[Event]:
    """The events of a stream that arrives in ``pieces``."""
    splitter = sse.Splitter()
    events = [event for piece in pieces for event in reader.feed_many(splitter.feed(piece))]
    return events + list(reader.feed_many(splitter.end()))


def sse_blocks(stream: bytes) -> list[bytes]:
    """The blocks of a whole stream."""
    splitter = sse.Splitter()
    return [*splitter.feed(stream), *splitter.end()]


def relayed(events: Iterable[Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Relay))


def written(frames: StreamEncoder, events: Iterable[Event]) -> bytes:
    return b"".join(frames.feed(event) for event in events)


def data_of(stream: bytes) -> list[Any]:
    """The JSON of each event of a stream; its ``[DONE]`` as a string."""
    parsed = [sse.parse(block)[1] for block in sse.Splitter().feed(stream)]
    return [json.loads(data) if data != b"[DONE]" else "[DONE]" for data in parsed if data]


def answering(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> httpx2.Client:
    """An HTTP client whose server always answers ``content``."""
    kind = "application/json" if content.startswith(b"{") else "text/event-stream"

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=content, headers={"content-type": kind, **(headers or {})})

    return httpx2.Client(transport=httpx2.MockTransport(answer))


def openai_client(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> openai.OpenAI:
    client = answering(content, status, headers)
    return openai.OpenAI(api_key="k", base_url="http://service/v1", http_client=client, max_retries=0)


def anthropic_client(
    content: bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> anthropic.Anthropic:
    client = answering(content, status, headers)
    return anthropic.Anthropic(api_key="k", base_url="http://service", http_client=client, max_retries=0)
