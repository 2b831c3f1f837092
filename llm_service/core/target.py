"""Where a call may go: one model of one provider, with its time-outs and its price."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from llm_service.core.usage import Usage

# Anthropic: adaptive, always (adaptive, and it cannot be turned off), budget; OpenAI: effort; none at all.
THINKING = ("adaptive", "always", "budget", "effort", "none")


class Price(Protocol):
    """What a model costs at any time. ``at`` is the call's time in Unix seconds; None is now."""

    @property
    def source(self) -> str:
        """Where the price is from, for people."""
        ...

    def in_force(self, at: float | None = None) -> Any:
        """The rates of that time; None when none are known."""
        ...

    def cost(self, usage: Usage, at: float | None = None) -> int | None:
        """Nano-dollars, 0 to MOST_NANODOLLARS; None when what was used has no known price then."""
        ...

    def ceiling(
        self,
        input_tokens: int,
        output_tokens: int,
        *,
        web_searches: int = 0,
        tier: str | None = None,
        at: float | None = None,
    ) -> int | None:
        """The most nano-dollars that up to so many tokens and searches can cost.

        Whatever kind the tokens turn out to be (cached, written for an hour, audio,
        reasoning), in whichever tier of known price; ``tier`` narrows it to that one
        and the standard one, which the vendor may fall back to. None: no known price.
        """
        ...


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. ``first_byte`` runs from the sent request to the answer's headers,
    ``idle`` between two pieces of the body, ``total`` over the whole attempt."""

    connect: float = 5.0
    first_byte: float = 120.0
    idle: float = 60.0
    total: float = 900.0


@dataclass(frozen=True, slots=True)
class Provider:
    """One row of ``[providers]``.

    ``key`` is a secret and stays out of ``repr``. ``formats`` are the names of the
    wire formats that the server speaks; ``counts_tokens`` says whether it has a route
    that counts the tokens of a prompt.
    """

    name: str
    kind: str
    key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    keyless: bool = False
    serves: tuple[str, ...] = ()
    prices: str | None = None
    max_tokens_field: str = "max_completion_tokens"
    completions: tuple[str, ...] = ()  # patterns of the models it serves at /v1/completions
    responses: bool = True  # whether the server has /v1/responses
    counts_tokens: bool = True
    formats: tuple[str, ...] = ()
    storage: bool = False  # whether callers may let the vendor keep content

    @property
    def configured(self) -> bool:
        return self.keyless or self.key is not None


@dataclass(frozen=True, slots=True)
class Target:
    """One model of one provider, with everything an attempt needs to know.

    ``thinking``: how it is told to think (``THINKING``); ``efforts``: the words it knows for how much, all
    if empty; ``system_turns``: whether it takes system messages between the turns; ``cache_breakpoints``:
    whether it takes marks where the prompt may be kept (OpenAI's; Anthropic's all do).
    """

    provider: Provider
    model: str
    timeouts: Timeouts
    max_output: int | None = None
    context: int | None = None
    sampling: bool = True
    price: Price | None = None
    thinking: str = "none"
    efforts: tuple[str, ...] = ()
    system_turns: bool = False
    cache_breakpoints: bool = False

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model}"
