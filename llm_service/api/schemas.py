"""What our own routes answer, for the OpenAPI document. The vendors' replies are described by the vendors.

A test sends real calls and loads the replies with these schemas, so they cannot drift.
"""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields


def _text(description: str, **more: Any) -> fields.String:
    return fields.String(required=True, metadata={"description": description}, **more)


def _count(description: str, **more: Any) -> fields.Integer:
    return fields.Integer(required=True, strict=True, metadata={"description": description}, **more)


class CompletionUsage(Schema):
    input_tokens = _count("the whole prompt, cached tokens included")
    output_tokens = _count("reasoning included")
    cached_tokens = _count("the part of input_tokens read from the vendor's cache")
    cost_usd = fields.Float(required=True, allow_none=True, metadata={"description": "null when no price is known"})
    exact = fields.Boolean(required=True, metadata={"description": "false when estimated, not counted by the vendor"})


class Completion(Schema):
    id = _text("the call's id, as in the request log")
    model = _text("the model that answered")
    provider = _text("the provider that answered")
    text = _text("the answer")
    stop_reason = _text("end_turn, max_tokens, stop_sequence, tool_use, refusal or other", allow_none=True)
    usage = fields.Nested(CompletionUsage, required=True)


class Problem(Schema):
    """RFC 9457."""

    type = _text("urn:llm-service:error:CODE")
    title = _text("the kind of problem")
    status = _count("the HTTP status")
    detail = _text("what is wrong, naming the field, limit or rule")
    code = _text("stable name; docs/errors.md lists them")
    param = fields.String(allow_none=True, metadata={"description": "path of the offending field"})
    request_id = _text("as in X-Request-Id")


class RequestsPerMinute(Schema):
    limit = _count("allowed in any window")
    window_seconds = _count("the window")
    remaining = _count("left now; null while Redis is away", allow_none=True)
    reset_seconds = _count("until more is left; null while Redis is away", allow_none=True)


def _limit(description: str) -> fields.Integer:
    return _count(f"{description}; null: no limit", allow_none=True)


def _dollars(description: str, **more: Any) -> fields.Float:
    return fields.Float(required=True, metadata={"description": description}, **more)


class SharedLimit(Schema):
    scope = _text("whose: user, org, network, model or service")
    name = _text("its name; a network in CIDR, a model or pattern; null for the service", allow_none=True)
    requests_per_minute = _limit("of all of them together")
    tokens_per_minute = _limit("of all of them together")
    parallel = _limit("calls at the same time, of all of them together")


class Budget(Schema):
    scope = _text("whose: key (its tier's too), user, org or service")
    model = _text("only for calls to this model or pattern; null: for all", allow_none=True)
    amount_usd = _dollars("to spend per period")
    per = _text("day, week, month or total")
    spent_usd = _dollars("in this period, by all calls that count against it")
    left_usd = _dollars("the amount without what is spent; calls in flight hold a part of it")
    resets_at = _text("RFC 3339; null: never", allow_none=True)


class Key(Schema):
    id = _text("the key's id, never the key")
    name = _text("its label")
    org = _text("its organisation", allow_none=True)
    user = _text("its user", allow_none=True)
    tier = _text("its tier")
    models = fields.List(fields.String(), required=True, allow_none=True, metadata={"description": "null: all"})
    networks = fields.List(
        fields.String(), required=True, allow_none=True, metadata={"description": "it may call from; null: from any"}
    )
    expires_at = _text("RFC 3339", allow_none=True)
    requests_per_minute = fields.Nested(RequestsPerMinute, required=True, allow_none=True)
    tokens_per_minute = _limit("input and output, of this key")
    parallel = _limit("calls of this key at the same time")
    shared_limits = fields.List(
        fields.Nested(SharedLimit), required=True, metadata={"description": "that it shares with others"}
    )
    budgets = fields.List(
        fields.Nested(Budget), required=True, metadata={"description": "each must cover what a call may cost"}
    )


class Spent(Schema):
    calls = _count("calls, refused ones included")
    input_tokens = _count("whole prompts")
    output_tokens = _count("answers")
    cached_tokens = _count("read from the vendors' caches")
    unpriced_calls = _count("calls whose price is unknown, which cost_usd leaves out")
    cost_usd = _dollars("the sum of the known costs; null when there are only unknown ones", allow_none=True)


class Usage(Schema):
    key_id = _text("the key")
    today = fields.Nested(Spent, required=True)
    seven_days = fields.Nested(Spent, required=True, data_key="7d")
    thirty_days = fields.Nested(Spent, required=True, data_key="30d")
    budgets = fields.List(
        fields.Nested(Budget), required=True, metadata={"description": "that its calls count against, in this period"}
    )


class Health(Schema):
    status = _text("ok")


class Ready(Schema):
    status = _text("ready, unavailable or draining")
    database = _text("ok or unreachable")
    redis = _text("ok or unreachable")
    budgets = _text("ok, or what becomes of calls with a budget while Redis is away: closed or open")
    providers = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata={"description": "reachable, unreachable or unknown"},
    )
