"""``llm``: its models for OpenAI's APIs, and those of its plugin for Anthropic's."""

from __future__ import annotations

import json
from typing import Any

import llm_anthropic
from common import PROMPT, Answer, Look, Service
from llm import Tool
from llm.default_plugins.openai_models import Chat, Responses


def model(service: Service) -> Any:
    if service.api == "messages":
        made = llm_anthropic.ClaudeMessages(service.model, base_url=service.base, use_structured_outputs=True)
    else:
        kind = Responses if service.api == "responses" else Chat
        made = kind("mine", model_name=service.model, api_base=service.v1, supports_tools=True, supports_schema=True)
    made.key = service.key
    return made


def chat(service: Service) -> Any:
    return {"text": model(service).prompt(PROMPT, stream=False).text()}


def stream(service: Service) -> Any:
    return {"pieces": [piece for piece in model(service).prompt(PROMPT, stream=True) if piece]}


def tools(service: Service) -> Any:
    look = Look()
    tool = Tool.function(lambda q: look(q), name="look")
    tool.input_schema = Answer.model_json_schema()
    text = model(service).chain(PROMPT, tools=[tool]).text()
    return {"text": text, "results": look.results}


def structured(service: Service) -> Any:
    return json.loads(model(service).prompt(PROMPT, schema=Answer, stream=False).text())
