"""DSPy: a signature, and its ReAct program. Its answers come in DSPy's own marks, or as JSON."""

from __future__ import annotations

from typing import Any

import dspy
from common import PROMPT, Answer, Look, Service


class Structured(dspy.Signature):
    question: str = dspy.InputField()
    answer: Answer = dspy.OutputField()


def lm(service: Service) -> Any:
    provider = "anthropic" if service.api == "messages" else "openai"
    kind = "responses" if service.api == "responses" else "chat"
    options = {"cache": False, "num_retries": 0, "model_type": kind}
    return dspy.LM(f"{provider}/{service.model}", api_base=service.v1, api_key=service.key, **options)


def chat(service: Service) -> Any:
    with dspy.context(lm=lm(service)):
        return {"text": dspy.Predict("question -> answer")(question=PROMPT).answer}


def stream(service: Service) -> Any:
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    program = dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=[listener], async_streaming=False)
    with dspy.context(lm=lm(service)):
        parts = [*program(question=PROMPT)]
    return {"pieces": [part.chunk for part in parts if isinstance(part, dspy.streaming.StreamResponse) and part.chunk]}


def tools(service: Service) -> Any:
    remembered = Look()

    def look(q: str) -> str:
        """Look for q."""
        return remembered(q)

    with dspy.context(lm=lm(service)):
        return {
            "text": dspy.ReAct("question -> answer", tools=[look])(question=PROMPT).answer,
            "results": remembered.results,
        }


def structured(service: Service) -> Any:
    with dspy.context(lm=lm(service), adapter=dspy.JSONAdapter()):
        return dspy.Predict(Structured)(question=PROMPT).answer.model_dump()
