"""Where a call may go: one model of one provider, with its time-outs and its price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

from llm_service.core.usage import Usage

# How a model takes instructions about thinking. Anthropic: adaptive, always (adaptive, cannot be turned off), budget.
# OpenAI: effort. none: the model does not think.
THINKING = ("adaptive", "always", "budget", "effort", "none")
# When an OpenAI model accepts tools at /v1/chat/completions: always, only if it does not reason, or never. It accepts
# them at /v1/responses in each case.
CHAT_TOOLS = ("always", "without_reasoning", "never")
# When a model accepts a tool choice that forces a call: always, only if it does not think, or never.
FORCED_TOOLS = ("always", "without_thinking", "never")
# The field of a chat message in which a server sends the model's thoughts and wants them back beside the tool calls
# of the turn. ``extra_content`` is a field of each tool call (Gemini's thought_signature).
THOUGHTS = ("none", "reasoning_content", "reasoning", "extra_content")
SYSTEM_ROLES = ("system", "developer")


class Price(Protocol):
    """What a model costs over time. ``at`` is the time of the call in Unix seconds; None is now."""

    @property
    def source(self) -> str:
        """The source of the price, for people."""
        ...

    def in_force(self, at: float | None = None) -> Any:
        """The rates at that time; None if they are not known."""
        ...

    def cost(self, usage: Usage, at: float | None = None) -> int | None:
        """The cost in nano-dollars, 0 to MOST_NANODOLLARS; None if something that was used has no known price."""
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
        """The most nano-dollars that up to this many tokens and searches can cost; None if no price is known.

        This holds for every kind of token (cached, written for an hour, audio, reasoning) and every service tier with
        a known price. ``tier`` narrows it to that service tier and the standard one, to which the vendor may fall back.
        """
        ...


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time-outs in seconds.

    ``first_byte`` is from the sent request to the headers of the answer, ``idle`` is between two pieces of the body,
    and ``total`` is for the whole attempt.
    """

    connect: float = 5.0
    first_byte: float = 120.0
    idle: float = 60.0
    total: float = 900.0


@dataclass(frozen=True, slots=True)
class Provider:
    """One row of ``[providers]``. ``docs/models.md`` describes its fields.

    ``key`` is a secret, and so may the values of ``headers`` be: both stay out of ``repr``. ``formats`` are the names
    of the wire formats that the server speaks; ``counts_tokens`` says whether it has a route that counts the tokens of
    a prompt. ``is_the_vendor``: the row is OpenAI or Anthropic itself, so that what the environment sets for their
    SDKs (organisation, project, headers) may go there. ``missing`` are the variables of ``needs_env`` that are not set.
    """

    name: str
    kind: str
    key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    keyless: bool = False
    serves: tuple[str, ...] = ()
    prices: str | None = None
    price_as: str | None = None
    max_tokens_field: str = "max_completion_tokens"
    completions: tuple[str, ...] = ()  # patterns of the models it serves at /v1/completions
    responses: bool = True  # whether the server has /v1/responses
    counts_tokens: bool = True
    formats: tuple[str, ...] = ()
    storage: bool = False  # whether callers may let the vendor keep content
    key_file: str | None = None
    key_command: tuple[str, ...] = field(default=(), repr=False)
    key_seconds: float = 300.0
    key_header: str = "Authorization"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    paths: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    add: Mapping[str, Any] = field(default_factory=dict)
    store: bool | None = None  # whether requests carry OpenAI's field ``store``; None leaves it to the format
    chat: bool = True  # whether the server has /v1/chat/completions
    system_role: str | None = None
    stream_usage: bool = True
    thoughts: str = "none"  # one of THOUGHTS
    own_address: bool = False  # whether the row has a base_url: the server is not the vendor's
    is_the_vendor: bool = True
    missing: tuple[str, ...] = ()

    @property
    def has_key(self) -> bool:
        return self.keyless or self.key is not None or self.key_file is not None or bool(self.key_command)

    @property
    def configured(self) -> bool:
        return self.has_key and not self.missing


@dataclass(frozen=True, slots=True)
class Target:
    """One model of one provider, with everything that an attempt needs.

    ``thinking`` is how the model takes instructions about thinking (one of ``THINKING``). ``efforts`` are the
    effort words that it knows; empty means all. ``default_effort`` is its effort if a request names none; None
    means that it is not known. ``chat_route``: whether an OpenAI model is served at /v1/chat/completions; all are at
    /v1/responses. ``chat_tools`` is one of ``CHAT_TOOLS``. ``system_turns``: whether it accepts system messages
    between the turns. ``cache_breakpoints``: whether an OpenAI model accepts marks where the prompt may be cached
    (all of Anthropic's do). ``forced_tools`` is one of ``FORCED_TOOLS``. ``prefill``: whether a Claude model
    continues a last message of the assistant. ``tool_names`` and ``tool_ids`` are regular expressions that the
    names of tools and the ids of their calls must match as a whole; None: the rule of the wire format. ``retires``
    is the first day on which the vendor does not serve the model, and ``replacement`` is the model that the vendor
    recommends instead; None means that none is announced.
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
    default_effort: str | None = None
    chat_route: bool = True
    chat_tools: str = "always"
    system_turns: bool = False
    cache_breakpoints: bool = False
    retires: date | None = None
    replacement: str | None = None
    forced_tools: str = "always"
    prefill: bool = False
    tool_names: str | None = None
    tool_ids: str | None = None

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model}"

    def takes_chat_tools(self, effort: str | None) -> bool:
        """Whether the model takes tools in a chat completion that asks for ``effort``; None: it asks for none."""
        if self.chat_tools == "without_reasoning":
            return (effort or self.default_effort) == "none"
        return self.chat_tools == "always"
