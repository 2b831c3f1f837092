"""Anthropic's token counting: ``POST /v1/messages/count_tokens``, both ends.

The request is a message request without ``max_tokens``, and the answer is one number. The vendor generates nothing and
bills nobody, so the answer's usage is empty and the number is in its body. For a model of another vendor, that vendor's
own counter (``input_tokens``) counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from llm_service.core.call import Call
from llm_service.core.conversation import Conversation
from llm_service.core.events import Answer
from llm_service.core.target import Target
from llm_service.core.usage import Usage
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import decoding, validation
from llm_service.formats import schema_fields as fields
from llm_service.formats.anthropic_messages import BOUNDS as BOUNDS
from llm_service.formats.anthropic_messages import KEEP_ALIVE as KEEP_ALIVE
from llm_service.formats.anthropic_messages import Passthrough as Passthrough
from llm_service.formats.anthropic_messages import StreamDecoder as StreamDecoder
from llm_service.formats.anthropic_messages import StreamEncoder as StreamEncoder
from llm_service.formats.anthropic_messages import error as error
from llm_service.formats.anthropic_messages import error_headers as error_headers
from llm_service.formats.anthropic_messages import prompt as prompt
from llm_service.formats.anthropic_messages import read_error as read_error
from llm_service.formats.anthropic_messages import status as status
from llm_service.formats.decoding import broken
from llm_service.formats.defaults import ERROR_TYPE as ERROR_TYPE
from llm_service.formats.defaults import json_format as json_format
from llm_service.formats.defaults import response_headers as response_headers
from llm_service.formats.defaults import with_turn as with_turn

NAME = "count_tokens"
PATHS = ("/v1/messages/count_tokens",)
# The fields of the route: anthropic SDK 2.11, MessageCountTokensParams.
FIELDS: Final = frozenset(
    {"messages", "model", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control", "speed"}
)
# A message request needs a limit. It does not count, and this one leaves room for any budget of thinking.
_MAX_TOKENS: Final = 1_000_000
_NO_HEADERS: Mapping[str, str] = {}


class RequestSchema(messages.RequestSchema):
    """``POST /v1/messages/count_tokens``. Fields not listed here pass to Anthropic as they are."""

    max_tokens = fields.Integer("Not needed, because nothing is generated.", 0, fields.MAX_TOKENS)


_SCHEMA = RequestSchema()


def check(body: Any) -> dict[str, Any]:
    """``body`` if it is a well-formed request, else InvalidRequest naming the field."""
    return validation.check(_SCHEMA, body)


def read_request(body: Mapping[str, Any], headers: Mapping[str, str] = _NO_HEADERS) -> Conversation:
    """A checked body as a conversation. Raises UnsupportedParameter naming a field that cannot be translated."""
    return messages.read_request({**body, "max_tokens": _MAX_TOKENS}, headers)


def write_answer(call: Call, answer: Answer) -> dict[str, Any]:
    """The reply's JSON object."""
    return dict(answer.body or {})


def write_request(call: Call, conversation: Conversation, target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A request to ``target`` with only the fields that count, and the dropped names. Raises UnsupportedParameter."""
    body, dropped = messages.write_request(call, conversation, target)
    return {name: value for name, value in body.items() if name in FIELDS}, dropped


def forward(call: Call, target: Target) -> dict[str, Any]:
    """The client's own body for ``target``."""
    return messages.forward(call, target)


def read_verbatim(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """The answer as it is. Raises UpstreamBroken if it has no count."""
    return replace(read_answer(body), body=body)


def read_answer(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """The count alone. Raises UpstreamBroken if there is none."""
    tokens = body.get("input_tokens")
    if type(tokens) is not int or not 0 <= tokens <= decoding.MAX_TOKENS:
        broken("it has no count of tokens")
    return Answer(usage=Usage(), body={"input_tokens": tokens})
