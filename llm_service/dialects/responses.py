"""OpenAI Responses: ``POST /v1/responses``, both ends.

One dialect in several files: the client's side (``responses_client``, ``_request``,
``_reply``, ``_frames``), the upstream's (``_write``, ``_upstream``, ``_stream``,
``_reader``), and what they share (``_parts``).
"""

from llm_service.dialects.responses_client import KEEP_ALIVE as KEEP_ALIVE
from llm_service.dialects.responses_client import NAME as NAME
from llm_service.dialects.responses_client import RequestSchema as RequestSchema
from llm_service.dialects.responses_client import check as check
from llm_service.dialects.responses_client import error as error
from llm_service.dialects.responses_client import error_headers as error_headers
from llm_service.dialects.responses_client import prompt as prompt
from llm_service.dialects.responses_client import status as status
from llm_service.dialects.responses_frames import Frames as Frames
from llm_service.dialects.responses_reader import Reader as Reader
from llm_service.dialects.responses_reader import read_reply as read_reply
from llm_service.dialects.responses_reply import write_reply as write_reply
from llm_service.dialects.responses_request import CROSSING as CROSSING
from llm_service.dialects.responses_request import read_request as read_request
from llm_service.dialects.responses_stream import Tap as Tap
from llm_service.dialects.responses_upstream import forward as forward
from llm_service.dialects.responses_upstream import left_out as left_out
from llm_service.dialects.responses_upstream import read_error as read_error
from llm_service.dialects.responses_upstream import read_verbatim as read_verbatim
from llm_service.dialects.responses_write import needed as needed
from llm_service.dialects.responses_write import write_request as write_request
