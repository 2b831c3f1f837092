"""Anthropic Messages: ``POST /v1/messages``, both ends.

One dialect in several files, by subject: what a client asks and its parts, replies and errors to it;
what an upstream is asked, its replies, and its streams.
"""

from llm_service.dialects.messages_client import CROSSING as CROSSING
from llm_service.dialects.messages_client import KEEP_ALIVE as KEEP_ALIVE
from llm_service.dialects.messages_client import NAME as NAME
from llm_service.dialects.messages_client import RequestSchema as RequestSchema
from llm_service.dialects.messages_client import check as check
from llm_service.dialects.messages_client import prompt as prompt
from llm_service.dialects.messages_client import read_request as read_request
from llm_service.dialects.messages_errors import error as error
from llm_service.dialects.messages_errors import error_headers as error_headers
from llm_service.dialects.messages_errors import status as status
from llm_service.dialects.messages_reply import Frames as Frames
from llm_service.dialects.messages_reply import write_reply as write_reply
from llm_service.dialects.messages_request import write_request as write_request
from llm_service.dialects.messages_stream import Reader as Reader
from llm_service.dialects.messages_stream import Tap as Tap
from llm_service.dialects.messages_upstream import forward as forward
from llm_service.dialects.messages_upstream import left_out as left_out
from llm_service.dialects.messages_upstream import read_error as read_error
from llm_service.dialects.messages_upstream import read_reply as read_reply
from llm_service.dialects.messages_upstream import read_verbatim as read_verbatim
