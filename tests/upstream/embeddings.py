"""``POST /v1/embeddings`` of the scripted vendor: what api.openai.com refuses, and vectors that tell what they are of.

The first number of a vector is its input's count of tokens, the second a hash of the input.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any

from tests.upstream import openai_rules
from tests.upstream.answer import CHARACTERS_PER_TOKEN
from tests.upstream.refusal import House, Refused, is_int

FIELDS = frozenset({"input", "model", "dimensions", "encoding_format", "user"})
DIMENSIONS = 8
MOST_INPUTS, MOST_TOKENS, MOST_TOKENS_OF_ONE = 2048, 300_000, 8192
LAST_TOKEN = 100_276  # of cl100k_base


def inputs_of(body: dict[str, Any]) -> list[Any]:
    given = body["input"]
    return [given] if isinstance(given, str) or (given and is_int(given[0])) else given


def tokens_of(given: Any) -> int:
    return max(1, len(given) // CHARACTERS_PER_TOKEN) if isinstance(given, str) else len(given)


def count(body: dict[str, Any]) -> int:
    """Tokens of all inputs."""
    return sum(map(tokens_of, inputs_of(body)))


def check(body: dict[str, Any], house: House) -> None:
    for name in ("input", "model"):
        if name not in body:
            raise _refuse(f"Missing required parameter: '{name}'.", name)
    for name in body:
        if name not in FIELDS | house.fields:
            raise _refuse(f"Unknown parameter: '{name}'.", name)
    model = body["model"]
    if not model.startswith("text-embedding-") and model not in house.models:
        raise Refused(404, openai_rules.INVALID, f"The model `{model}` does not exist.", None, "model_not_found")
    if body.get("encoding_format", "float") not in ("float", "base64"):
        raise _refuse("Invalid value for 'encoding_format'.", "encoding_format")
    if "dimensions" in body and (not is_int(body["dimensions"]) or body["dimensions"] < 1):
        raise _refuse(f"{body['dimensions']} is less than the minimum of 1 - 'dimensions'", None)
    given = inputs_of(body)
    if not 1 <= len(given) <= MOST_INPUTS:
        raise _refuse("'$.input' is invalid. Please check the API reference.", None)
    for item in given:
        if not item:
            raise _refuse("'$.input' is invalid. Please check the API reference.", None)
        if isinstance(item, list) and any(token > LAST_TOKEN for token in item):
            raise _refuse("Invalid 'input': a token is out of the vocabulary.", "input")
        if tokens_of(item) > MOST_TOKENS_OF_ONE:
            raise _refuse(f"This model's maximum context length is {MOST_TOKENS_OF_ONE} tokens.", None)
    if count(body) > MOST_TOKENS:
        raise _refuse(f"Requested tokens exceed the maximum of {MOST_TOKENS} per request.", None)


def _refuse(message: str, param: str | None) -> Refused:
    return Refused(400, openai_rules.INVALID, message, param, None)


def vector(given: Any, length: int = DIMENSIONS) -> list[float]:
    digest = hashlib.sha256(repr(given).encode("utf-8", "surrogatepass")).digest()
    told = [float(tokens_of(given)), float(int.from_bytes(digest[:3], "big")), *[0.5] * (length - 2)]
    return told[:length]


def reply(body: dict[str, Any], tokens: int | None = None) -> dict[str, Any]:
    given = inputs_of(body)
    tokens = count(body) if tokens is None else tokens
    vectors = [vector(item, body.get("dimensions", DIMENSIONS)) for item in given]
    shown: list[Any] = vectors
    if body.get("encoding_format") == "base64":
        shown = [base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode() for values in vectors]
    # The order of keys is the recorded one, and nothing says that the data is in order.
    data = [{"object": "embedding", "index": index, "embedding": value} for index, value in enumerate(shown)]
    return {
        "object": "list",
        "data": data[::-1] if len(data) == 3 else data,
        "model": body["model"],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
