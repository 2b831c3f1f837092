"""OpenAI Chat Completions: ``POST /v1/chat/completions``, both ends."""

from llm_service.formats.defaults import ERROR_TYPE as ERROR_TYPE
from llm_service.formats.defaults import response_headers as response_headers
from llm_service.formats.defaults import with_turn as with_turn
from llm_service.formats.openai_chat.bounds import BOUNDS as BOUNDS
from llm_service.formats.openai_chat.bounds import IMAGE_TOKENS as IMAGE_TOKENS
from llm_service.formats.openai_chat.decode_answer import read_answer as read_answer
from llm_service.formats.openai_chat.decode_answer import read_error as read_error
from llm_service.formats.openai_chat.decode_request import read_request as read_request
from llm_service.formats.openai_chat.decode_stream import StreamDecoder as StreamDecoder
from llm_service.formats.openai_chat.encode_answer import write_answer as write_answer
from llm_service.formats.openai_chat.encode_request import write_request as write_request
from llm_service.formats.openai_chat.encode_stream import StreamEncoder as StreamEncoder
from llm_service.formats.openai_chat.errors import error as error
from llm_service.formats.openai_chat.errors import error_headers as error_headers
from llm_service.formats.openai_chat.errors import status as status
from llm_service.formats.openai_chat.json_format import json_format as json_format
from llm_service.formats.openai_chat.passthrough import Passthrough as Passthrough
from llm_service.formats.openai_chat.passthrough import forward as forward
from llm_service.formats.openai_chat.passthrough import read_verbatim as read_verbatim
from llm_service.formats.openai_chat.schema import FIELD_NAMES as FIELD_NAMES
from llm_service.formats.openai_chat.schema import KEEP_ALIVE as KEEP_ALIVE
from llm_service.formats.openai_chat.schema import NAME as NAME
from llm_service.formats.openai_chat.schema import PATHS as PATHS
from llm_service.formats.openai_chat.schema import RequestSchema as RequestSchema
from llm_service.formats.openai_chat.schema import check as check
from llm_service.formats.openai_chat.schema import prompt as prompt
