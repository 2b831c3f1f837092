"""``POST /v1/responses`` of the scripted vendor: which requests it rejects, and the events of its streams.

Sources: the recordings and examples that the fixtures come from, and the types of openai 3.52.
"""

from __future__ import annotations

import json
import string
import time
import typing
from typing import Any

from openai.types.responses import response_create_params

from tests.upstream import openai_content, openai_rules
from tests.upstream.answer import Answer, Block, CommonRequest, Event, count_prompt, strings
from tests.upstream.anthropic_wire import compact
from tests.upstream.ledger import Bill
from tests.upstream.openai_wire import OpenAI
from tests.upstream.rejection import Account, Rejected, is_int
from tests.upstream.steps import Step
from tests.upstream.wire import DATED, identifier, overlay

# Codex sends ``client_metadata``, which no SDK knows, to OpenAI itself.
FIELDS = frozenset(typing.get_type_hints(response_create_params.ResponseCreateParamsStreaming)) | {"client_metadata"}
COUNT_FIELDS = FIELDS - {"stream", "stream_options", "store", "max_output_tokens", "temperature", "top_p", "include"}
MIN_OUTPUT_TOKENS = 16
# The first characters of the reasoning that this vendor encrypted itself. It accepts no other encrypted content.
ENCRYPTED = "gAAAAABscripted"
ENCRYPTED_REASONING = "reasoning.encrypted_content"
# The request fields that a response repeats, with their defaults.
_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def check(body: dict[str, Any], account: Account, *, counting: bool = False) -> None:
    for name in ("model", "input"):
        if name not in body and not body.get("previous_response_id"):
            raise _rejection(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    for name in body:
        if name not in (COUNT_FIELDS if counting else FIELDS) | account.fields:
            raise _rejection(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    model = body["model"]
    if not openai_rules.KNOWN_MODELS.match(model) and model not in account.models:
        raise Rejected(
            400, openai_rules.INVALID, f"The requested model '{model}' does not exist.", "model", "model_not_found"
        )
    limit = body.get("max_output_tokens")
    if limit is not None and (not is_int(limit) or limit < MIN_OUTPUT_TOKENS):
        raise _rejection(
            "Invalid 'max_output_tokens': integer below minimum value. "
            f"Expected a value >= {MIN_OUTPUT_TOKENS}, but got {limit} instead.",
            "max_output_tokens",
            "integer_below_min_value",
        )
    if openai_rules.REASONING_MODELS.match(model):
        for name in ("temperature", "top_p"):
            if body.get(name) not in (None, 1):
                raise _rejection(f"Unsupported parameter: '{name}' is not supported with this model.", name, None)
    elif (body.get("reasoning") or {}).get("effort"):
        raise _rejection(
            "Unsupported parameter: 'reasoning.effort' is not supported with this model.", "reasoning", None
        )
    if not openai_rules.REASONING_MODELS.match(model) and ENCRYPTED_REASONING in (body.get("include") or ()):
        raise _rejection("Encrypted content is not supported with this model.", "include", None)
    for index, tool in enumerate(body.get("tools") or []):
        if tool.get("type") in ("function", "custom"):
            if "name" not in tool:
                raise _rejection(f"Missing required parameter: 'tools[{index}].name'.", f"tools[{index}].name", None)
            openai_content.check_name(tool["name"], f"tools[{index}].name")
        if tool.get("type") == "function":
            openai_content.check_parameters(tool["name"], tool.get("parameters"), f"tools[{index}].parameters")
    _check_items(body.get("input"))
    _check_kept(body, account)


def _check_kept(body: dict[str, Any], account: Account) -> None:
    """Reject items that must be looked up and were not kept, and reasoning that nothing of the assistant follows."""
    items = body["input"] if isinstance(body.get("input"), list) else []
    for index, item in enumerate(items):
        kind = item.get("type") or ("message" if "role" in item else "item_reference")
        looked_up = kind == "item_reference" or (kind == "reasoning" and not item.get("encrypted_content"))
        if looked_up and not _is_kept(item.get("id"), account):
            hint = (
                " Items are not persisted when `store` is set to false. Try again with `store` set to true, or remove "
                "this item from your input."
            )
            message = f"Item with id '{item.get('id')}' not found.{hint if body.get('store') is False else ''}"
            raise Rejected(404, openai_rules.INVALID, message, "input", None)
        following = items[index + 1] if index + 1 < len(items) else {"role": "user"}
        if kind == "reasoning" and (following.get("type", "").endswith("_output") or following.get("role") == "user"):
            message = f"Item '{item.get('id')}' of type 'reasoning' was provided without its required following item."
            raise _rejection(message, "input", None)


def _is_kept(item_id: Any, account: Account) -> bool:
    """Whether the item is of an answer that was kept: its id has the answer's id after the prefix."""
    tail = str(item_id).partition("_")[2]
    return any(tail.startswith(answer_id.removeprefix("resp_")) for answer_id in account.kept)


def _check_items(value: Any) -> None:
    if isinstance(value, str) or value is None:
        return
    calls: set[str] = set()
    for index, item in enumerate(value):
        path = f"input[{index}]"
        kind = item.get("type", "message")
        if kind == "message":
            _check_content(item, path)
        elif kind in ("function_call", "custom_tool_call"):
            openai_content.check_name(item["name"], f"{path}.name")
            openai_content.check_length(item["call_id"], f"{path}.call_id", openai_content.MAX_ID)
            calls.add(item["call_id"])
        elif kind in ("function_call_output", "custom_tool_call_output") and item["call_id"] not in calls:
            words = kind.replace("_", " ")
            raise _rejection(f"No tool call found for {words} with call_id {item['call_id']}.", "input", None)
        elif kind == "reasoning" and not (item.get("encrypted_content") or ENCRYPTED).startswith(ENCRYPTED):
            raise _rejection("The encrypted content could not be verified.", path, "invalid_encrypted_content")


def _check_content(item: dict[str, Any], path: str) -> None:
    if item.get("role") not in ("user", "assistant", "system", "developer"):
        raise _rejection(f"Invalid value: '{item.get('role')}'.", f"{path}.role", "invalid_value")
    content = item.get("content")
    if content is None:
        raise _rejection(f"Missing required parameter: '{path}.content'.", path, "missing_required_parameter")
    known = ("output_text", "refusal") if item["role"] == "assistant" else ("input_text", "input_image", "input_file")
    for number, part in enumerate([] if isinstance(content, str) else content):
        if part.get("type") not in known:
            raise _rejection(f"Invalid value: '{part.get('type')}'.", f"{path}.content[{number}]", "invalid_value")


def _rejection(message: str, param: str | None, code: str | None) -> Rejected:
    return Rejected(400, openai_rules.INVALID, message, param, code)


def count(body: dict[str, Any]) -> int:
    """The input tokens of a request: the same for the same prompt, more for a longer one."""
    return count_prompt({"messages": [body.get(name) for name in ("input", "instructions", "tools")]})


class Responses(OpenAI):
    def answer_id(self, serial: int) -> str:
        return identifier("resp_", serial, 48).lower()

    def common_request(self, body: dict[str, Any]) -> CommonRequest:
        choice = body.get("tool_choice")
        forced = "" if choice == "required" else None
        if isinstance(choice, dict) and choice.get("type") == "function":
            forced = choice["name"]
        tools = [tool for tool in body.get("tools") or [] if tool.get("type") in ("function", "custom")]
        return CommonRequest(
            model=body["model"],
            max_tokens=body.get("max_output_tokens"),
            forced=forced,
            tools=[(tool["name"], tool.get("parameters") or {}) for tool in tools],
            last_user=_last_user(body.get("input")),
        )

    def reply(self, body: dict[str, Any], step: Step, answer: Answer, answer_id: str) -> dict[str, Any]:
        status, facts = _ending(answer.stop)
        return {
            **_head(body, step, answer_id, status),
            **facts,
            "output": _output(body, answer, answer_id),
            "usage": None if step.usage is None else _usage(body, step, answer),
        }

    def events(self, body: dict[str, Any], step: Step, answer: Answer, answer_id: str) -> list[Event]:
        obfuscated = (body.get("stream_options") or {}).get("include_obfuscation", True)
        events: list[Event] = []

        def add(kind: str, piece: str | None = None, **facts: Any) -> None:
            data = {"type": kind, **facts, "sequence_number": len(events)}
            if piece is not None:
                data["delta"] = piece
                if obfuscated:
                    data["obfuscation"] = (string.ascii_letters * 2)[len(events) % 26 :][: len(events) * 5 % 16 + 1]
            text = piece or "" if kind == "response.output_text.delta" else ""
            frame = b"event: %b\ndata: %b\n\n" % (kind.encode(), compact(data))
            events.append(Event(frame, 0 if piece is None else 1, text))

        opening = {**_head(body, step, answer_id, "in_progress"), "output": [], "usage": None}
        add("response.created", response=opening)
        add("response.in_progress", response=opening)
        for index, (block, item) in enumerate(
            zip(_visible_blocks(body, answer), _output(body, answer, answer_id), strict=True)
        ):
            _item_events(add, block, item, index)
        if step.done:
            final = self.reply(body, step, answer, answer_id)
            add(f"response.{final['status']}", response=final)
        return events

    def terminal(self, event: bytes) -> bool:
        return event.startswith((b"event: response.completed", b"event: response.incomplete"))

    def error_event(self, rejected: Rejected, request_id: str) -> bytes:
        error = {"code": rejected.code, "message": rejected.message, "param": rejected.param}
        return self.event("error", compact({"type": "error", **error, "sequence_number": 99}))

    def event(self, kind: str, data: bytes) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def bill(self, reply: dict[str, Any]) -> Bill:
        usage = reply.get("usage") or {}
        return Bill(input_tokens=usage.get("input_tokens") or 0, output_tokens=usage.get("output_tokens") or 0)


def _last_user(value: Any) -> str:
    if isinstance(value, str):
        return value
    users = [item for item in value or [] if item.get("role") == "user"]
    return " ".join(strings(users[-1].get("content"))) if users else ""


def _visible_blocks(body: dict[str, Any], answer: Answer) -> list[Block]:
    """The blocks that get an output item. Only a reasoning model has items for reasoning."""
    reasons = bool(openai_rules.REASONING_MODELS.match(body["model"]))
    return [block for block in answer.blocks if reasons or block.kind != "thinking"]


def _head(body: dict[str, Any], step: Step, answer_id: str, status: str) -> dict[str, Any]:
    return {
        "id": answer_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": step.served_model or DATED.get(body["model"], body["model"]),
        "previous_response_id": body.get("previous_response_id"),
        "service_tier": "default",
        **{name: body[name] if body.get(name) is not None else default for name, default in _ECHOED.items()},
    }


def _ending(stop: str) -> tuple[str, dict[str, Any]]:
    if stop == "max_tokens":
        return "incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}
    return "completed", {"completed_at": int(time.time())}


def _output(body: dict[str, Any], answer: Answer, answer_id: str) -> list[dict[str, Any]]:
    """The output items. Reasoning has its encrypted content if the request asks for it."""
    items = [_item(body, block, answer_id, index) for index, block in enumerate(_visible_blocks(body, answer))]
    if ENCRYPTED_REASONING in (body.get("include") or ()):
        for index, item in enumerate(items):
            if item["type"] == "reasoning":
                item["encrypted_content"] = f"{ENCRYPTED}{index}"
    return items


def _item(body: dict[str, Any], block: Block, answer_id: str, index: int) -> dict[str, Any]:
    tail = f"{answer_id[5:]}{index}"
    if block.kind == "thinking":
        summary = [{"type": "summary_text", "text": block.whole}]
        return {"id": f"rs_{tail}", "type": "reasoning", "summary": summary}
    if block.kind == "tool":
        named = {"status": "completed", "call_id": f"call_{tail[-24:]}", "name": block.name}
        if any(tool.get("type") == "custom" and tool["name"] == block.name for tool in body.get("tools") or ()):
            return {"id": f"ctc_{tail}", "type": "custom_tool_call", "input": block.whole, **named}
        return {"id": f"fc_{tail}", "type": "function_call", "arguments": block.whole, **named}
    content = [_part(block.kind, block.whole)]
    return {"id": f"msg_{tail}", "type": "message", "status": "completed", "role": "assistant", "content": content}


def _part(kind: str, text: str) -> dict[str, Any]:
    if kind == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _item_events(add: Any, block: Block, item: dict[str, Any], index: int) -> None:
    """Add the events of one output item: added, its deltas, done."""
    position = {"item_id": item["id"], "output_index": index}
    started = {**item, "status": "in_progress", "content": [], "summary": [], "arguments": "", "input": ""}
    # Encrypted content comes only with the finished item.
    names = [name for name in item if name != "encrypted_content"]
    add("response.output_item.added", output_index=index, item={name: started[name] for name in names})
    if item["type"] == "custom_tool_call":
        for piece in block.pieces:
            add("response.custom_tool_call_input.delta", piece, **position)
        add("response.custom_tool_call_input.done", **position, input=block.whole)
    elif block.kind == "tool":
        for piece in block.pieces:
            add("response.function_call_arguments.delta", piece, **position)
        add("response.function_call_arguments.done", **position, arguments=block.whole)
    elif block.kind == "thinking":
        _part_events(
            add, block, position | {"summary_index": 0}, "reasoning_summary", {"type": "summary_text", "text": ""}
        )
    else:
        _part_events(add, block, position | {"content_index": 0}, "content", _part(block.kind, ""))
    add("response.output_item.done", output_index=index, item=item)


def _part_events(add: Any, block: Block, position: dict[str, Any], event_part: str, empty: dict[str, Any]) -> None:
    """Add the events of an item's only part: added, its deltas, done."""
    text_field = "refusal" if block.kind == "refusal" else "text"
    kind = {"text": "output_text", "refusal": "refusal", "thinking": "reasoning_summary_text"}[block.kind]
    logprobs: dict[str, Any] = {"logprobs": []} if block.kind == "text" else {}
    add(f"response.{event_part}_part.added", **position, part=empty)
    for piece in block.pieces:
        add(f"response.{kind}.delta", piece, **position, **logprobs)
    add(f"response.{kind}.done", **position, **{text_field: block.whole}, **logprobs)
    add(f"response.{event_part}_part.done", **position, part={**empty, text_field: block.whole})


def _usage(body: dict[str, Any], step: Step, answer: Answer) -> dict[str, Any]:
    bill = answer.bill
    if step.input_tokens is None:
        bill.input_tokens = count(body) + bill.cached_tokens + bill.cache_write_tokens
    usage = {
        "input_tokens": bill.input_tokens,
        "input_tokens_details": {
            "cached_tokens": bill.cached_tokens,
            "cache_write_tokens": bill.cache_write_tokens,
        },
        "output_tokens": bill.output_tokens,
        "output_tokens_details": {"reasoning_tokens": bill.reasoning_tokens},
        "total_tokens": bill.input_tokens + bill.output_tokens,
    }
    return overlay(json.loads(json.dumps(usage)), step)
