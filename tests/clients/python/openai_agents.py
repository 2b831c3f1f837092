"""openai-agents: its Responses model, which is the default, and its chat model."""

from __future__ import annotations

from typing import Any

from agents import Agent, OpenAIProvider, RunConfig, Runner, function_tool
from common import PROMPT, Answer, Look, Service, wait


def config(service: Service) -> RunConfig:
    provider = OpenAIProvider(base_url=service.v1, api_key=service.key, use_responses=service.api == "responses")
    return RunConfig(model_provider=provider, tracing_disabled=True)


def chat(service: Service) -> Any:
    agent = Agent(name="agent", model=service.model, instructions="Be brief.")
    return {"text": wait(Runner.run(agent, PROMPT, run_config=config(service))).final_output}


def stream(service: Service) -> Any:
    async def pieces() -> list[str]:
        agent = Agent(name="agent", model=service.model)
        events = Runner.run_streamed(agent, PROMPT, run_config=config(service)).stream_events()
        return [
            event.data.delta
            async for event in events
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ]

    return {"pieces": wait(pieces())}


def tools(service: Service) -> Any:
    look = Look()

    @function_tool(name_override="look")
    def tool(q: str) -> str:
        return look(q)

    agent = Agent(name="agent", model=service.model, tools=[tool])
    result = wait(Runner.run(agent, PROMPT, run_config=config(service)))
    return {"text": result.final_output, "results": look.results}


def structured(service: Service) -> Any:
    agent = Agent(name="agent", model=service.model, output_type=Answer)
    return wait(Runner.run(agent, PROMPT, run_config=config(service))).final_output.model_dump()
