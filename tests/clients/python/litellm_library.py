"""LiteLLM as a library: a caller who appends the whole message that it returns."""

from __future__ import annotations

import json
from typing import Any

import litellm
from common import PROMPT, Answer, Look, Service

PARAMETERS = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
LOOK = {"type": "function", "function": {"name": "look", "description": "Look for q.", "parameters": PARAMETERS}}
HELLO = [{"role": "user", "content": PROMPT}]


def options(service: Service) -> dict[str, Any]:
    if service.api == "messages":
        return {"model": f"anthropic/{service.model}", "api_base": service.base, "api_key": service.key}
    return {"model": f"openai/{service.model}", "api_base": service.v1, "api_key": service.key}


def chat(service: Service) -> Any:
    if service.api == "responses":
        reply = litellm.responses(input=PROMPT, **options(service))
        return {"text": "".join(part.text for item in reply.output if item.type == "message" for part in item.content)}
    return {"text": litellm.completion(messages=HELLO, **options(service)).choices[0].message.content}


def stream(service: Service) -> Any:
    if service.api == "responses":
        events = litellm.responses(input=PROMPT, stream=True, **options(service))
        return {"pieces": [event.delta for event in events if event.type == "response.output_text.delta"]}
    chunks = litellm.completion(messages=HELLO, stream=True, **options(service))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    return {"pieces": [piece for piece in pieces if piece]}


def tools(service: Service) -> Any:
    look = Look()
    if service.api == "responses":
        return {"text": responses_loop(service, look), "results": look.results}
    messages: list[Any] = [*HELLO]
    for _ in range(5):
        reply = litellm.completion(messages=messages, tools=[LOOK], **options(service))
        message = reply.choices[0].message
        messages.append(message.model_dump())
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            found = look(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": found})
    return {"text": messages[-1]["content"], "results": look.results}


def responses_loop(service: Service, look: Look) -> str:
    items: list[Any] = [*HELLO]
    tool = {"type": "function", "strict": False, **LOOK["function"]}
    for _ in range(5):
        reply = litellm.responses(input=items, tools=[tool], **options(service))
        items += [item.model_dump() for item in reply.output]
        calls = [item for item in reply.output if item.type == "function_call"]
        if not calls:
            break
        for call in calls:
            found = look(**json.loads(call.arguments))
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": found})
    return items[-1]["content"][0]["text"]


def structured(service: Service) -> Any:
    if service.api == "responses":
        reply = litellm.responses(input=PROMPT, text_format=Answer, **options(service))
        text = [part.text for item in reply.output if item.type == "message" for part in item.content]
        return Answer.model_validate_json("".join(text)).model_dump()
    reply = litellm.completion(messages=HELLO, response_format=Answer, **options(service))
    return Answer.model_validate_json(reply.choices[0].message.content).model_dump()
