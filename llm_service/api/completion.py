"""The simple API without streaming: one prompt in, one text out."""

from __future__ import annotations

from flask import Blueprint, Response

from llm_service.api.authentication import require_key
from llm_service.api.parse_request import read_call
from llm_service.api.replies import respond

blueprint = Blueprint("completion", __name__)
blueprint.before_request(require_key)


@blueprint.post("/v1/complete")
@blueprint.post("/complete")
@blueprint.post("/v1/chat")
def complete() -> Response:
    """Complete a prompt or a list of messages. With ``"stream": true`` the answer is streamed, as at ``/v1/stream``."""
    return respond(read_call())
