"""The replies of the service's own routes, for the OpenAPI document. The vendors describe the replies in their formats.

A test sends real calls and loads the replies with these schemas, so the schemas and the replies cannot differ.
"""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields


def _text(description: str, **more: Any) -> fields.String:
    return fields.String(required=True, metadata={"description": description}, **more)


def _count(description: str, **more: Any) -> fields.Integer:
    return fields.Integer(required=True, strict=True, metadata={"description": description}, **more)


class CompletionUsage(Schema):
    input_tokens = _count("Tokens of the whole prompt, cached tokens included.")
    output_tokens = _count("Tokens of the answer, reasoning included.")
    cached_tokens = _count("The part of input_tokens that was read from the vendor's cache.")
    cost_usd = fields.Float(
        required=True,
        allow_none=True,
        metadata={"description": "The cost in dollars; null if the price is unknown."},
    )
    exact = fields.Boolean(
        required=True, metadata={"description": "False if the counts are estimates and not the vendor's own."}
    )


class Completion(Schema):
    id = _text("The id of the call in the request log.")
    model = _text("The model that answered.")
    provider = _text("The provider that answered.")
    text = _text("The answer.")
    stop_reason = _text(
        "Why the model stopped: end_turn, max_tokens, stop_sequence, tool_use, refusal or other.", allow_none=True
    )
    usage = fields.Nested(CompletionUsage, required=True)


class Problem(Schema):
    """An error in the format of RFC 9457."""

    type = _text("The kind of error: urn:llm-service:error: followed by the code.")
    title = _text("The kind of error, in words.")
    status = _count("The HTTP status.")
    detail = _text("What is wrong. It names the field, the limit or the rule.")
    code = _text("The stable name of the error; docs/errors.md lists all codes.")
    param = fields.String(allow_none=True, metadata={"description": "The path of the field that is wrong."})
    request_id = _text("The id of the request, as in the header X-Request-Id.")


class RequestsPerMinute(Schema):
    limit = _count("Requests that are allowed in any window of this length.")
    window_seconds = _count("Length of the window in seconds.")
    remaining = _count("Requests that are left now; null while Redis is away.", allow_none=True)
    reset_seconds = _count("Seconds until more requests are left; null while Redis is away.", allow_none=True)


def _limit(description: str) -> fields.Integer:
    return _count(f"{description} Null means no limit.", allow_none=True)


def _dollars(description: str, **more: Any) -> fields.Float:
    return fields.Float(required=True, metadata={"description": description}, **more)


class SharedLimit(Schema):
    scope = _text("What is limited: user, org, network, model or service.")
    name = _text(
        "The user, the organisation, the network in CIDR notation, or the model or pattern; null for the service.",
        allow_none=True,
    )
    requests_per_minute = _limit("Requests per minute, of all calls in this scope together.")
    tokens_per_minute = _limit("Tokens per minute, of all calls in this scope together.")
    parallel = _limit("Calls at the same time, of all callers in this scope together.")


class Budget(Schema):
    scope = _text("Whose budget it is: key, user, org or service. The budget of the key's tier is shown as the key's.")
    model = _text("The model or pattern that the budget is for; null means all models.", allow_none=True)
    amount_usd = _dollars("Dollars that may be spent per period.")
    per = _text("The period: day, week, month or total.")
    spent_usd = _dollars("Dollars spent in this period, by all calls that count against the budget.")
    left_usd = _dollars("The amount minus what is spent. Calls in flight hold a part of it.")
    resets_at = _text("When the period ends, in RFC 3339; null means never.", allow_none=True)


class Key(Schema):
    id = _text("The key's id, never the key itself.")
    name = _text("The name of the key.")
    org = _text("The organisation of the key.", allow_none=True)
    user = _text("The user of the key.", allow_none=True)
    tier = _text("The tier of the key.")
    models = fields.List(
        fields.String(),
        required=True,
        allow_none=True,
        metadata={"description": "The models or patterns that the key may use; null means all models."},
    )
    networks = fields.List(
        fields.String(),
        required=True,
        allow_none=True,
        metadata={"description": "The networks that the key may be used from; null means any."},
    )
    expires_at = _text("When the key expires, in RFC 3339; null means never.", allow_none=True)
    requests_per_minute = fields.Nested(RequestsPerMinute, required=True, allow_none=True)
    tokens_per_minute = _limit("Tokens per minute of this key, input and output together.")
    parallel = _limit("Calls of this key at the same time.")
    shared_limits = fields.List(
        fields.Nested(SharedLimit), required=True, metadata={"description": "Limits that the key shares with others."}
    )
    budgets = fields.List(
        fields.Nested(Budget),
        required=True,
        metadata={"description": "Budgets that the key's calls count against. Each must cover what a call may cost."},
    )


class Spent(Schema):
    calls = _count("Calls, rejected ones included.")
    input_tokens = _count("Tokens of the prompts.")
    output_tokens = _count("Tokens of the answers.")
    cached_tokens = _count("Tokens that were read from the vendors' caches.")
    unpriced_calls = _count("Calls whose cost is unknown. cost_usd does not contain them.")
    cost_usd = _dollars("The sum of the known costs in dollars; null if all costs are unknown.", allow_none=True)


class Usage(Schema):
    key_id = _text("The id of the key.")
    today = fields.Nested(Spent, required=True)
    seven_days = fields.Nested(Spent, required=True, data_key="7d")
    thirty_days = fields.Nested(Spent, required=True, data_key="30d")
    budgets = fields.List(
        fields.Nested(Budget),
        required=True,
        metadata={"description": "Budgets that the key's calls count against, in their current periods."},
    )


class Health(Schema):
    status = _text("Always ok.")


class Ready(Schema):
    status = _text("ready, unavailable, or draining while the service stops.")
    database = _text("State of the database: ok or unreachable.")
    redis = _text("State of Redis: ok or unreachable.")
    budgets = _text(
        "ok, or what happens to calls with a budget while Redis is away: closed rejects them, open admits them."
    )
    providers = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata={
            "description": "For each provider, from recent calls only: reachable, unreachable, unknown or refused (the "
            "vendor refused this service's key, or its account has no credit)."
        },
    )
    refused_targets = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata={"description": "The targets whose vendor refused this service lately, with the error's code."},
    )
    warnings = fields.List(
        fields.String(),
        required=True,
        metadata={
            "description": "Models of the catalogue that are retired or retire soon. They are no reason for 503."
        },
    )
