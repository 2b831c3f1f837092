"""OpenAI Chat Completions: ``POST /v1/chat/completions``, both ends.

One format in several files, by subject: what a client asks and its parts, replies and errors to it;
what an upstream is asked, its replies, and its streams.
"""

from llm_service.formats.defaults import ERROR_TYPE as ERROR_TYPE
from llm_service.formats.defaults import response_headers as response_headers
from llm_service.formats.defaults import with_turn as with_turn
from llm_service.formats.openai_chat.bounds import BOUNDS as BOUNDS
from llm_service.formats.openai_chat.bounds import IMAGE_TOKENS as IMAGE_TOKENS
from llm_service.formats.openai_chat.decode_answer import forward as forward
from llm_service.formats.openai_chat.decode_answer import read_answer as read_answer
from llm_service.formats.openai_chat.decode_answer import read_error as read_error
from llm_service.formats.openai_chat.decode_answer import read_verbatim as read_verbatim
from llm_service.formats.openai_chat.decode_request import CROSSING as CROSSING
from llm_service.formats.openai_chat.decode_request import FIELD_NAMES as FIELD_NAMES
from llm_service.formats.openai_chat.decode_request import KEEP_ALIVE as KEEP_ALIVE
from llm_service.formats.openai_chat.decode_request import NAME as NAME
from llm_service.formats.openai_chat.decode_request import PATHS as PATHS
from llm_service.formats.openai_chat.decode_request import RequestSchema as RequestSchema
from llm_service.formats.openai_chat.decode_request import check as check
from llm_service.formats.openai_chat.decode_request import prompt as prompt
from llm_service.formats.openai_chat.decode_request import read_request as read_request
from llm_service.formats.openai_chat.decode_stream import Passthrough as Passthrough
from llm_service.formats.openai_chat.decode_stream import StreamDecoder as StreamDecoder
from llm_service.formats.openai_chat.encode_answer import StreamEncoder as StreamEncoder
from llm_service.formats.openai_chat.encode_answer import write_answer as write_answer
from llm_service.formats.openai_chat.encode_request import write_request as write_request
from llm_service.formats.openai_chat.errors import error as error
from llm_service.formats.openai_chat.errors import error_headers as error_headers
from llm_service.formats.openai_chat.errors import status as status
from llm_service.formats.openai_chat.json_format import json_format as json_format
