"""The processor time of a translation between formats: a text chunk, a relayed chunk, a long conversation.

    python -m benchmarks.crossing_benchmark

It uses only the formats, without sockets. The figures are of this machine; the targets are the project's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from llm_service.core.call import Call, Caller
from llm_service.core.events import Delta, Relay
from llm_service.core.target import Provider, Target, Timeouts
from llm_service.formats import (
    UpstreamFormat,
    sse,
)
from llm_service.formats import (
    anthropic_messages as messages,
)
from llm_service.formats import (
    openai_chat as chat,
)
from llm_service.formats import (
    schema_fields as fields,
)

CHUNKS = 20_000
CHUNKS_PER_READ = 16  # chunks that arrive in one network read
TURNS = 1_000
ROUNDS = 5

CHAT = Target(Provider("openai", "openai"), "gpt-4o-mini", Timeouts())
MESSAGES = Target(Provider("anthropic", "anthropic"), "claude-haiku-4-5", Timeouts(), max_output=64_000)


def call(dialect: str, body: dict[str, Any]) -> Call:
    return Call(
        id="01hzy3v7k4e8w9d2n5q6r7s8t0",
        request_id="r",
        route="/",
        format=dialect,
        model="m",
        stream=True,
        body=body,
        caller=Caller(key_id="k"),
    )


def openai_stream() -> list[bytes]:
    head = {
        "id": "chatcmpl-C4Hq5aWuQNXhbWuQNXhbWuQN",
        "object": "chat.completion.chunk",
        "created": 1755137921,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_5050236cbd",
    }
    chunks = [{"index": 0, "delta": {"content": f" word{n % 97}"}, "finish_reason": None} for n in range(CHUNKS)]
    ends = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    return [sse.json_frame({**head, "choices": [choice], "usage": None}) for choice in (*chunks, *ends)]


def anthropic_stream() -> list[bytes]:
    usage = {"input_tokens": 9, "output_tokens": 1}
    message = {"model": "claude-haiku-4-5", "content": [], "usage": usage}
    start: dict[str, Any] = {"type": "message_start", "message": message}
    block: dict[str, Any] = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    chunks: list[dict[str, Any]] = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f" word{n % 97}"}}
        for n in range(CHUNKS)
    ]
    return [sse.json_frame(event, str(event["type"]).encode()) for event in (start, block, *chunks)]


def reads(blocks: list[bytes]) -> list[bytes]:
    return [b"".join(blocks[start : start + CHUNKS_PER_READ]) for start in range(0, len(blocks), CHUNKS_PER_READ)]


def relay(stream: Iterable[bytes], upstream: UpstreamFormat, request: Call, client: UpstreamFormat) -> int:
    """Send ``stream`` through the formats. Returns the number of bytes that a client gets."""
    splitter = sse.Splitter()
    verbatim = upstream is client
    reader = upstream.Passthrough(request) if verbatim else upstream.StreamDecoder(request)
    frames = client.StreamEncoder(request)
    sent = 0
    for data in stream:
        for event in reader.feed_many(splitter.feed(data)):
            assert not verbatim or type(event) is not Delta
            assert verbatim or type(event) is not Relay
            sent += len(frames.feed(event))
    return sent


def conversation() -> bytes:
    """A request with 1,000 turns, about 1 MB, as an SDK sends it."""
    text = "All work and no play makes a dull conversation. " * 20
    turns = [{"role": ("user", "assistant")[n % 2], "content": f"{n} {text}"} for n in range(TURNS - 1)]
    return orjson.dumps({"model": "m", "max_tokens": 100, "messages": [*turns, {"role": "user", "content": "Go on"}]})


def forward(raw: bytes) -> int:
    body = messages.check(fields.load_json(raw))
    return len(orjson.dumps(messages.forward(call("messages", body), MESSAGES)))


def translate(raw: bytes) -> int:
    body = messages.check(fields.load_json(raw))
    return len(orjson.dumps(chat.write_request(call("messages", body), messages.read_request(body), CHAT)[0]))


def measure(name: str, target: str, work: Callable[[], int], pieces: int, unit: str) -> None:
    scale = 1e6 if unit == "us" else 1e3
    best = min(_time(work) for _ in range(ROUNDS))
    print(f"{name:<46} {best / pieces * scale:8.2f} {unit}   at most {target}")


def _time(work: Callable[[], int]) -> float:
    begun = time.process_time()
    assert work()
    return time.process_time() - begun


def main() -> None:
    chats, claudes, raw = reads(openai_stream()), reads(anthropic_stream()), conversation()
    as_chat = call("chat", {"model": "m", "messages": []})
    as_messages = call("messages", {"model": "m", "messages": []})
    measure("text chunk, Anthropic to an OpenAI client", "25 us", lambda: relay(claudes, messages, as_chat, chat),
            CHUNKS, "us")  # fmt: skip
    measure("text chunk, OpenAI to an Anthropic client", "25 us", lambda: relay(chats, chat, as_messages, messages),
            CHUNKS, "us")  # fmt: skip
    measure("relayed chunk, OpenAI", "2 us", lambda: relay(chats, chat, as_chat, chat), CHUNKS, "us")
    measure("relayed chunk, Anthropic", "2 us", lambda: relay(claudes, messages, as_messages, messages), CHUNKS, "us")
    measure(f"{TURNS} messages, {len(raw) / 1e6:.1f} MB, forwarded", "15 ms", lambda: forward(raw), 1, "ms")
    measure(f"{TURNS} messages, {len(raw) / 1e6:.1f} MB, translated", "15 ms", lambda: translate(raw), 1, "ms")


if __name__ == "__main__":
    main()
