"""How much a model thinks (efforts, token budgets), and which vendor signed a reasoning.

One table translates a token budget into an effort and an effort into a budget. If a model does not have an effort, it
gets the nearest one below, because thinking is expensive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from llm_service.core.content import Effort

EFFORTS: Final[tuple[Effort, ...]] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
MIN_BUDGET: Final = 1024
BUDGETS: Final[Mapping[Effort, int]] = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 32768,
    "max": 65536,
}


def effort_of(budget: int) -> Effort:
    """The lowest effort that may use ``budget`` tokens."""
    return next((effort for effort, limit in BUDGETS.items() if budget <= limit and effort != "minimal"), "max")


def nearest(effort: Effort, known: Sequence[str]) -> Effort:
    """``effort`` if the model has it, else the next one below, else its lowest. Thinking never becomes none."""
    if not known or effort in known:
        return effort
    rank = EFFORTS.index(effort)
    below = [word for word in EFFORTS[:rank] if word in known and word != "none"]
    above = [word for word in EFFORTS[rank:] if word in known]
    return below[-1] if below else above[0] if above else effort


def budget_for(effort: Effort, max_tokens: int) -> int | None:
    """The tokens for thinking, so that a quarter of ``max_tokens`` is left for the answer; None if there is no room."""
    budget = min(BUDGETS[effort], max_tokens - max(1, max_tokens // 4))
    return budget if budget >= MIN_BUDGET else None


# A client of Anthropic's format keeps the signature of another vendor as "vendor:signature". Anthropic's own signatures
# are base64 and have no colon.
_ORIGINS: Final = ("chat", "responses")


def sign(signature: str, vendor: str) -> str:
    """The signature as a client of Anthropic's format keeps it."""
    return f"{vendor}:{signature}" if vendor in _ORIGINS and signature else signature


def unsign(signature: str) -> tuple[str, str]:
    """``(signature, vendor)`` of what ``sign`` wrote; the vendor of an empty signature is empty."""
    vendor, colon, rest = signature.partition(":")
    if colon and vendor in _ORIGINS:
        return rest, vendor
    return signature, "messages" if signature else ""
