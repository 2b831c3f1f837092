"""Images and documents, and the data URLs they travel in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from llm_service.core.content import Part, RedactedThinking, Refusal, Thinking
from llm_service.formats import validation

IMAGE_TYPES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
PDF: Final = "application/pdf"


def read_data_url(url: str, path: str) -> tuple[str, str]:
    """``(media type, base64)``. Raises InvalidRequest naming ``path``."""
    head, comma, data = url.partition(",")
    kind, _, encoding = head.removeprefix("data:").partition(";")
    if not comma or encoding != "base64" or not data:
        validation.invalid(path, "must be a URL, or a data URL in base64")
    return kind.lower(), data


def data_url(media_type: str, data: str) -> str:
    return f"data:{media_type};base64,{data}"


def check_image(media_type: str, path: str) -> str:
    if media_type not in IMAGE_TYPES:
        validation.invalid(path, f"must be an image of type {', '.join(IMAGE_TYPES)}")
    return media_type


def check_url(url: str, path: str) -> str:
    if not url.startswith(("https://", "http://")):
        validation.invalid(path, "must be a URL that begins with https:// or http://")
    return url


# Hints to cache the prompt for later calls: each vendor's names of the times, in seconds.
ANTHROPIC_TTL: Final[Mapping[str, int]] = {"5m": 300, "1h": 3600}
OPENAI_TTL: Final[Mapping[str, int]] = {"30m": 1800, "12h": 43200}


def read_cache(
    hint: Any, kind: tuple[str, str], ttls: Mapping[str, int], name: str, dropped: dict[str, None]
) -> int | None:
    """The seconds of a vendor's hint to cache: 0 if the hint has no time, None without a hint.

    ``kind`` is the member (name and value) that every hint has. The answer is the same without a hint. So a hint that
    is not known here, in any part of it, is dropped as a whole, and ``name`` is added to ``dropped``.
    """
    if hint is None:
        return None
    ttl = hint.get("ttl") if isinstance(hint, dict) else None
    known = isinstance(hint, dict) and hint.get(kind[0]) == kind[1]
    if not known or any(hint[member] is not None for member in hint if member not in (kind[0], "ttl")):
        seconds = None
    else:
        seconds = 0 if ttl is None else ttls.get(ttl) if isinstance(ttl, str) else None
    if seconds is None:
        dropped[name] = None
    return seconds


def read_part_cache(part: Mapping[str, Any], dropped: dict[str, None]) -> int | None:
    """The hint to cache of a message, a part or a tool of a chat request, in OpenAI's words or in Anthropic's.

    Of both, the longer one counts.
    """
    hints = [
        read_cache(part.get(name), kind, ttls, name, dropped)
        for name, kind, ttls in (
            ("prompt_cache_breakpoint", EXPLICIT, OPENAI_TTL),
            ("cache_control", EPHEMERAL, ANTHROPIC_TTL),
        )
    ]
    return max((seconds for seconds in hints if seconds is not None), default=None)


def with_cache(part: Part, cache: int) -> Part:
    """``part`` with a hint to cache, if it can have one. The longer hint counts."""
    if isinstance(part, Thinking | RedactedThinking | Refusal):
        return part
    return replace(part, cache=max(cache, part.cache or 0))


def write_cache(seconds: int, kind: tuple[str, str], ttls: Mapping[str, int]) -> dict[str, str]:
    """A vendor's hint with its shortest time that is not shorter than ``seconds``, else with its longest time."""
    hint = {kind[0]: kind[1]}
    if seconds:
        hint["ttl"] = next((word for word, length in ttls.items() if length >= seconds), [*ttls][-1])
    return hint


EPHEMERAL: Final = ("type", "ephemeral")
EXPLICIT: Final = ("mode", "explicit")
