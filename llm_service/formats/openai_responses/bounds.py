"""What a request to OpenAI Responses can make a vendor read, write and charge at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_service.formats.bounds import Bounds, as_list
from llm_service.formats.openai_chat.bounds import IMAGE_TOKENS as IMAGE_TOKENS

# Items of an input that hold all that the vendor reads for them. Other items stand for what the vendor keeps
# (item_reference), or bring what it runs (additional_tools).
_SELF_CONTAINED: Final = frozenset(
    {
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "local_shell_call",
        "local_shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
    }
)


class ResponsesBounds(Bounds):
    LIMITS = ("max_output_tokens",)
    CONTENT = frozenset({"input"})
    TEXTS = frozenset({"input"})

    def unbounded(self, body: Mapping[str, Any]) -> str | None:
        field = super().unbounded(body)
        if field is not None:
            return field
        for index, item in enumerate(as_list(body.get("input"))):
            if isinstance(item, Mapping) and item.get("type", "message") not in _SELF_CONTAINED:
                return f"input[{index}].type"
        return None


BOUNDS: Final = ResponsesBounds()
