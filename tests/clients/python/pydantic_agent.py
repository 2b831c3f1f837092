"""pydantic-ai: its three models of OpenAI's and Anthropic's APIs."""

from __future__ import annotations

from typing import Any

from common import PROMPT, Answer, Look, Service, wait
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


def model(service: Service) -> Any:
    if service.api == "messages":
        return AnthropicModel(service.model, provider=AnthropicProvider(api_key=service.key, base_url=service.base))
    kind = OpenAIResponsesModel if service.api == "responses" else OpenAIChatModel
    return kind(service.model, provider=OpenAIProvider(base_url=service.v1, api_key=service.key))


def chat(service: Service) -> Any:
    return {"text": wait(Agent(model(service), instructions="Be brief.").run(PROMPT)).output}


def stream(service: Service) -> Any:
    async def pieces() -> list[str]:
        async with Agent(model(service)).run_stream(PROMPT) as result:
            return [piece async for piece in result.stream_text(delta=True, debounce_by=None)]

    return {"pieces": wait(pieces())}


def tools(service: Service) -> Any:
    look = Look()
    agent = Agent(model(service))

    @agent.tool_plain(name="look")
    def tool(q: str) -> str:
        return look(q)

    return {"text": wait(agent.run(PROMPT)).output, "results": look.results}


def structured(service: Service) -> Any:
    return wait(Agent(model(service), output_type=Answer).run(PROMPT)).output.model_dump()
