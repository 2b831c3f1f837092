"""Embeddings of the ``echo`` provider. They are computed from words, not from meaning.

The same text always has the same vector. Each word (or token) has a direction that
comes from its hash, and a text's vector is the sum of its words' directions, scaled
to length 1. So texts with words in common have similar vectors, and a search can be
tried without a vendor.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import time
from collections.abc import Mapping
from typing import Any, Final

from llm_service.core.errors import InvalidRequest
from llm_service.formats.small import embeddings

DIMENSIONS: Final = 64
# Computing blocks the worker's other calls. So only a text's first words count, and other calls run between two texts.
MAX_DIMENSIONS: Final = 1024
_MAX_WORDS: Final = 256


def reply(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """OpenAI's reply to a checked request; a token is a word. Raises InvalidRequest for too many dimensions."""
    length = body.get("dimensions") or DIMENSIONS
    if length > MAX_DIMENSIONS:
        raise InvalidRequest(f"dimensions must be at most {MAX_DIMENSIONS} for this model.", param="dimensions")
    encoded = body.get("encoding_format") == "base64"
    data, tokens = [], 0
    for index, text in enumerate(embeddings.inputs(body)):
        values = vector(text, length)
        tokens += len(_words(text))
        data.append({"object": "embedding", "index": index, "embedding": _base64(values) if encoded else values})
        time.sleep(0)  # let the worker's other calls run
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def vector(text: str | list[int], length: int) -> list[float]:
    """The vector of a text or of a list of tokens: ``length`` numbers whose squares add up to 1."""
    total = [0.0] * length
    for word in _words(text)[:_MAX_WORDS] or [""]:
        digest = hashlib.shake_256(word.encode("utf-8", "surrogatepass")).digest(2 * length)
        for index, number in enumerate(struct.unpack(f"<{length}h", digest)):
            total[index] += number
    norm = math.hypot(*total) or 1.0
    return [value / norm for value in total]


def _words(text: str | list[int]) -> list[str]:
    return text.casefold().split() if isinstance(text, str) else [str(token) for token in text]


def _base64(values: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
