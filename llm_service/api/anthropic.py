"""Anthropic's API, for its SDKs and for programs that use them."""

from __future__ import annotations

from flask import Blueprint, Response

from llm_service.api.authentication import require_key
from llm_service.api.parse_request import read_call
from llm_service.api.replies import respond

blueprint = Blueprint("anthropic", __name__)
blueprint.before_request(require_key)


@blueprint.post("/v1/messages")
def messages() -> Response:
    """Create a message in the format of Anthropic's Messages API, with any model of this service."""
    return respond(read_call())


@blueprint.post("/v1/messages/count_tokens")
def count_tokens() -> Response:
    """Count the input tokens of a message. The model's vendor counts them; the call costs nothing."""
    return respond(read_call(kind="count"))
