"""What a request to Anthropic Messages can make a vendor read, write and charge at most."""

from __future__ import annotations

from typing import Final

from llm_service.formats.bounds import Bounds

# Patches of 28 x 28 pixels; Anthropic scales the long edge down to 2,576 pixels.
IMAGE_TOKENS: Final = 8_464


class MessagesBounds(Bounds):
    CONTENT = frozenset({"messages", "system"})


BOUNDS: Final = MessagesBounds()
