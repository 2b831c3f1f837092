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
from llm_service.formats import registry


def begin() -> None:
    given = request.headers.get("X-Request-Id") or request.headers.get("X-Correlation-Id") or ""
    call_id = ids.new_id()
    g.request_info = RequestInfo(
        id=call_id,
        request_id=identifiers.request_id(given) or call_id,
        route=request.url_rule.rule if request.url_rule else "",
        format=registry.format_of_path(request.path, request.headers).NAME,
        client_ip=request.remote_addr or "",
        started=time.monotonic(),
    )
    if request.method != "OPTIONS":
        g.identity = auth.identify(request)
        g.request_info.caller = g.identity.caller


def init_app(app: Flask) -> None:
    app.before_request(begin)
