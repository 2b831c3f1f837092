"""LlamaIndex: its models for OpenAI's APIs and Anthropic's, and its agent on top of them."""

from __future__ import annotations

from typing import Any

from common import PROMPT, Answer, Look, Service, wait
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.anthropic import Anthropic
from llama_index.llms.openai_like import OpenAILike, OpenAILikeResponses

HELLO = [ChatMessage(role="user", content=PROMPT)]


def model(service: Service) -> Any:
    if service.api == "messages":
        return Anthropic(model=service.model, base_url=service.base, api_key=service.key, max_retries=0)
    kind = OpenAILikeResponses if service.api == "responses" else OpenAILike
    options: dict[str, Any] = {"is_chat_model": True, "is_function_calling_model": True, "max_retries": 0}
    if service.model.startswith("gpt-6"):  # LlamaIndex sends 0.1 to every model, and reasoning models accept only 1
        options["temperature"] = 1
    return kind(model=service.model, api_base=service.v1, api_key=service.key, **options)


def chat(service: Service) -> Any:
    return {"text": model(service).chat(HELLO).message.content}


def stream(service: Service) -> Any:
    return {"pieces": [part.delta for part in model(service).stream_chat(HELLO) if part.delta]}


def tools(service: Service) -> Any:
    look = Look()
    tool = FunctionTool.from_defaults(fn=lambda q: look(q), name="look", description="Look for q.", fn_schema=Answer)

    async def run() -> Any:
        return await FunctionAgent(tools=[tool], llm=model(service)).run(PROMPT)

    return {"text": str(wait(run())), "results": look.results}


def structured(service: Service) -> Any:
    return model(service).as_structured_llm(Answer).chat(HELLO).raw.model_dump()
