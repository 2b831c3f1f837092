"""Answers, streams and errors in Anthropic's Messages format, as recorded (tests/fixtures/upstream/anthropic)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from tests.upstream.answer import Answer, Block, CommonRequest, Event, text_of
from tests.upstream.ledger import Bill
from tests.upstream.rejection import Rejected
from tests.upstream.steps import Step
from tests.upstream.wire import DATED, identifier, overlay

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
ERRORS = {
    400: ("invalid_request_error", "The request was invalid."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low to access the Anthropic API."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "model: unknown"),
    408: ("timeout_error", "Request timed out"),
    409: ("conflict_error", "Conflict"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: (
        "rate_limit_error",
        "This request would exceed your organization's rate limit of 20,000,000 prompt bytes per hour. For details, "
        "refer to: https://docs.claude.com/en/api/rate-limits.",
    ),
    500: ("api_error", "Internal server error"),
    503: ("api_error", "Service unavailable"),
    504: ("timeout_error", "Request timed out"),
    529: ("overloaded_error", "Overloaded"),
}
SIGNATURE = "c2NyaXB0ZWQtc2lnbmF0dXJlLW5vdC1hLXJlYWwtb25l"


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


class Anthropic:
    name = "anthropic"

    def request_id(self, serial: int) -> str:
        return identifier("req_011C", serial, 20)

    def answer_id(self, serial: int) -> str:
        return identifier("msg_01", serial, 22)

    def common_request(self, body: dict[str, Any]) -> CommonRequest:
        choice = body.get("tool_choice") or {}
        forced = {"any": "", "tool": choice.get("name", "")}.get(choice.get("type", "auto"))
        users = [message for message in body["messages"] if message.get("role") == "user"]
        return CommonRequest(
            model=body["model"],
            max_tokens=body.get("max_tokens"),
            stop=body.get("stop_sequences") or (),
            forced=forced,
            tools=[(tool["name"], tool["input_schema"]) for tool in body.get("tools") or [] if "input_schema" in tool],
            last_user=text_of(users[-1].get("content")) if users else "",
        )

    def headers(self, request_id: str, serial: int) -> dict[str, str]:
        reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
        headers = {
            "request-id": request_id,
            "anthropic-organization-id": "00000000-0000-0000-0000-000000000000",
            "server": "cloudflare",
            "cf-cache-status": "DYNAMIC",
        }
        limits = (("requests", 4000), ("tokens", 480000), ("input-tokens", 400000), ("output-tokens", 80000))
        for name, limit in limits:
            headers[f"anthropic-ratelimit-{name}-limit"] = str(limit)
            headers[f"anthropic-ratelimit-{name}-remaining"] = str(max(limit - serial, 0))
            headers[f"anthropic-ratelimit-{name}-reset"] = reset
        return headers

    def reply(self, body: dict[str, Any], step: Step, answer: Answer, answer_id: str) -> dict[str, Any]:
        message = _message(body, step, answer, answer_id)
        message["content"] = [_block(block, step, answer_id, number) for number, block in _visible_blocks(answer)]
        message["stop_reason"], message["stop_sequence"] = _stop(answer), answer.stop_sequence
        if answer.stop == "refusal":
            message["stop_details"] = {"type": "refusal", "category": None, "explanation": step.refusal}
        if step.usage is not None:
            message["usage"] = _usage(step, answer, answer.bill.output_tokens)
        return message

    def events(self, body: dict[str, Any], step: Step, answer: Answer, answer_id: str) -> list[Event]:
        message = _message(body, step, answer, answer_id)
        if step.usage is not None:
            message["usage"] = _usage(step, answer, min(1, answer.bill.output_tokens))
        events = [_event({"type": "message_start", "message": message}, 0)]
        for number, block in _visible_blocks(answer):
            for value, piece, text in _block_events(block, step, answer_id, number):
                events.append(_event(value, len(events), 1 if piece else 0, text))
                if len(events) == 2:
                    # In every recording the ping follows the first content_block_start.
                    events.append(Event(b'event: ping\ndata: {"type": "ping"}\n\n'))
        if step.finish:
            events.append(_event(_message_delta(step, answer), len(events)))
        if step.done:
            events.append(_event({"type": "message_stop"}, len(events)))
        return events

    def terminal(self, event: bytes) -> bool:
        return event.startswith(b"event: message_stop")

    def error(self, rejected: Rejected, request_id: str) -> bytes:
        error: dict[str, Any] = {"type": rejected.kind, "message": rejected.message}
        if rejected.code:
            error["details"] = {"error_code": rejected.code}
        return compact({"type": "error", "error": error, "request_id": request_id})

    def error_event(self, rejected: Rejected, request_id: str) -> bytes:
        return self.event("error", self.error(rejected, request_id))

    def event(self, kind: str, data: bytes) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def error_of(self, status: int) -> tuple[str, str, str | None]:
        kind, message = ERRORS.get(status, ("api_error" if status >= 500 else "invalid_request_error", "Error"))
        return kind, message, None

    def bill(self, reply: dict[str, Any]) -> Bill:
        """The usage that a recorded reply reports. For a stream, ``reply`` has the merged usage of its events."""
        usage = reply.get("usage") or {}
        written = usage.get("cache_creation_input_tokens") or 0
        cached = usage.get("cache_read_input_tokens") or 0
        return Bill(
            input_tokens=(usage.get("input_tokens") or 0) + cached + written,
            output_tokens=usage.get("output_tokens") or 0,
            cached_tokens=cached,
            cache_write_tokens=written,
            reasoning_tokens=(usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0,
        )


def _visible_blocks(answer: Answer) -> Iterator[tuple[int, Block]]:
    """The numbered blocks that the message has. A refusal has no block in this format."""
    return enumerate(block for block in answer.blocks if block.kind != "refusal")


def _stop(answer: Answer) -> str:
    return STOP_REASONS.get(answer.stop, answer.stop)


def _message(body: dict[str, Any], step: Step, answer: Answer, answer_id: str) -> dict[str, Any]:
    model = step.served_model or DATED.get(body["model"], body["model"])
    return {
        "model": model,
        "id": answer_id,
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _usage(step: Step, answer: Answer, output_tokens: int) -> dict[str, Any]:
    """Anthropic's usage object. Its input_tokens does not include cached tokens and cache-write tokens."""
    bill = answer.bill
    usage: dict[str, Any] = {
        "input_tokens": bill.input_tokens - bill.cached_tokens - bill.cache_write_tokens,
        "cache_creation_input_tokens": bill.cache_write_tokens,
        "cache_read_input_tokens": bill.cached_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": bill.cache_write_tokens - answer.write_1h_tokens,
            "ephemeral_1h_input_tokens": answer.write_1h_tokens,
        },
        "output_tokens": output_tokens,
        "service_tier": "standard",
        "inference_geo": "not_available",
    }
    if bill.reasoning_tokens:
        usage["output_tokens_details"] = {"thinking_tokens": bill.reasoning_tokens}
    return overlay(usage, step)


