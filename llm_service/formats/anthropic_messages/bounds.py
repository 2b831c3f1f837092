"""Upper bounds of what a vendor can read, generate and bill for a request in Anthropic's format."""

from __future__ import annotations

from typing import Final

from llm_service.formats.bounds import Bounds

# Patches of 28 x 28 pixels; Anthropic scales the long edge down to 2,576 pixels.
IMAGE_TOKENS: Final = 8_464


class MessagesBounds(Bounds):
    CONTENT = frozenset({"messages", "system"})


BOUNDS: Final = MessagesBounds()
