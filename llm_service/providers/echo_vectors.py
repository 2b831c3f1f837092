"""Embeddings of the ``echo`` provider: the same text always has the same vector, and nothing is understood.

Each word (each token) has a direction of its own, drawn from its hash; a text is the
sum of its words, of length 1. So texts with words in common are alike, and a search
over them can be tried without a vendor.
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
# Computing holds up the worker's other calls: a text is its first words, and they get a turn between two texts.
MOST_DIMENSIONS: Final = 1024
_MOST_WORDS: Final = 256


def reply(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """OpenAI's reply to a checked request; a token is a word. Raises InvalidRequest for too long vectors."""
    length = body.get("dimensions") or DIMENSIONS
    if length > MOST_DIMENSIONS:
        raise InvalidRequest(f"dimensions must be at most {MOST_DIMENSIONS} for this model.", param="dimensions")
    encoded = body.get("encoding_format") == "base64"
    data, tokens = [], 0
    for index, given in enumerate(embeddings.inputs(body)):
        values = vector(given, length)
        tokens += len(_words(given))
        data.append({"object": "embedding", "index": index, "embedding": _base64(values) if encoded else values})
        time.sleep(0)
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def vector(given: str | list[int], length: int) -> list[float]:
    """``length`` numbers, the sum of whose squares is 1."""
    total = [0.0] * length
    for word in _words(given)[:_MOST_WORDS] or [""]:
        drawn = hashlib.shake_256(word.encode("utf-8", "surrogatepass")).digest(2 * length)
        for place, number in enumerate(struct.unpack(f"<{length}h", drawn)):
            total[place] += number
    size = math.hypot(*total) or 1.0
    return [value / size for value in total]


def _words(given: str | list[int]) -> list[str]:
    return given.casefold().split() if isinstance(given, str) else [str(token) for token in given]


def _base64(values: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
