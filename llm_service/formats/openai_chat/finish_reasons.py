"""OpenAI Chat Completions, the upstream's side: why an answer ended, in the words of all servers.

Servers use words of other vendors and of their models. A word that is not listed here is a failure: an answer must not
look complete because its reason is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_service.core.events import StopReason
from llm_service.formats.decoding import broken
from llm_service.formats.openai_chat.decode_errors import failed_finish, in_band

_STOP_REASONS: Final[Mapping[str, StopReason]] = {
    **dict.fromkeys(("stop", "end_turn", "eos", "eos_token", "stop_sequence", "complete", "completed"), "end_turn"),
    **dict.fromkeys(("length", "max_tokens", "model_length", "max_output_tokens", "max_length"), "max_tokens"),
    "model_context_window_exceeded": "max_tokens",
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call"), "tool_use"),
    **dict.fromkeys(("content_filter", "refusal", "safety", "sensitive"), "refusal"),
}


# What servers write in the place of null.
_NONE: Final = frozenset({"", "null", "none"})


def read(choice: Mapping[str, Any]) -> StopReason | None:
    """Why the choice ended; None while it has not, which some servers write as an empty string or as "null".

    Raises UpstreamBroken, and an UpstreamError if the choice failed.
    """
    if choice.get("error"):  # OpenRouter
        raise in_band(choice)
    reason = choice.get("finish_reason")
    if not reason:
        return None
    if type(reason) is not str:
        broken("a finish_reason is not a string")
    known = _STOP_REASONS.get(reason)
    if known is None and reason.strip().lower() in _NONE:
        return None
    if known is None:  # Gemini writes "content_filter: SAFETY", and some servers write capital letters
        known = _STOP_REASONS.get(reason.partition(":")[0].strip().lower())
    if known is None:
        raise failed_finish(reason)
    return known


def of_plain(choice: Mapping[str, Any], *, whole: bool) -> StopReason:
    """Why a choice of a plain answer ended. Raises as ``read`` does.

    Some servers have no finish_reason, or write null. Unlike a stream, a plain answer is one JSON object whose end was
    seen, so such a choice is taken as ended if it is ``whole``: it says something, and no arguments break off in it.
    Otherwise nothing says that it is an answer: UpstreamBroken. The rule is the same for answers that are relayed and
    for those that cross.
    """
    known = read(choice)
    if known is None and not whole:
        broken("a choice has no finish_reason and is not whole")
    return known or "end_turn"


def stop_reason(known: StopReason, *, refused: bool, called: bool) -> StopReason:
    """The stop reason of a choice. Some servers send ``stop`` together with a tool call."""
    if refused:
        return "refusal"
    return "tool_use" if called and known == "end_turn" else known
