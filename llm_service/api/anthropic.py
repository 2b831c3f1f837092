"""Anthropic's API, for its SDKs and everything built on them."""

from __future__ import annotations

from flask import Blueprint, Response

from llm_service.api.authentication import require_key
from llm_service.api.parse_request import read_call
from llm_service.api.replies import respond

blueprint = Blueprint("anthropic", __name__)
blueprint.before_request(require_key)


@blueprint.post("/v1/messages")
def messages() -> Response:
    """Messages, as Anthropic's; any model of this service."""
    return respond(read_call())


@blueprint.post("/v1/messages/count_tokens")
def count_tokens() -> Response:
    """The tokens of a message, counted by the model's vendor and not billed."""
    return respond(read_call(kind="count"))
