"""How much a model thinks: OpenAI's efforts, Anthropic's efforts and token budgets, and whose thoughts are whose.

A budget stands for an effort and an effort for a budget by one table. What a model
does not have becomes the nearest it has, below rather than above: thinking is dear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from llm_service.core.content import Effort

EFFORTS: Final[tuple[Effort, ...]] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
LEAST_BUDGET: Final = 1024
BUDGETS: Final[Mapping[Effort, int]] = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 32768,
    "max": 65536,
}


def effort_of(budget: int) -> Effort:
    """The least effort that may use ``budget`` tokens."""
    return next((effort for effort, most in BUDGETS.items() if budget <= most and effort != "minimal"), "max")


def nearest(effort: Effort, known: Sequence[str]) -> Effort:
    """``effort`` if the model has it, else the next below, else the least it has (but thinking stays thinking)."""
    if not known or effort in known:
        return effort
    rank = EFFORTS.index(effort)
    below = [word for word in EFFORTS[:rank] if word in known and word != "none"]
    above = [word for word in EFFORTS[rank:] if word in known]
    return below[-1] if below else above[0] if above else effort


def budget_for(effort: Effort, max_tokens: int) -> int | None:
    """Tokens to think with, so that a quarter of the answer's is left for the answer; None: there is no room."""
    budget = min(BUDGETS[effort], max_tokens - max(1, max_tokens // 4))
    return budget if budget >= LEAST_BUDGET else None


# A signature made elsewhere goes through a client as "vendor:signature"; Anthropic's own are base64, without a colon.
_ORIGINS: Final = ("chat", "responses")


def sign(signature: str, vendor: str) -> str:
    """The signature as a client of Anthropic's format keeps it."""
    return f"{vendor}:{signature}" if vendor in _ORIGINS and signature else signature


def unsign(signature: str) -> tuple[str, str]:
    """``(signature, vendor)`` of what ``sign`` wrote; nobody's where there is none."""
    vendor, colon, rest = signature.partition(":")
    if colon and vendor in _ORIGINS:
        return rest, vendor
    return signature, "messages" if signature else ""
