"""Haystack: its three chat generators, and its agent on top of them."""

from __future__ import annotations

import os
from typing import Any

from common import PROMPT, Answer, Look, Service
from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import Tool
from haystack.utils import Secret
from haystack_integrations.components.generators.anthropic import AnthropicChatGenerator

PARAMETERS = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
HELLO = [ChatMessage.from_user(PROMPT)]


def generator(service: Service, **options: Any) -> Any:
    options |= {"model": service.model, "api_key": Secret.from_token(service.key), "max_retries": 0}
    if service.api == "messages":
        os.environ["ANTHROPIC_BASE_URL"] = service.base
        return AnthropicChatGenerator(**options)
    kind = OpenAIResponsesChatGenerator if service.api == "responses" else OpenAIChatGenerator
    return kind(api_base_url=service.v1, **options)


def chat(service: Service) -> Any:
    return {"text": generator(service).run(HELLO)["replies"][0].text}


def stream(service: Service) -> Any:
    pieces: list[str] = []
    generator(service, streaming_callback=lambda chunk: pieces.append(chunk.content)).run(HELLO)
    return {"pieces": [piece for piece in pieces if piece]}


def tools(service: Service) -> Any:
    look = Look()
    tool = Tool(name="look", description="Look for q.", parameters=PARAMETERS, function=look)
    agent = Agent(chat_generator=generator(service), tools=[tool], tool_concurrency_limit=1)
    return {"text": agent.run(messages=HELLO)["messages"][-1].text, "results": look.results}


def structured(service: Service) -> Any:
    options = {"text_format" if service.api == "responses" else "response_format": Answer}
    reply = generator(service, generation_kwargs=options).run(HELLO)["replies"][0]
    return Answer.model_validate_json(reply.text).model_dump()
