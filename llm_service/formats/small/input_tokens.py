"""OpenAI's token counting: ``POST /v1/responses/input_tokens``, both ends.

The request is a Responses request, and the answer is one number. ``count_tokens`` is its counterpart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from llm_service.core.call import Call
from llm_service.core.conversation import Conversation
from llm_service.core.events import Answer
from llm_service.core.target import Target
from llm_service.formats import anthropic_messages as messages
from llm_service.formats import openai_responses as responses
from llm_service.formats.defaults import ERROR_TYPE as ERROR_TYPE
from llm_service.formats.defaults import json_format as json_format
from llm_service.formats.defaults import response_headers as response_headers
from llm_service.formats.defaults import with_turn as with_turn
from llm_service.formats.openai_responses import BOUNDS as BOUNDS
from llm_service.formats.openai_responses import KEEP_ALIVE as KEEP_ALIVE
from llm_service.formats.openai_responses import Passthrough as Passthrough
from llm_service.formats.openai_responses import RequestSchema as RequestSchema
from llm_service.formats.openai_responses import StreamDecoder as StreamDecoder
from llm_service.formats.openai_responses import StreamEncoder as StreamEncoder
from llm_service.formats.openai_responses import check as check
from llm_service.formats.openai_responses import error as error
from llm_service.formats.openai_responses import error_headers as error_headers
from llm_service.formats.openai_responses import prompt as prompt
from llm_service.formats.openai_responses import read_error as read_error
from llm_service.formats.openai_responses import read_request as read_request
from llm_service.formats.openai_responses import status as status
from llm_service.formats.small import count_tokens
from llm_service.formats.small.count_tokens import read_answer as read_answer
from llm_service.formats.small.count_tokens import read_verbatim as read_verbatim

NAME = "input_tokens"
PATHS = ("/v1/responses/input_tokens",)
# The fields of the route: openai SDK 3.52, InputTokenCountParams.
FIELDS: Final = frozenset(
    {
        "conversation",
        "input",
        "instructions",
        "model",
        "parallel_tool_calls",
        "personality",
        "previous_response_id",
        "reasoning",
        "text",
        "tool_choice",
        "tools",
        "truncation",
    }
)


def write_answer(call: Call, answer: Answer) -> dict[str, Any]:
    """The reply's JSON object."""
    return {"object": "response.input_tokens", **(answer.body or {})}


def forward(call: Call, target: Target) -> dict[str, Any]:
    """The client's own body for ``target``. The rules of Responses for storage and other vendors' reasoning apply."""
    body = responses.forward(call, target)
    for name in ("include", "store"):
        if name not in call.body:
            body.pop(name, None)  # this route does not know these fields
    return body


def write_request(call: Call, conversation: Conversation, target: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A request to ``target`` with only the fields that count, and the dropped names. Raises UnsupportedParameter."""
    if call.format == count_tokens.NAME:
        call = replace(call, format=messages.NAME)  # its fields have the same names
    body, dropped = responses.write_request(call, conversation, target)
    return {name: value for name, value in body.items() if name in FIELDS}, dropped
