"""smolagents: its OpenAI model and its LiteLLM model, and its agent that calls tools."""

from __future__ import annotations

from typing import Any

from common import PROMPT, Answer, Look, Service
from smolagents import ChatMessage, LiteLLMModel, LogLevel, OpenAIModel, ToolCallingAgent, tool

HELLO = [ChatMessage(role="user", content=[{"type": "text", "text": PROMPT}])]
SCHEMA = {"name": "answer", "strict": True, "schema": {**Answer.model_json_schema(), "additionalProperties": False}}


def model(service: Service) -> Any:
    if service.api == "messages":
        return LiteLLMModel(model_id=f"anthropic/{service.model}", api_base=service.base, api_key=service.key)
    return OpenAIModel(model_id=service.model, api_base=service.v1, api_key=service.key, retry=False)


def chat(service: Service) -> Any:
    return {"text": model(service).generate(HELLO).content}


def stream(service: Service) -> Any:
    return {"pieces": [delta.content for delta in model(service).generate_stream(HELLO) if delta.content]}


def tools(service: Service) -> Any:
    """The agent ends with a call of its own tool ``final_answer``."""
    remembered = Look()

    @tool
    def look(q: str) -> str:
        """Look for q.

        Args:
            q: what to look for
        """
        return remembered(q)

    agent = ToolCallingAgent(tools=[look], model=model(service), verbosity_level=LogLevel.OFF, max_tool_threads=1)
    return {"text": agent.run(PROMPT), "results": remembered.results}


def structured(service: Service) -> Any:
    format_ = {"type": "json_schema", "json_schema": SCHEMA}
    return Answer.model_validate_json(model(service).generate(HELLO, response_format=format_).content).model_dump()
