"""Turns an HTTP request into a ``Call``: one function for the routes of all formats."""

from __future__ import annotations

import time
from typing import cast, get_args

from flask import g, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from llm_service.api import authentication
from llm_service.core.call import Call, JsonAnswers, Kind
from llm_service.core.errors import ClientClosed, InvalidRequest, PayloadTooLarge, Rejected, UnsupportedMediaType
from llm_service.core.headers import TRAVELLING
from llm_service.core.target import Target
from llm_service.formats import json_body, registry
from llm_service.json_answers.checking import HEADER
from llm_service.service import current


def read_call(*, stream: bool | None = None, kind: Kind = "generate") -> Call:
    """The request as a call in the format of its route.

    ``stream`` replaces the body's field of that name. Only generated answers are streamed.

    Raises:
        InvalidRequest, PayloadTooLarge, UnsupportedMediaType: The body is wrong. The error names the field or limit.
        ClientClosed: The client closed the connection before the end of the body.
        ModelNotFound, Forbidden: The catalogue has no such model, or the key may not use it.
    """
    info = g.request_info
    format = registry.format_of(info)
    raw = read_body()
    body = json_body.load_json(raw)
    if isinstance(model := body.get("model"), str):
        info.model = model
    body = format.check(body)
    model = body.get("model") or current().catalog.default_model
    streams = kind == "generate" and (bool(body.get("stream")) if stream is None else stream)
    info.model, info.stream = model, streams
    caller, json_answers = authentication.caller(), _json_answers()

    def call(targets: tuple[Target, ...] = ()) -> Call:
        return Call(
            id=info.id,
            request_id=info.request_id,
            route=info.route,
            format=info.format,
            model=model,
            stream=streams,
            body=body,
            caller=caller,
            created=int(time.time()),
            arrived=info.started,
            body_bytes=len(raw),
            headers=_travelling(request.headers),
            client_ip=info.client_ip,
            kind=kind,
            json_answers=json_answers,
            targets=targets,
        )

    try:
        return call(current().catalog.resolve(model, caller))
    except Rejected:
        info.call = call()  # for its row in the log, which has the hash of the prompt
        raise


def _json_answers() -> JsonAnswers:
    """The value of the request's header, or else the key's. Raises InvalidRequest for an unknown value."""
    value = request.headers.get(HEADER)
    if value is None:
        return authentication.caller().json_answers
    if value not in get_args(JsonAnswers):
        raise InvalidRequest(f"The header {HEADER} must be one of {', '.join(get_args(JsonAnswers))}.", param=HEADER)
    return cast(JsonAnswers, value)


def read_body() -> bytes:
    """The body of the request. Raises PayloadTooLarge, UnsupportedMediaType, InvalidRequest or ClientClosed."""
    limit = current().settings.max_body_bytes
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body uncompressed.")
    content_type = request.mimetype
    if content_type and content_type != "application/json" and not content_type.endswith("+json"):
        # curl -d without a header sends this type although the body is JSON. No other type is taken for JSON.
        if content_type != "application/x-www-form-urlencoded":
            raise UnsupportedMediaType("Send the body as application/json.")
    # One byte more than the limit, because werkzeug cuts off a chunked body there without an error.
    request.max_content_length = limit + 1
    try:
        # Not get_data(): if the content type is that of a form, it would parse a form and return nothing.
        body = request.stream.read()
    except RequestEntityTooLarge:
        raise _too_large(limit) from None
    except (ClientDisconnected, OSError):
        raise ClientClosed("The client closed the connection or stopped sending before the end of its body.") from None
    except Exception:  # noqa: BLE001 - the server's own class for malformed chunks, which the edge must not name
        raise InvalidRequest("The transfer encoding of the request body is malformed.") from None
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is larger than {limit} bytes.")


def _travelling(headers: Headers) -> dict[str, str]:
    return {name: headers[name] for name in TRAVELLING if name in headers}