def _message_delta(step: Step, answer: Answer) -> dict[str, Any]:
    delta: dict[str, Any] = {"stop_reason": _stop(answer), "stop_sequence": answer.stop_sequence}
    if answer.stop == "refusal":
        delta["stop_details"] = {"type": "refusal", "category": None, "explanation": step.refusal}
    value: dict[str, Any] = {"type": "message_delta", "delta": delta}
    if step.usage is not None:
        usage = _usage(step, answer, answer.bill.output_tokens)
        for name in ("cache_creation", "service_tier", "inference_geo"):  # only message_start has these
            if name not in step.usage:
                usage.pop(name, None)
        value["usage"] = usage
    return value


def _tool_id(answer_id: str, number: int) -> str:
    return f"toolu_01{answer_id[-18:]}{number:04d}"


def _block(block: Block, step: Step, answer_id: str, number: int) -> dict[str, Any]:
    if block.kind == "thinking":
        return {"type": "thinking", "thinking": block.whole, "signature": SIGNATURE}
    if block.kind == "tool":
        try:
            arguments = json.loads(block.whole or "{}")
        except ValueError:
            arguments = {}  # a plain answer of Anthropic's leaves out arguments that max_tokens cut
        head = {"type": "tool_use", "id": _tool_id(answer_id, number), "name": block.name, "input": arguments}
        return {**head, "caller": {"type": "direct"}}
    return {"type": "text", "text": block.whole}


def _block_events(block: Block, step: Step, answer_id: str, number: int) -> Iterator[tuple[dict[str, Any], bool, str]]:
    """(event, whether it is an output token, its text) for each event of the block."""
    start: dict[str, Any] = {"type": "text", "text": ""}
    if block.kind == "thinking":
        start = {"type": "thinking", "thinking": "", "signature": ""}
    elif block.kind == "tool":
        start = {"type": "tool_use", "id": _tool_id(answer_id, number), "name": block.name, "input": {}}
        start["caller"] = {"type": "direct"}
    yield {"type": "content_block_start", "index": number, "content_block": start}, False, ""

    def delta(**value: str) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": number, "delta": value}

    if block.kind == "tool":
        yield delta(type="input_json_delta", partial_json=""), False, ""
    for piece in block.pieces:
        if block.kind == "thinking":
            yield delta(type="thinking_delta", thinking=piece), True, ""
        elif block.kind == "tool":
            yield delta(type="input_json_delta", partial_json=piece), True, ""
        else:
            yield delta(type="text_delta", text=piece), True, piece
    if block.kind == "thinking":
        yield delta(type="signature_delta", signature=SIGNATURE), False, ""
    yield {"type": "content_block_stop", "index": number}, False, ""


def _event(value: dict[str, Any], position: int, tokens: int = 0, text: str = "") -> Event:
    """An event as bytes. Real data lines are padded with spaces before the last brace."""
    data = compact(value)
    padded = data[:-1] + b" " * (position * 5 % 15) + data[-1:]
    return Event(b"event: %b\ndata: %b\n\n" % (value["type"].encode(), padded), tokens, text)
