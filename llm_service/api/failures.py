"""Every failure becomes its route's own error shape, and a refusal its row.

Here and nowhere else: ``ServiceError`` from anywhere, Flask's 404, 405 and 413,
Flask-Limiter's refusal, and whatever nobody expected (500, told by type and
place only: an exception's text may hold content).
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
    405: "The route does not take this method.",
    413: "The request body is too large.",
    415: "Send the body as application/json.",
}


def init_app(app: Flask) -> None:
    app.register_error_handler(errors.ServiceError, _service_error)
    app.register_error_handler(RateLimitExceeded, _rate_limit)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)


def _service_error(error: errors.ServiceError) -> Response:
    _log_refusal(error)
    return reply(error)


def _rate_limit(error: RateLimitExceeded) -> Response:
    return _service_error(limits.breach(error))


def _http_error(error: HTTPException) -> Response | HTTPException:
    status = error.code or 500
    if status < 400:
        return error
    kind = _HTTP_ERRORS.get(status, errors.InvalidRequest if status < 500 else errors.InternalError)
    ours = kind(_HTTP_MESSAGES.get(status, "The request could not be read."), status=status)
    response = _service_error(ours)
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def _unexpected(error: Exception) -> Response:
    log.error(
        "unexpected failure",
        extra={"fields": {"request_id": g.request_info.request_id, **scrub.safe_exception(error)}},
    )
    return _service_error(errors.InternalError("The service failed. The operator finds the details by the request id."))


def _log_refusal(error: errors.ServiceError) -> None:
    """A refusal outside the journal's entry: calls that never were, and calls of known holders."""
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
    """``error`` in its route's format, with the status and headers its clients act on."""
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
