"""LangChain: ChatOpenAI with either API, ChatAnthropic, and langgraph's agent on top of them."""

from __future__ import annotations

from typing import Any

from common import PROMPT, Answer, Look, Service
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent


def model(service: Service) -> Any:
    if service.api == "messages":
        return ChatAnthropic(model=service.model, base_url=service.base, api_key=service.key, max_retries=0)
    responses = service.api == "responses"
    return ChatOpenAI(
        model=service.model, base_url=service.v1, api_key=service.key, use_responses_api=responses, max_retries=0
    )


def chat(service: Service) -> Any:
    return {"text": model(service).invoke(PROMPT).text}


def stream(service: Service) -> Any:
    return {"pieces": [chunk.text for chunk in model(service).stream(PROMPT) if chunk.text]}


def tools(service: Service) -> Any:
    look = Look()

    @tool("look")
    def look_tool(q: str) -> str:
        """Look for q."""
        return look(q)

    state = create_react_agent(model(service), [look_tool]).invoke({"messages": [("user", PROMPT)]})
    return {"text": state["messages"][-1].text, "results": look.results}


def structured(service: Service) -> Any:
    return model(service).with_structured_output(Answer).invoke(PROMPT).model_dump()
