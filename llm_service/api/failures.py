"""Turns every failure into an error in the format of its route, and gives a rejected request its row in the log.

This is the only place for it: ``ServiceError`` from anywhere, Flask's 404, 405 and
413, the rejections of Flask-Limiter, and unexpected exceptions. These become a 500
and are logged with their type and place only, because their text may hold content.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import orjson
from flask import Flask, Response, g
from flask_limiter import RateLimitExceeded
from werkzeug.exceptions import HTTPException

from llm_service.api import limits
from llm_service.core import errors
from llm_service.formats import registry
from llm_service.observability import scrub
from llm_service.service import current

log = logging.getLogger(__name__)

_HTTP_ERRORS: dict[int, type[errors.ServiceError]] = {
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedMediaType,
}
_HTTP_MESSAGES = {
    404: "There is no such route.",
    405: "The route does not take this method. The header Allow lists those that it takes.",
    413: "The request body is too large.",
    415: "Send the body as application/json.",
}


def init_app(app: Flask) -> None:
    app.register_error_handler(errors.ServiceError, _service_error)
    app.register_error_handler(RateLimitExceeded, _rate_limit)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)


def _service_error(error: errors.ServiceError) -> Response:
    _record_rejection(error)
    return reply(error)


def _rate_limit(error: RateLimitExceeded) -> Response:
    return _service_error(limits.rate_limited(error))


def _http_error(error: HTTPException) -> Response | HTTPException:
    status = error.code or 500
    if status < 400:
        return error
    kind = _HTTP_ERRORS.get(status, errors.InvalidRequest if status < 500 else errors.InternalError)
    response = _service_error(kind(_HTTP_MESSAGES.get(status, "The request could not be read."), status=status))
    methods = getattr(error, "valid_methods", None)
    if methods:
        response.headers["Allow"] = ", ".join(sorted(methods))
    return response


def _unexpected(error: Exception) -> Response:
    log.error(
        "unexpected failure",
        extra={"fields": {"request_id": g.request_info.request_id, **scrub.safe_exception(error)}},
    )
    text = "The service failed. The operator can find the details by the request id."
    return _service_error(errors.InternalError(text))


def _record_rejection(error: errors.ServiceError) -> None:
    """Write the row of a request that was rejected before its call began."""
    if g.request_info.journaled:
        return
    g.request_info.journaled = True
    identity = g.get("identity")
    journal = current().journal
    if identity is None or identity.caller is None:
        journal.anonymous(g.request_info, error)
    else:
        journal.rejected(g.request_info, error)


def reply(error: errors.ServiceError) -> Response:
    """``error`` in the format of its route, with the status and headers that its clients use."""
    format = registry.format_of(g.request_info)
    body: Any = format.error(error, g.request_info.request_id)
    response = Response(orjson.dumps(body), status=format.status(error), content_type=format.ERROR_TYPE)
    response.headers.update(format.error_headers(error, datetime.now(UTC)))
    response.headers.update(error.headers)
    if error.vendor.get("request_id"):
        response.headers["X-Upstream-Request-Id"] = error.vendor["request_id"]
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.limit is not None:
        response.headers.update(limits.headers(error.limit))
    if isinstance(error, errors.Unauthenticated):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
