"""What a request to Chat Completions can make a vendor read, write and charge at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_service.formats.bounds import Bounds, as_list

# OpenAI's most expensive model by count: 2,833 + 8 tiles of 5,667 (gpt-4o-mini).
IMAGE_TOKENS: Final = 50_000


class ChatBounds(Bounds):
    LIMITS = ("max_completion_tokens", "max_tokens")
    CONTENT = frozenset({"messages", "system"})

    def unbounded(self, body: Mapping[str, Any], *, crosses: bool = False) -> str | None:
        field = super().unbounded(body, crosses=crosses)
        if field is not None:
            return field
        for index, message in enumerate(as_list(body.get("messages"))):
            if isinstance(message, Mapping) and message.get("audio") is not None:  # the vendor keeps what it said
                return f"messages[{index}].audio"
        return None


BOUNDS: Final = ChatBounds()
