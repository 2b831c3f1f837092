"""Answers, streams and errors in OpenAI's chat format, as recorded (tests/fixtures/upstream/openai)."""

from __future__ import annotations

import json
import string
import time
from collections.abc import Iterable
from typing import Any

from tests.upstream.answer import Answer, CommonRequest, Event, text_of
from tests.upstream.anthropic_wire import compact
from tests.upstream.ledger import Bill
from tests.upstream.openai_rules import REASONING_MODELS
from tests.upstream.rejection import Rejected
from tests.upstream.steps import Step
from tests.upstream.wire import DATED, identifier, overlay

STOP_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "stop",  # when the model refuses, OpenAI sends a plain stop with message.refusal
}
ERRORS: dict[int, tuple[str, str, str | None]] = {
    400: ("invalid_request_error", "Invalid request.", None),
    401: ("invalid_request_error", "Incorrect API key provided.", "invalid_api_key"),
    403: (
        "request_forbidden",
        "Country, region, or territory not supported",
        "unsupported_country_region_territory",
    ),
    404: (
        "invalid_request_error",
        "The model does not exist or you do not have access to it.",
        "model_not_found",
    ),
    429: ("requests", "Rate limit reached for requests", "rate_limit_exceeded"),
    500: ("server_error", "The server had an error while processing your request. Sorry about that!", None),
    503: ("service_unavailable_error", "The engine is currently overloaded, please try again later", "slow_down"),
}


