"""instructor: structured output, with one retry after an answer that does not fit. It has no tool loop of its own."""

from __future__ import annotations

from typing import Any

import anthropic
import instructor
import openai
from common import PROMPT, Answer, Service

HELLO: Any = [{"role": "user", "content": PROMPT}]


def client(service: Service) -> tuple[Any, dict[str, Any]]:
    if service.api == "messages":
        return instructor.from_anthropic(anthropic.Anthropic(base_url=service.base, api_key=service.key)), {
            "max_tokens": 500
        }
    mode = instructor.Mode.RESPONSES_TOOLS if service.api == "responses" else instructor.Mode.TOOLS
    return instructor.from_openai(openai.OpenAI(base_url=service.v1, api_key=service.key), mode=mode), {}


def structured(service: Service) -> Any:
    create, options = client(service)
    return create.create(model=service.model, messages=HELLO, response_model=Answer, **options).model_dump()


def tools(service: Service) -> Any:
    """The first answer does not fit, so instructor sends it back with the reason."""
    return {"text": structured(service)["q"], "results": []}


def stream(service: Service) -> Any:
    create, options = client(service)
    parts = create.create_partial(model=service.model, messages=HELLO, response_model=Answer, **options)
    return {"pieces": [[*parts][-1].q]}


def chat(service: Service) -> Any:
    return {"text": structured(service)["q"]}
