"""From an HTTP request to a ``Call``: one reader for every format's route."""

from __future__ import annotations

import time
from typing import cast, get_args

from flask import g, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from llm_service.api import authentication as auth
from llm_service.core.call import Call, JsonAnswers, Kind
from llm_service.core.errors import ClientClosed, InvalidRequest, PayloadTooLarge, Rejected, UnsupportedMediaType
from llm_service.core.headers import TRAVELLING
from llm_service.core.target import Target
from llm_service.formats import json_body, registry
from llm_service.json_answers.checking import HEADER
from llm_service.service import current


def read_call(*, stream: bool | None = None, kind: Kind = "generate") -> Call:
    """The request as a call in its route's format. ``stream`` overrides the body's; only what is generated streams.

    Raises:
        InvalidRequest: naming the field; PayloadTooLarge; UnsupportedMediaType; ClientClosed.
        ModelNotFound, Forbidden: of the catalogue.
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
    caller, json_answers = auth.caller(), _json_answers()

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
        info.call = call()  # for its row, which has the hash of the prompt
        raise


def _json_answers() -> JsonAnswers:
    """What the request says, else what its key does. Raises InvalidRequest."""
    asked = request.headers.get(HEADER)
    if asked is None:
        return auth.caller().json_answers
    if asked not in get_args(JsonAnswers):
        raise InvalidRequest(f"The header {HEADER} must be one of {', '.join(get_args(JsonAnswers))}.", param=HEADER)
    return cast(JsonAnswers, asked)


def read_body() -> bytes:
    """The request's body, within the limit and in time."""
    limit = current().settings.max_body_bytes
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body uncompressed.")
    content_type = request.mimetype
    if content_type and content_type != "application/json" and not content_type.endswith("+json"):
        # curl -d without a header says this, and means JSON; nothing else is taken for it.
        if content_type != "application/x-www-form-urlencoded":
            raise UnsupportedMediaType("Send the body as application/json.")
    # One byte more: werkzeug cuts a chunked body at the limit without a word.
    request.max_content_length = limit + 1
    try:
        # Not get_data(): for a form content type that would parse a form and leave nothing.
        body = request.stream.read()
    except RequestEntityTooLarge:
        raise _too_large(limit) from None
    except (ClientDisconnected, OSError):
        raise ClientClosed("The client closed the connection, or stopped sending, inside its request.") from None
    except Exception:  # noqa: BLE001 - the server's own class for broken chunks, which the edge must not name
        raise InvalidRequest("The request body's transfer encoding is broken.") from None
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is larger than {limit} bytes.")


def _travelling(headers: Headers) -> dict[str, str]:
    return {name: headers[name] for name in TRAVELLING if name in headers}
