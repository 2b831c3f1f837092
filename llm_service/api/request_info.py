"""What is known of a request before it is a call: its id, its caller, its route's format.

This is the application's first ``before_request`` hook, so that the key is resolved before Flask-Limiter's own hook
asks for it. An error raised inside that hook would be taken for an unavailable limit storage.
"""

from __future__ import annotations

import time

from flask import Flask, g, request

from llm_service.api import authentication as auth
from llm_service.core import identifiers, ids
from llm_service.core.call import RequestInfo

# Longest prefix first. Management routes answer errors as the simple API does.
_FORMATS = (
    ("/v1/messages/count_tokens", "count_tokens"),
    ("/v1/messages", "messages"),
    ("/v1/chat/completions", "chat"),
    ("/v1/responses/input_tokens", "input_tokens"),
    ("/v1/responses", "responses"),
    ("/v1/completions", "completions"),
    ("/v1/embeddings", "embeddings"),
    ("/v1/chat", "simple"),
    ("/v1/complete", "simple"),
    ("/v1/stream", "simple"),
    ("/v1/usage", "simple"),
    ("/v1/key", "simple"),
)


def format_of(path: str) -> str:
    """The format of a path, known or not, so that a 404 or a 405 has its neighbours' shape."""
    for prefix, name in _FORMATS:
        if path == prefix or path.startswith(f"{prefix}/"):
            return name
    if path.startswith("/v1/"):  # both vendors' paths: only Anthropic's clients send a version
        return "messages" if "anthropic-version" in request.headers else "chat"
    return "simple"


def begin() -> None:
    given = request.headers.get("X-Request-Id") or request.headers.get("X-Correlation-Id") or ""
    call_id = ids.new_id()
    g.request_info = RequestInfo(
        id=call_id,
        request_id=identifiers.request_id(given) or call_id,
        route=request.url_rule.rule if request.url_rule else "",
        format=format_of(request.path),
        client_ip=request.remote_addr or "",
        started=time.monotonic(),
    )
    if request.method != "OPTIONS":
        g.identity = auth.identify(request)
        g.request_info.caller = g.identity.caller


def init_app(app: Flask) -> None:
    app.before_request(begin)
