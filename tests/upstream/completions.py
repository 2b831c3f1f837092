"""``POST /v1/completions`` of the scripted vendor: chat completions rewritten in the older format."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from tests.upstream import openai_rules
from tests.upstream.answer import Answer, CommonRequest, Event
from tests.upstream.anthropic_wire import compact
from tests.upstream.openai_wire import OpenAI
from tests.upstream.rejection import Account, Rejected
from tests.upstream.steps import Step
from tests.upstream.wire import identifier

FIELDS = frozenset(
    {
        "model",
        "prompt",
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "n",
        "presence_penalty",
        "seed",
        "stop",
        "stream_options",
        "suffix",
        "temperature",
        "top_p",
        "user",
        "stream",
    }
)
MODELS = re.compile(r"(ft:)?(gpt-3\.5-turbo-instruct|davinci-002|babbage-002)")


def check(body: dict[str, Any], account: Account) -> None:
    if "model" not in body:
        raise Rejected(400, openai_rules.INVALID, "you must provide a model parameter")
    for name in body:
        if name not in FIELDS | account.fields:
            raise Rejected(400, openai_rules.INVALID, f"Unrecognized request argument supplied: {name}")
    if not MODELS.match(body["model"]) and body["model"] not in account.models:
        message = "This is a chat model and not supported in the v1/completions endpoint."
        raise Rejected(404, openai_rules.INVALID, message, "model")


class Completions(OpenAI):
    def answer_id(self, serial: int) -> str:
        return identifier("cmpl-", serial, 29)

    def common_request(self, body: dict[str, Any]) -> CommonRequest:
        stop = body.get("stop") or ()
        prompt = body.get("prompt")
        return CommonRequest(
            model=body["model"],
            max_tokens=body.get("max_tokens", 16),
            stop=[stop] if isinstance(stop, str) else stop,
            last_user=prompt if isinstance(prompt, str) else str(prompt),
        )

    def reply(self, body: dict[str, Any], step: Step, answer: Answer, answer_id: str) -> dict[str, Any]:
        document = super().reply(body, step, answer, answer_id)
        choices = [_choice(choice, choice["message"]["content"]) for choice in document["choices"]]
        return {**document, "object": "text_completion", "choices": choices}

    def events(self, body: dict[str, Any], step: Step, answer: Answer, answer_id: str) -> list[Event]:
        events = []
        for event in super().events(body, step, answer, answer_id):
            if self.terminal(event.data):
                events.append(event)
                continue
            chunk = json.loads(event.data[6:])
            if any("role" in choice["delta"] for choice in chunk["choices"]):
                continue  # the first chunk of a chat stream, which has only the role
            choices = [_choice(choice, choice["delta"].get("content", "")) for choice in chunk["choices"]]
            chunk |= {"object": "text_completion", "choices": choices}
            chunk.pop("obfuscation", None)
            events.append(replace(event, data=b"data: %b\n\n" % compact(chunk)))
        return events

    def _last_fields(self, body: dict[str, Any]) -> dict[str, Any]:
        return {}


def _choice(choice: dict[str, Any], text: str) -> dict[str, Any]:
    return {"text": text, "index": choice["index"], "logprobs": None, "finish_reason": choice["finish_reason"]}
