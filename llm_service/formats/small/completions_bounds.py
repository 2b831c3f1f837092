"""What a request to OpenAI's older Completions can make a vendor read, write and charge at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_service.formats.bounds import Bounds, as_list

# The vendor's own limit of a request that sets none.
DEFAULT_MAX_TOKENS: Final = 16


class CompletionsBounds(Bounds):
    TEXTS = frozenset({"prompt"})

    def with_default_limit(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return body if body.get("max_tokens") is not None else {**body, "max_tokens": DEFAULT_MAX_TOKENS}

    def choices(self, body: Mapping[str, Any]) -> int:
        """As many for each prompt, of which this format takes a list."""
        prompts = as_list(body.get("prompt"))
        is_one_prompt = all(type(item) is int for item in prompts)
        return super().choices(body) * (1 if is_one_prompt else len(prompts))


BOUNDS: Final = CompletionsBounds()
