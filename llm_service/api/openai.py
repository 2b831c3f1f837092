"""OpenAI's API, for its SDKs and for programs that use them."""

from __future__ import annotations

from flask import Blueprint, Response

from llm_service.api.authentication import require_key
from llm_service.api.parse_request import read_call
from llm_service.api.replies import respond

blueprint = Blueprint("openai", __name__)
blueprint.before_request(require_key)


@blueprint.post("/v1/chat/completions")
def chat_completions() -> Response:
    """Create a chat completion in OpenAI's format, with any model of this service."""
    return respond(read_call())


@blueprint.post("/v1/responses/input_tokens")
def input_tokens() -> Response:
    """Count the input tokens of a response. The model's vendor counts them; the call costs nothing."""
    return respond(read_call(kind="count"))


@blueprint.post("/v1/completions")
def completions() -> Response:
    """Complete a prompt in the format of OpenAI's older API, with any model of this service."""
    return respond(read_call())


@blueprint.post("/v1/embeddings")
def embeddings() -> Response:
    """Create embeddings in OpenAI's format, with a model of any provider that has OpenAI's API."""
    return respond(read_call(kind="embed"))


@blueprint.post("/v1/responses")
def responses() -> Response:
    """Create a response in the format of OpenAI's Responses API, with any model of this service."""
    return respond(read_call())
