"""``POST /v1/embeddings`` of the scripted vendor: which requests it rejects, and the vectors of its answers.

A vector identifies its input: the first number is the input's token count, the second is a hash of the input.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any

from tests.upstream import openai_rules
from tests.upstream.answer import CHARACTERS_PER_TOKEN
from tests.upstream.rejection import Account, Rejected, is_int

FIELDS = frozenset({"input", "model", "dimensions", "encoding_format", "user"})
DIMENSIONS = 8
MAX_INPUTS, MAX_TOKENS, MAX_TOKENS_PER_INPUT = 2048, 300_000, 8192
LAST_TOKEN = 100_276  # the highest token number of cl100k_base


def inputs_of(body: dict[str, Any]) -> list[Any]:
    value = body["input"]
    return [value] if isinstance(value, str) or (value and is_int(value[0])) else value


def tokens_of(value: Any) -> int:
    return max(1, len(value) // CHARACTERS_PER_TOKEN) if isinstance(value, str) else len(value)


def count(body: dict[str, Any]) -> int:
    """The tokens of all inputs."""
    return sum(map(tokens_of, inputs_of(body)))


def check(body: dict[str, Any], account: Account) -> None:
    for name in ("input", "model"):
        if name not in body:
            raise _rejection(f"Missing required parameter: '{name}'.", name)
    for name in body:
        if name not in FIELDS | account.fields:
            raise _rejection(f"Unknown parameter: '{name}'.", name)
    model = body["model"]
    if not model.startswith("text-embedding-") and model not in account.models:
        raise Rejected(404, openai_rules.INVALID, f"The model `{model}` does not exist.", None, "model_not_found")
    if body.get("encoding_format", "float") not in ("float", "base64"):
        raise _rejection("Invalid value for 'encoding_format'.", "encoding_format")
    if "dimensions" in body and (not is_int(body["dimensions"]) or body["dimensions"] < 1):
        raise _rejection(f"{body['dimensions']} is less than the minimum of 1 - 'dimensions'", None)
    value = inputs_of(body)
    if not 1 <= len(value) <= MAX_INPUTS:
        raise _rejection("'$.input' is invalid. Please check the API reference.", None)
    for item in value:
        if not item:
            raise _rejection("'$.input' is invalid. Please check the API reference.", None)
        if isinstance(item, list) and any(token > LAST_TOKEN for token in item):
            raise _rejection("Invalid 'input': a token is out of the vocabulary.", "input")
        if tokens_of(item) > MAX_TOKENS_PER_INPUT:
            raise _rejection(f"This model's maximum context length is {MAX_TOKENS_PER_INPUT} tokens.", None)
    if count(body) > MAX_TOKENS:
        raise _rejection(f"Requested tokens exceed the maximum of {MAX_TOKENS} per request.", None)


def _rejection(message: str, param: str | None) -> Rejected:
    return Rejected(400, openai_rules.INVALID, message, param, None)


def vector(value: Any, length: int = DIMENSIONS) -> list[float]:
    digest = hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).digest()
    values = [float(tokens_of(value)), float(int.from_bytes(digest[:3], "big")), *[0.5] * (length - 2)]
    return values[:length]


def reply(body: dict[str, Any], tokens: int | None = None) -> dict[str, Any]:
    value = inputs_of(body)
    tokens = count(body) if tokens is None else tokens
    vectors = [vector(item, body.get("dimensions", DIMENSIONS)) for item in value]
    embeddings: list[Any] = vectors
    if body.get("encoding_format") == "base64":
        embeddings = [base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode() for values in vectors]
    # The order of the keys is as recorded. OpenAI does not promise the order of the data, so three items come reversed.
    data = [{"object": "embedding", "index": index, "embedding": value} for index, value in enumerate(embeddings)]
    return {
        "object": "list",
        "data": data[::-1] if len(data) == 3 else data,
        "model": body["model"],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
