"""What is known about a request before it becomes a call: its id, its caller, and the format of its route.

This is the application's first ``before_request`` hook, because Flask-Limiter's own hook needs the caller. If the key
were looked up within that hook, Flask-Limiter would take an error for an unavailable storage.
"""

from __future__ import annotations

import time

from flask import Flask, g, request

from llm_service.api import authentication
from llm_service.core import identifiers, ids
from llm_service.core.call import RequestInfo
from llm_service.formats import registry


def begin() -> None:
    client_id = request.headers.get("X-Request-Id") or request.headers.get("X-Correlation-Id") or ""
    call_id = ids.new_id()
    g.request_info = RequestInfo(
        id=call_id,
        request_id=identifiers.request_id(client_id) or call_id,
        route=request.url_rule.rule if request.url_rule else "",
        format=registry.format_of_path(request.path, request.headers).NAME,
        client_ip=request.remote_addr or "",
        started=time.monotonic(),
    )
    if request.method != "OPTIONS":
        g.identity = authentication.identify(request)
        g.request_info.caller = g.identity.caller


def init_app(app: Flask) -> None:
    app.before_request(begin)
