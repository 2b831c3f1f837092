"""OpenAI Embeddings: ``POST /v1/embeddings``, both ends. It does not stream and is not translated.

The fields are those of the openai SDK 3.52. The SDK asks for base64 (little-endian float32) if its caller asks for no
encoding. The vendor's answer reaches the client as it is, except that vectors are encoded as the client asked, because
many servers know only one encoding. ``split`` divides an answer to the inputs of several clients.
"""

from __future__ import annotations

import math
import sys
from array import array
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from marshmallow import fields as base

from llm_service.core.call import Call
from llm_service.core.conversation import Conversation
from llm_service.core.errors import UnsupportedParameter
from llm_service.core.events import Answer
from llm_service.core.identifiers import model_name
from llm_service.core.target import Target
from llm_service.core.usage import Usage
from llm_service.formats import decoding, validation
from llm_service.formats import schema_fields as fields
from llm_service.formats.bounds import Bounds
from llm_service.formats.decoding import Counts, broken
from llm_service.formats.defaults import ERROR_TYPE as ERROR_TYPE
from llm_service.formats.defaults import json_format as json_format
from llm_service.formats.defaults import response_headers as response_headers
from llm_service.formats.defaults import with_turn as with_turn

# Errors are the same on all of OpenAI's routes. A call of this kind never streams, so the encoder only writes errors.
from llm_service.formats.openai_chat import KEEP_ALIVE as KEEP_ALIVE
from llm_service.formats.openai_chat import StreamEncoder as StreamEncoder
from llm_service.formats.openai_chat import error as error
from llm_service.formats.openai_chat import error_headers as error_headers
from llm_service.formats.openai_chat import read_error as read_error
from llm_service.formats.openai_chat import status as status
from llm_service.formats.openai_chat import write_answer as write_answer

NAME = "embeddings"
PATHS = ("/v1/embeddings",)
# The vendor's limits of one request.
MAX_INPUTS: Final = 2048
MAX_TOKENS: Final = 300_000
_LARGEST_TOKEN: Final = 2**31 - 1
_NO_HEADERS: Mapping[str, str] = {}


