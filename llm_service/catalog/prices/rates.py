"""Rates and their arithmetic: exact integers that are rounded once, at the end (half up, to a nano-dollar).

No cost is above MOST_NANODOLLARS. That is far more than any call can cost, a double
(Lua, JSON) holds it exactly, and the sum of a thousand of them fits into 64 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from datetime import date
from decimal import Decimal
from fractions import Fraction
from math import lcm

from llm_service.core.money import MOST_NANODOLLARS, NANO_PER_DOLLAR
from llm_service.core.target import Price as Price
from llm_service.core.usage import Usage


@dataclass(frozen=True, slots=True)
class Rates:
    """The prices of one model: dollars per million tokens; ``web_searches`` and ``requests`` per thousand.

    A kind without a rate is billed as the kind that it is a part of. For the prompt
    that is ``input``: cached tokens, tokens written to the cache, audio and images
    (but ``cache_write_1h`` is billed as ``cache_write``, and cached audio and images
    as uncached ones if these have a rate, or else as ``cache_read``). For the answer
    it is ``output``: reasoning, audio and images. Only web searches without a rate
    make the cost unknown, because they are not a part of any tokens.

    ``above``: pairs of a number of tokens and the rates for *all* tokens of a call
    whose prompt is longer than this number, in ascending order. ``tiers``: the rates
    of the vendor's other service tiers, by their name in ``Usage.tier``.
    """

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    _: KW_ONLY
    input_audio: Decimal | None = None
    cache_audio_read: Decimal | None = None
    input_image: Decimal | None = None
    cache_image_read: Decimal | None = None
    reasoning: Decimal | None = None
    output_audio: Decimal | None = None
    output_image: Decimal | None = None
    web_searches: Decimal | None = None
    requests: Decimal | None = None
    above: tuple[tuple[int, Rates], ...] = ()
    tiers: tuple[tuple[str, Rates], ...] = ()
    source: str = "models.toml"
    since: date | None = None
    _tables: Mapping[str, _Table] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tables = {"": _Table(self), **{name: _Table(rates) for name, rates in self.tiers}}
        object.__setattr__(self, "_tables", tables)

    def in_force(self, at: float | None = None) -> Rates:
        return self

    def cost(self, usage: Usage, at: float | None = None) -> int | None:
        table = self._tables.get(usage.tier)
        return None if table is None else table.cost(usage)

    def ceiling(
        self,
        input_tokens: int,
        output_tokens: int,
        *,
        web_searches: int = 0,
        tier: str | None = None,
        at: float | None = None,
    ) -> int | None:
        if tier is None:
            tables = list(self._tables.values())
        elif tier in self._tables:
            tables = [self._tables[""], self._tables[tier]]
        else:
            return None
        highest = 0
        for table in tables:
            ceiling = table.ceiling(max(0, input_tokens), max(0, output_tokens), max(0, web_searches))
            if ceiling is None:
                return None
            highest = max(highest, ceiling)
        return highest

    def rates(self) -> dict[str, Decimal]:
        """The rates of the kinds that have a rate of their own."""
        return {kind: rate for kind in KINDS if (rate := getattr(self, kind)) is not None}


_NOT_KINDS = {"above", "tiers", "source", "since", "_tables"}
KINDS = tuple(item.name for item in fields(Rates) if item.name not in _NOT_KINDS)
# These kinds are billed per thousand of them; all others per million tokens.
COUNTED = ("web_searches", "requests")


class _Table:
    """The ``Rates`` of one service tier as integers. The unit is a nano-dollar divided by ``divisor``."""

    __slots__ = (
        "above",
        "divisor",
        "input",
        "media",
        "output",
        "read",
        "reasoning",
        "request",
        "search",
        "top_input",
        "top_output",
        "write",
        "write_1h",
    )

    def __init__(self, rates: Rates) -> None:
        exact = {kind: _nanodollars(kind, rate) for kind, rate in rates.rates().items()}
        self.divisor = lcm(*(rate.denominator for rate in exact.values()))
        rate = {kind: int(value * self.divisor) for kind, value in exact.items()}
        self.input, self.output = rate["input"], rate["output"]
        self.read = rate.get("cache_read", self.input)
        self.write = rate.get("cache_write", self.input)
        self.write_1h = rate.get("cache_write_1h", self.write)
        self.reasoning = rate.get("reasoning", self.output)
        audio, image = rate.get("input_audio", self.input), rate.get("input_image", self.input)
        self.media = (
            audio,
            rate.get("cache_audio_read", rate.get("input_audio", self.read)),
            image,
            rate.get("cache_image_read", rate.get("input_image", self.read)),
            rate.get("output_audio", self.output),
            rate.get("output_image", self.output),
        )
        self.search = rate.get("web_searches")
        self.request = rate.get("requests", 0)
        self.top_input = max(self.input, self.read, self.write, self.write_1h, *self.media[:4])
        self.top_output = max(self.output, self.reasoning, *self.media[4:])
        # The largest number of tokens comes first, so the first one that a prompt exceeds is the right one.
        self.above = tuple((start, _Table(other)) for start, other in sorted(rates.above, key=_start, reverse=True))

    def cost(self, usage: Usage) -> int | None:
        """The cost in nano-dollars; None if it is unknown.

        A vendor may report any numbers. So no part counts more than its whole, and negative numbers count as 0.
        """
        prompt = max(0, usage.input_tokens)
        for start, table in self.above:
            if prompt > start:
                return table.cost(usage)
        output = max(0, usage.output_tokens)
        cached = min(max(0, usage.cached_tokens), prompt)
        written = min(max(0, usage.cache_write_tokens), prompt - cached)
        written_1h = min(max(0, usage.cache_write_1h_tokens), written)
        reasoning = min(max(0, usage.reasoning_tokens), output)
        price = (
            (prompt - cached - written) * self.input
            + cached * self.read
            + (written - written_1h) * self.write
            + written_1h * self.write_1h
            + (output - reasoning) * self.output
            + reasoning * self.reasoning
            + self.request
        )
        if usage.input_audio_tokens or usage.input_image_tokens:
            price += self._input_media(usage, prompt, cached, written)
        if usage.output_audio_tokens or usage.output_image_tokens:
            price += self._output_media(usage, output, reasoning)
        searches = usage.web_searches
        if searches > 0:
            if self.search is None:
                return None
            price += searches * self.search
        return min((2 * price + self.divisor) // (2 * self.divisor), MOST_NANODOLLARS)

    def _input_media(self, usage: Usage, prompt: int, cached: int, written: int) -> int:
        """How much more (or less) the prompt's audio and images cost than the same number of text tokens.

        No vendor's chat format reports which of them were cached. We assume that text
        was cached first, so that as little audio and as few images as possible were.
        """
        audio = min(max(0, usage.input_audio_tokens), prompt)
        image = min(max(0, usage.input_image_tokens), prompt - audio)
        # The audio and image tokens that must have been cached or written, because there is not enough text.
        overlap = max(0, audio + image + cached + written - prompt)
        cached_audio = min(overlap, cached, audio)
        cached_image = min(overlap - cached_audio, cached - cached_audio, image)
        # The rest of the overlap was written to the cache and is billed at the rate for writing.
        rest = overlap - cached_audio - cached_image
        written_audio = min(rest, audio - cached_audio)
        plain_audio = audio - cached_audio - written_audio
        plain_image = image - cached_image - (rest - written_audio)
        audio_rate, audio_read, image_rate, image_read = self.media[:4]
        return (
            plain_audio * (audio_rate - self.input)
            + plain_image * (image_rate - self.input)
            + cached_audio * (audio_read - self.read)
            + cached_image * (image_read - self.read)
        )

    def _output_media(self, usage: Usage, output: int, reasoning: int) -> int:
        audio = min(max(0, usage.output_audio_tokens), output - reasoning)
        image = min(max(0, usage.output_image_tokens), output - reasoning - audio)
        return audio * (self.media[4] - self.output) + image * (self.media[5] - self.output)

    def ceiling(self, input_tokens: int, output_tokens: int, web_searches: int) -> int | None:
        if web_searches and self.search is None:
            return None
        price = input_tokens * self.top_input + output_tokens * self.top_output
        price += web_searches * (self.search or 0) + self.request
        highest = min(-(-price // self.divisor), MOST_NANODOLLARS)  # rounded up
        for start, table in self.above:
            if input_tokens > start:
                other = table.ceiling(input_tokens, output_tokens, web_searches)
                if other is None:
                    return None
                highest = max(highest, other)
        return highest


def _start(step: tuple[int, Rates]) -> int:
    return step[0]


def _nanodollars(kind: str, rate: Decimal) -> Fraction:
    """The price of one token, search or request in nano-dollars."""
    return Fraction(rate) * NANO_PER_DOLLAR / (1000 if kind in COUNTED else 1_000_000)
