"""What a request to OpenAI Responses can make a vendor read, write and charge at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_service.formats.bounds import Bounds, as_list
from llm_service.formats.openai_chat.bounds import IMAGE_TOKENS as IMAGE_TOKENS
from llm_service.formats.openai_responses.tool_names import OFFERING_ITEMS

# Items of an input that hold all that the vendor reads for them. Other items stand for what the vendor keeps
# (item_reference), or may bring what it runs (additional_tools).
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

    def unbounded(self, body: Mapping[str, Any], *, crosses: bool = False) -> str | None:
        field = super().unbounded(body, crosses=crosses)
        if field is not None or crosses:  # no item stands for anything then: see decode_messages.DROPPED_ITEMS
            return field
        for index, item in enumerate(as_list(body.get("input"))):
            if isinstance(item, Mapping) and self._is_open(item):
                return f"input[{index}].type"
        return None

    def _is_open(self, item: Mapping[str, Any]) -> bool:
        kind = item.get("type", "message")
        if kind in OFFERING_ITEMS:
            return any(map(self.is_vendors, as_list(item.get("tools"))))
        return kind not in _SELF_CONTAINED

    def is_vendors(self, tool: Any) -> bool:
        if isinstance(tool, Mapping) and tool.get("type") == "namespace":
            return any(map(self.is_vendors, as_list(tool.get("tools"))))
        return super().is_vendors(tool)


BOUNDS: Final = ResponsesBounds()