class Input(fields._Strict, base.Raw):
    """A string, a list of strings, a list of tokens (integers), or a list of those."""

    rule = f"a non-empty string, 1 to {MAX_INPUTS} of them, a list of tokens, or 1 to {MAX_INPUTS} of those"

    def __init__(self, help: str, **options: Any) -> None:
        word, token = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
        tokens = {"type": "array", "items": token, "minItems": 1}
        several = [{"type": "array", "items": item, "minItems": 1, "maxItems": MAX_INPUTS} for item in (word, tokens)]
        super().__init__(help, metadata={"oneOf": [word, tokens, *several]}, **options)

    def accepts(self, value: Any) -> bool:
        if _is_text(value) or _is_tokens(value):
            return True
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_INPUTS:
            return False
        return all(map(_is_text, value)) or all(map(_is_tokens, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(v) is int and 0 <= v <= _LARGEST_TOKEN for v in value)


class Encoding(fields._Strict, base.String):
    rule = "float or base64"

    def accepts(self, value: Any) -> bool:
        return value in ("float", "base64")


class RequestSchema(fields.WireSchema):
    """``POST /v1/embeddings``. Fields not listed here pass to OpenAI as they are."""

    model = fields.Word("An embedding model of this service, or an alias.", 256, filled=True, required=True)
    input = Input("What to embed.", required=True)
    dimensions = fields.Integer("Length of the vectors, where the model can choose.", 1, 1_000_000)
    encoding_format = Encoding("float, or base64 of little-endian float32.")
    user = fields.Word("Your end user.")


_SCHEMA = RequestSchema()


class EmbeddingsBounds(Bounds):
    TEXTS = frozenset({"input"})


BOUNDS: Final = EmbeddingsBounds()


def check(body: Any) -> dict[str, Any]:
    """``body`` if it is a well-formed request, else InvalidRequest naming the field."""
    return validation.check(_SCHEMA, body)


def prompt(body: Mapping[str, Any]) -> list[Any]:
    """The JSON values that hold the prompt, for its keyed hash."""
    return [body.get("input")]


def read_request(body: Mapping[str, Any], headers: Mapping[str, str] = _NO_HEADERS) -> Conversation:
    """Raises UnsupportedParameter, because this is not a conversation and no other vendor has a counterpart."""
    raise UnsupportedParameter("model cannot make embeddings: its provider has no such route.", param="model")


def inputs(body: Mapping[str, Any]) -> list[Any]:
    """The inputs of a checked body one by one, each a string or a list of tokens."""
    given = body["input"]
    return [given] if isinstance(given, str) or isinstance(given[0], int) else given


def weight(given: str | list[int]) -> int:
    """An upper bound of the tokens of an input: a token is at least one byte."""
    return len(given.encode("utf-8", "surrogatepass")) if isinstance(given, str) else len(given)


def forward(call: Call, target: Target) -> dict[str, Any]:
    """The client's own body for ``target``."""
    return {**call.body, "model": target.model}


def read_verbatim(body: Mapping[str, Any], call: Call | None = None) -> Answer:
    """An answer that the client gets, with its vectors in the encoding that it asked for.

    Raises UpstreamBroken if it does not have one vector for each input.
    """
    if body.get("error"):  # some servers send an error with the status 200
        raise decoding.in_band(NAME, read_error(body))
    data = body.get("data")
    if not isinstance(data, list) or not data or not all(isinstance(x, dict) and x.get("embedding") for x in data):
        broken("it has no embeddings")
    if call is not None and len(data) != len(inputs(call.body)):
        broken("it does not have one embedding for each input")
    if call is not None:
        body = {**body, "data": encoded(data, call.body.get("encoding_format") or "float")}
    counts = Counts(body.get("usage"))
    tokens = counts.required(("prompt_tokens", "input_tokens", "total_tokens"), decoding.estimated_input(call))
    return Answer(
        usage=Usage(input_tokens=tokens, exact=counts.exact, lost=counts.lost),
        model=model_name(body.get("model")),
        body=body,
    )


def encoded(data: Sequence[Mapping[str, Any]], encoding: str) -> list[Mapping[str, Any]]:
    """The items of an answer with their vectors in ``encoding``. Raises UpstreamBroken for what is no vector."""
    kind, convert = (str, _to_base64) if encoding == "base64" else (list, _to_numbers)
    try:
        return [
            item if type(item["embedding"]) is kind else {**item, "embedding": convert(item["embedding"])}
            for item in data
        ]
    except (TypeError, ValueError, OverflowError):
        broken("an embedding is neither numbers nor base64")


def _to_base64(vector: Any) -> str:
    return b64encode(_little_endian(_finite(array("f", vector))).tobytes()).decode()


def _to_numbers(vector: Any) -> list[float]:
    numbers = array("f")
    numbers.frombytes(b64decode(vector, validate=True))
    return _finite(_little_endian(numbers)).tolist()


def _finite(numbers: array[float]) -> array[float]:
    """``numbers``. Raises ValueError if one of them is not a number, or is too large for 32 bits."""
    if not math.isfinite(sum(numbers)):  # a sum of 32-bit numbers is always finite in 64 bits
        raise ValueError
    return numbers


def _little_endian(numbers: array[float]) -> array[float]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def split(answer: Answer, parts: Sequence[Sequence[Any]]) -> list[Answer]:
    """Divide the answer to the inputs of all ``parts``, in their order, into one answer for each part.

    The vendor counts tokens only for the whole. Each part gets a share by ``weight``, which is not exact. The shares
    add up to the whole. Raises UpstreamBroken.
    """
    assert answer.body is not None
    data = sorted(answer.body["data"], key=_index)
    if [item["index"] for item in data] != list(range(sum(map(len, parts)))):
        broken("its embeddings are not numbered")
    shares = apportion(answer.usage.input_tokens, [sum(map(weight, part)) for part in parts])
    answers, start = [], 0
    for part, tokens in zip(parts, shares, strict=True):
        own = [{**item, "index": number} for number, item in enumerate(data[start : start + len(part)])]
        start += len(part)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "exact": False}
        answers.append(
            Answer(
                usage=Usage(input_tokens=tokens, exact=False, lost=answer.usage.lost),
                model=answer.model,
                body={**answer.body, "data": own, "usage": usage},
                upstream_request_id=answer.upstream_request_id,
                headers=answer.headers,
            )
        )
    return answers


def _index(item: Mapping[str, Any]) -> int:
    index = item.get("index")
    return index if type(index) is int else -1


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers in proportion to ``weights`` (at least one is positive) that add up to ``total``."""
    whole = sum(weights)
    shares = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda index: (-(total * weights[index] % whole), index))
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares
