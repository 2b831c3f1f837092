"""Anthropic Messages: ``POST /v1/messages``, for clients and for upstreams.

This module is the face of the format: it has the names that the protocols in ``llm_service.formats`` ask for. The
client's side is in ``schema``, ``decode_request``, ``encode_answer``, ``encode_stream`` and ``errors``. The upstream's
side is in ``encode_request``, ``decode_answer``, ``decode_stream`` and ``passthrough``.
"""

from llm_service.formats.anthropic_messages.bounds import BOUNDS as BOUNDS
from llm_service.formats.anthropic_messages.bounds import IMAGE_TOKENS as IMAGE_TOKENS
from llm_service.formats.anthropic_messages.decode_answer import read_answer as read_answer
from llm_service.formats.anthropic_messages.decode_answer import read_error as read_error
from llm_service.formats.anthropic_messages.decode_answer import reported_usage as reported_usage
from llm_service.formats.anthropic_messages.decode_request import read_request as read_request
from llm_service.formats.anthropic_messages.decode_stream import StreamDecoder as StreamDecoder
from llm_service.formats.anthropic_messages.encode_answer import write_answer as write_answer
from llm_service.formats.anthropic_messages.encode_request import EXTRA_RULES as EXTRA_RULES
from llm_service.formats.anthropic_messages.encode_request import write_request as write_request
from llm_service.formats.anthropic_messages.encode_stream import StreamEncoder as StreamEncoder
from llm_service.formats.anthropic_messages.errors import error as error
from llm_service.formats.anthropic_messages.errors import error_headers as error_headers
from llm_service.formats.anthropic_messages.errors import response_headers as response_headers
from llm_service.formats.anthropic_messages.errors import status as status
from llm_service.formats.anthropic_messages.json_format import json_format as json_format
from llm_service.formats.anthropic_messages.passthrough import Passthrough as Passthrough
from llm_service.formats.anthropic_messages.passthrough import forward as forward
from llm_service.formats.anthropic_messages.passthrough import left_out as left_out
from llm_service.formats.anthropic_messages.passthrough import read_verbatim as read_verbatim
from llm_service.formats.anthropic_messages.schema import COMMON as COMMON
from llm_service.formats.anthropic_messages.schema import EXTRAS as EXTRAS
from llm_service.formats.anthropic_messages.schema import FIELD_NAMES as FIELD_NAMES
from llm_service.formats.anthropic_messages.schema import KEEP_ALIVE as KEEP_ALIVE
from llm_service.formats.anthropic_messages.schema import NAME as NAME
from llm_service.formats.anthropic_messages.schema import PATHS as PATHS
from llm_service.formats.anthropic_messages.schema import RequestSchema as RequestSchema
from llm_service.formats.anthropic_messages.schema import check as check
from llm_service.formats.anthropic_messages.schema import prompt as prompt
from llm_service.formats.defaults import ERROR_TYPE as ERROR_TYPE
from llm_service.formats.defaults import with_turn as with_turn
