"""OpenAI's API, for its SDKs and everything built on them."""

from __future__ import annotations

from flask import Blueprint, Response

from llm_service.api.authentication import require_key
from llm_service.api.parse_request import read_call
from llm_service.api.replies import respond

blueprint = Blueprint("openai", __name__)
blueprint.before_request(require_key)


@blueprint.post("/v1/chat/completions")
def chat_completions() -> Response:
    """Chat completions, as OpenAI's; any model of this service."""
    return respond(read_call())


@blueprint.post("/v1/responses/input_tokens")
def input_tokens() -> Response:
    """The tokens of a response's input, counted by the model's vendor and not billed."""
    return respond(read_call(kind="count"))


@blueprint.post("/v1/completions")
def completions() -> Response:
    """Completions of a prompt, OpenAI's older way; any model of this service."""
    return respond(read_call())


@blueprint.post("/v1/embeddings")
def embeddings() -> Response:
    """Embeddings, as OpenAI's, of any provider that speaks its API."""
    return respond(read_call(kind="embed"))


@blueprint.post("/v1/responses")
def responses() -> Response:
    """Responses, as OpenAI's; any model of this service."""
    return respond(read_call())
