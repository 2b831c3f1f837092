"""The simple API with streaming: server-sent events that ``curl -N`` can show."""

from __future__ import annotations

from flask import Blueprint, Response

from llm_service.api.authentication import require_key
from llm_service.api.parse_request import read_call
from llm_service.api.replies import respond

blueprint = Blueprint("streaming", __name__)
blueprint.before_request(require_key)


@blueprint.post("/v1/stream")
@blueprint.post("/stream")
@blueprint.post("/complete/stream")
def stream() -> Response:
    """Complete a prompt or a list of messages, and stream the answer as it is generated."""
    return respond(read_call(stream=True))
