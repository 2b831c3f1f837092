"""``/openapi.json``, made from the marshmallow schemas and the routes, and Swagger UI from local files."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Blueprint, Flask, Response, current_app, jsonify, send_from_directory
from marshmallow import Schema

from llm_service.api import schemas
from llm_service.api.authentication import open_to_all
from llm_service.core.version import __version__
from llm_service.formats import registry

blueprint = Blueprint("docs", __name__)
blueprint.before_request(open_to_all)

ASSETS = Path(__file__).with_name("static") / "swagger"
# The script that starts Swagger UI is a file of its own, so that the policy can forbid inline scripts.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
)

REPLIES: dict[str, type[Schema]] = {
    "completion.complete": schemas.Completion,
    "account.key": schemas.Key,
    "account.usage": schemas.Usage,
    "health.health": schemas.Health,
    "health.ready": schemas.Ready,
}
# Routes whose reply is in a vendor's format or is not JSON. They are described in words.
DESCRIBED = {
    "streaming.stream": (
        "text/event-stream",
        'Lines data: {"delta": ...}, then one with "done": true and the usage, then data: [DONE].',
    ),
    "openai.chat_completions": (
        "application/json",
        "A chat.completion object. A streamed answer is text/event-stream with chat.completion.chunk objects.",
    ),
    "openai.input_tokens": ("application/json", "The number of input tokens."),
    "anthropic.count_tokens": ("application/json", "The number of input tokens."),
    "openai.completions": (
        "application/json",
        "A text_completion object. A streamed answer is text/event-stream with text_completion objects.",
    ),
    "openai.embeddings": ("application/json", "A list of embeddings, as numbers or base64."),
    "openai.responses": (
        "application/json",
        "A response object. A streamed answer is text/event-stream with the events of the Responses API.",
    ),
    "anthropic.messages": (
        "application/json",
        "A message object. A streamed answer is text/event-stream with the events of the Messages API.",
    ),
    "models.models": (
        "application/json",
        "The list of models in OpenAI's format, or in Anthropic's if the request has the header anthropic-version.",
    ),
    "models.model": (
        "application/json",
        "One model in OpenAI's format, or in Anthropic's if the request has the header anthropic-version.",
    ),
    "health.metrics": ("text/plain", "Metrics in Prometheus' text format."),
}
_HIDDEN = {"docs.openapi", "docs.page", "docs.asset"}
_ERRORS = {
    "400": "The body is wrong, or a field cannot be used with this model. The error names the field.",
    "401": "The request has no API key, or the key is not valid.",
    "402": "A budget does not cover what the call may cost. On OpenAI's routes the status is 429 instead.",
    "403": "The key may not use this model, or may not be used from this address.",
    "404": "The model is unknown, or its provider is not configured.",
    "413": "The body is too large.",
    "429": "A rate limit of this service or of the provider was reached. If waiting helps, Retry-After says how long.",
    "502": "The provider failed.",
    "503": "A part that this call needs is down, or the service is restarting. Retry-After says when to try again.",
    "504": "The provider timed out.",
}


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """This document."""
    return jsonify(document(current_app._get_current_object()))  # type: ignore[attr-defined]


@blueprint.get("/docs")
def page() -> Response:
    """Swagger UI."""
    return _file("index.html")


@blueprint.get("/docs/<path:name>")
def asset(name: str) -> Response:
    """Swagger UI's files."""
    return _file(name)


def _file(name: str) -> Response:
    response = send_from_directory(ASSETS, name, max_age=3600)
    response.headers["Content-Security-Policy"] = POLICY
    return response


@cache
def document(app: Flask) -> dict[str, Any]:
    """The OpenAPI 3.1 document of ``app``."""
    spec = APISpec(
        title="llm_service",
        version=__version__,
        openapi_version="3.1.0",
        info={
            "description": "A self-hosted gateway to Claude, OpenAI and OpenAI-compatible servers.",
            "license": {"name": "MIT"},
        },
        plugins=[MarshmallowPlugin(schema_name_resolver=_schema_name)],
    )
    spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    spec.components.security_scheme("x_api_key", {"type": "apiKey", "in": "header", "name": "X-API-Key"})
    open_blueprints = app.extensions["llm_service_open"]
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        if rule.endpoint in _HIDDEN or rule.endpoint == "static":
            continue
        is_open = rule.endpoint.partition(".")[0] in open_blueprints
        for method in sorted((rule.methods or set()) & {"GET", "POST"}):
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
            spec.path(path, operations={method.lower(): _operation(app, rule, is_open)})
    return spec.to_dict()


# Every format has a class called ``RequestSchema``. Without names of our own apispec would number them.
# The first format of a class that two formats share gives it its name.
_REQUEST_NAMES = {
    format.RequestSchema: f"{format.NAME.partition('_')[0].title()}Request"
    for format in reversed(registry.CLIENT_FORMATS)
}


def _schema_name(schema: Any) -> str:
    kind: type[Schema] = schema if isinstance(schema, type) else type(schema)
    return _REQUEST_NAMES.get(kind) or kind.__name__.removesuffix("Schema")


def _operation(app: Flask, rule: Any, is_open: bool) -> dict[str, Any]:
    text = (app.view_functions[rule.endpoint].__doc__ or "").strip()
    operation: dict[str, Any] = {
        "summary": text.splitlines()[0],
        "description": text,
        "tags": [rule.endpoint.partition(".")[0]],
        "operationId": re.sub(r"\W+", "_", f"{rule.endpoint}_{rule.rule}").strip("_"),
        "responses": {"200": _reply(rule.endpoint)},
        "security": [] if is_open else [{"bearer": []}, {"x_api_key": []}],
    }
    if rule.arguments:
        operation["parameters"] = [
            {"in": "path", "name": name, "required": True, "schema": {"type": "string"}}
            for name in sorted(rule.arguments)
        ]
    format = registry.format_of_path(rule.rule, {})
    if "POST" in rule.methods:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": format.RequestSchema}},
        }
    if not is_open:
        is_problem = format.ERROR_TYPE == "application/problem+json"
        content = {"content": {format.ERROR_TYPE: {"schema": schemas.Problem}}} if is_problem else {}
        for status, meaning in _ERRORS.items():
            operation["responses"][status] = {"description": meaning, **content}
    return operation


def _reply(endpoint: str) -> dict[str, Any]:
    if endpoint in REPLIES:
        return {"description": "The call succeeded.", "content": {"application/json": {"schema": REPLIES[endpoint]}}}
    kind, words = DESCRIBED[endpoint]
    return {
        "description": words,
        "content": {kind: {"schema": {"type": "string" if kind.startswith("text/") else "object"}}},
    }
