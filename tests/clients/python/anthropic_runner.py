"""Anthropic's own client, with its beta tool runner, which sends fields that only its vendor knows."""

from __future__ import annotations

from typing import Any

from anthropic import Anthropic, beta_tool
from common import PROMPT, Answer, Look, Service

HELLO: Any = [{"role": "user", "content": PROMPT}]


def client(service: Service) -> Any:
    return Anthropic(base_url=service.base, api_key=service.key).beta.messages


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def chat(service: Service) -> Any:
    return {"text": text_of(client(service).create(model=service.model, messages=HELLO, max_tokens=500))}


def stream(service: Service) -> Any:
    with client(service).stream(model=service.model, messages=HELLO, max_tokens=500) as events:
        return {"pieces": [*events.text_stream]}


def tools(service: Service) -> Any:
    look = Look()

    @beta_tool(name="look")
    def tool(q: str) -> str:
        """Look for q."""
        return look(q)

    runner = client(service).tool_runner(model=service.model, messages=HELLO, max_tokens=5000, tools=[tool])
    return {"text": text_of(runner.until_done()), "results": look.results}


def structured(service: Service) -> Any:
    reply = client(service).parse(model=service.model, messages=HELLO, max_tokens=500, output_format=Answer)
    return reply.parsed_output.model_dump()