class OpenAI:
    """With ``plain``, an OpenAI-compatible server without OpenAI's own extras (obfuscation, rate-limit headers)."""

    name = "openai"

    def __init__(self, plain: bool = False) -> None:
        self.plain = plain

    def request_id(self, serial: int) -> str:
        return identifier("req_", serial, 32).lower()

    def answer_id(self, serial: int) -> str:
        return identifier("chatcmpl-", serial, 29)

    def common_request(self, body: dict[str, Any]) -> CommonRequest:
        choice = body.get("tool_choice")
        forced = "" if choice == "required" else None
        if isinstance(choice, dict) and choice.get("type") == "function":
            forced = choice["function"]["name"]
        users = [message for message in body["messages"] if message.get("role") == "user"]
        stop = body.get("stop") or ()
        limit = body.get("max_completion_tokens")
        return CommonRequest(
            model=body["model"],
            max_tokens=limit if limit is not None else body.get("max_tokens"),
            stop=[stop] if isinstance(stop, str) else stop,
            forced=forced,
            tools=[
                (tool["function"]["name"], tool["function"].get("parameters") or {})
                for tool in body.get("tools") or []
                if tool.get("type") == "function"
            ],
            last_user=text_of(users[-1].get("content")) if users else "",
        )

    def headers(self, request_id: str, serial: int) -> dict[str, str]:
        if self.plain:
            return {"server": "uvicorn"}
        return {
            "x-request-id": request_id,
            "openai-organization": "scripted",
            "openai-processing-ms": "42",
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "15000",
            "x-ratelimit-limit-tokens": "40000000",
            "x-ratelimit-remaining-requests": str(max(15000 - serial, 0)),
            "x-ratelimit-remaining-tokens": "39999000",
            "x-ratelimit-reset-requests": "4ms",
            "x-ratelimit-reset-tokens": "6m0s",
            "access-control-expose-headers": "X-Request-ID",
            "server": "cloudflare",
        }

    def reply(self, body: dict[str, Any], step: Step, answer: Answer, answer_id: str) -> dict[str, Any]:
        document = self._first_fields("chat.completion", body, step, answer_id)
        document["choices"] = [_choice(number, step, answer, answer_id) for number in range(body.get("n") or 1)]
        if body.get("logprobs") is True:
            pieces = [piece for block in answer.blocks if block.kind == "text" for piece in block.pieces]
            for choice in document["choices"]:
                choice["logprobs"] = logprobs(pieces, body)
        if step.usage is not None:
            document["usage"] = _usage(step, answer)
        document.update(self._last_fields(body))
        return document

    def events(self, body: dict[str, Any], step: Step, answer: Answer, answer_id: str) -> list[Event]:
        options = body.get("stream_options") or {}
        wants_usage = bool(options.get("include_usage"))
        obfuscated = not self.plain and options.get("include_obfuscation", True)
        head = self._first_fields("chat.completion.chunk", body, step, answer_id) | self._last_fields(body)
        events: list[Event] = []

        def add(
            choices: list[dict[str, Any]], usage: dict[str, Any] | None, piece: bool = False, text: str = ""
        ) -> None:
            chunk = {**head, "choices": choices}
            if wants_usage or usage is not None:
                chunk["usage"] = usage
            if obfuscated:
                chunk["obfuscation"] = (string.ascii_letters * 2)[len(events) % 26 :][: len(events) * 5 % 16 + 1]
            events.append(Event(b"data: %b\n\n" % compact(chunk), 1 if piece else 0, text))

        deltas = _deltas(answer, answer_id)
        count = body.get("n") or 1
        finish = STOP_REASONS.get(answer.stop, answer.stop)
        usage = _usage(step, answer) if step.usage is not None else None
        for delta, piece, text in deltas:
            for number in range(count):  # with n > 1 the chunks of the choices are interleaved
                choice = _delta(number, delta)
                if body.get("logprobs") is True:
                    choice["logprobs"] = logprobs([text] if text else [], body)
                add([choice], None, piece and not number, text if not number else "")
        if step.finish:
            for number in range(count):
                add([_delta(number, {}, finish)], usage if step.usage_in_finish else None)
        if wants_usage and usage is not None and not step.usage_in_finish:
            add([], usage)
        if step.done:
            events.append(Event(b"data: [DONE]\n\n"))
        return events

    def terminal(self, event: bytes) -> bool:
        return event.startswith(b"data: [DONE]")

    def error(self, rejected: Rejected, request_id: str) -> bytes:
        error = {"message": rejected.message, "type": rejected.kind, "param": rejected.param, "code": rejected.code}
        return json.dumps({"error": error}, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass")

    def error_event(self, rejected: Rejected, request_id: str) -> bytes:
        error = {"message": rejected.message, "type": rejected.kind, "param": rejected.param, "code": rejected.code}
        return self.event("", compact({"error": error}))

    def event(self, kind: str, data: bytes) -> bytes:
        return b"data: %b\n\n" % data

    def error_of(self, status: int) -> tuple[str, str, str | None]:
        default = ("server_error" if status >= 500 else "invalid_request_error", "Error", None)
        return ERRORS.get(status, default)

    def bill(self, reply: dict[str, Any]) -> Bill:
        """The usage that a recorded reply reports. For a stream, ``reply`` has the last usage that it sent."""
        usage = reply.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        return Bill(
            input_tokens=usage.get("prompt_tokens") or 0,
            output_tokens=usage.get("completion_tokens") or 0,
            cached_tokens=details.get("cached_tokens") or 0,
            cache_write_tokens=details.get("cache_write_tokens") or 0,
            reasoning_tokens=(usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0,
        )

    def _first_fields(self, kind: str, body: dict[str, Any], step: Step, answer_id: str) -> dict[str, Any]:
        model = step.served_model or (body["model"] if self.plain else DATED.get(body["model"], body["model"]))
        return {"id": answer_id, "object": kind, "created": int(time.time()), "model": model}

    def _last_fields(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.plain:
            return {"system_fingerprint": "fp_compatible"}
        fingerprint = None if REASONING_MODELS.match(body["model"]) else "fp_5050236cbd"
        return {"service_tier": "default", "system_fingerprint": fingerprint}


def _call_id(answer_id: str, number: int) -> str:
    return f"call_{answer_id[-20:]}{number:04d}"


def _choice(number: int, step: Step, answer: Answer, answer_id: str) -> dict[str, Any]:
    texts = [block.whole for block in answer.blocks if block.kind == "text"]
    calls = [block for block in answer.blocks if block.kind == "tool"]
    refusals = [block.whole for block in answer.blocks if block.kind == "refusal"]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    if refusals:
        message["content"] = None
    if calls:
        message["tool_calls"] = [
            {
                "id": _call_id(answer_id, index),
                "type": "function",
                "function": {"name": block.name, "arguments": block.whole},
            }
            for index, block in enumerate(calls)
        ]
    message["refusal"] = refusals[0] if refusals else None
    message["annotations"] = []
    finish = STOP_REASONS.get(answer.stop, answer.stop) if step.finish else None
    return {"index": number, "message": message, "logprobs": None, "finish_reason": finish}


def _delta(number: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": number, "delta": delta, "logprobs": None, "finish_reason": finish}


def logprobs(pieces: Iterable[str], body: dict[str, Any]) -> dict[str, Any]:
    """A choice's log probabilities: every piece is a token, as likely as it is long, and better than its rivals."""
    content = []
    for piece in pieces:
        token = {"token": piece, "logprob": -len(piece) / 8, "bytes": list(piece.encode())}
        rivals = [{"token": f"~{rank}", "logprob": -9.5 - rank, "bytes": [126, 48 + rank]} for rank in range(1, 21)]
        top = [token, *rivals][: body.get("top_logprobs") or 0]
        content.append({**token, "top_logprobs": top})
    return {"content": content, "refusal": None}


def _deltas(answer: Answer, answer_id: str) -> list[tuple[dict[str, Any], bool, str]]:
    """(delta, whether it is an output token, its text) for each delta. Reasoning is counted but never sent."""
    shown = [block for block in answer.blocks if block.kind != "thinking"]
    deltas: list[tuple[dict[str, Any], bool, str]] = []
    first: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    if shown and shown[0].kind == "refusal":
        first = {"role": "assistant", "content": None, "refusal": ""}
    elif shown and shown[0].kind == "tool":
        first = {"role": "assistant", "content": None}
    calls = 0
    for block in shown:
        if block.kind == "tool":
            function = {"name": block.name, "arguments": ""}
            call = {"index": calls, "id": _call_id(answer_id, calls), "type": "function", "function": function}
            deltas.append(({"tool_calls": [call]}, False, ""))
            deltas += [
                ({"tool_calls": [{"index": calls, "function": {"arguments": piece}}]}, True, "")
                for piece in block.pieces
            ]
            calls += 1
        else:
            name = "refusal" if block.kind == "refusal" else "content"
            deltas += [({name: piece}, True, piece if name == "content" else "") for piece in block.pieces]
    if calls == 1 and shown[0].kind == "tool":
        # The start of a single call comes in the same chunk as the role.
        merged = {**first, **deltas[0][0], "refusal": None}
        return [(merged, False, ""), *deltas[1:]]
    return [(first, False, ""), *deltas]


def _usage(step: Step, answer: Answer) -> dict[str, Any]:
    bill = answer.bill
    usage: dict[str, Any] = {
        "prompt_tokens": bill.input_tokens,
        "completion_tokens": bill.output_tokens,
        "total_tokens": bill.input_tokens + bill.output_tokens,
        "prompt_tokens_details": {"cached_tokens": bill.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": bill.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    if bill.cache_write_tokens:
        usage["prompt_tokens_details"]["cache_write_tokens"] = bill.cache_write_tokens
    return overlay(usage, step)
