"""OpenAI Responses: ``POST /v1/responses``, the client's side and the upstream's side."""

from llm_service.formats.openai_responses.decode_answer import read_answer as read_answer
from llm_service.formats.openai_responses.decode_answer import read_error as read_error
from llm_service.formats.openai_responses.decode_request import read_request as read_request
from llm_service.formats.openai_responses.decode_stream import StreamDecoder as StreamDecoder
from llm_service.formats.openai_responses.encode_answer import write_answer as write_answer
from llm_service.formats.openai_responses.encode_request import needed as needed
from llm_service.formats.openai_responses.encode_request import write_request as write_request
from llm_service.formats.openai_responses.encode_stream import StreamEncoder as StreamEncoder
from llm_service.formats.openai_responses.errors import error as error
from llm_service.formats.openai_responses.errors import error_headers as error_headers
from llm_service.formats.openai_responses.errors import status as status
from llm_service.formats.openai_responses.passthrough import Passthrough as Passthrough
from llm_service.formats.openai_responses.passthrough import forward as forward
from llm_service.formats.openai_responses.passthrough import left_out as left_out
from llm_service.formats.openai_responses.passthrough import read_verbatim as read_verbatim
from llm_service.formats.openai_responses.schema import FIELD_NAMES as FIELD_NAMES
from llm_service.formats.openai_responses.schema import KEEP_ALIVE as KEEP_ALIVE
from llm_service.formats.openai_responses.schema import NAME as NAME
from llm_service.formats.openai_responses.schema import RequestSchema as RequestSchema
from llm_service.formats.openai_responses.schema import check as check
from llm_service.formats.openai_responses.schema import prompt as prompt
