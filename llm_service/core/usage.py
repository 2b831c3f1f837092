"""The tokens of one call.

Token counts follow one convention here, whatever the vendor's convention is. ``input_tokens`` is the whole prompt and
*includes* cached and cache-write tokens (Anthropic's ``usage.input_tokens`` excludes both). ``output_tokens`` includes
reasoning.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of one call. ``exact`` is False if they were counted here and not by the vendor.

    Audio and image tokens are part of ``input_tokens`` and ``output_tokens``. ``tier`` is the service tier in which
    the vendor says it processed the call, by the name that prices use: "" is the standard tier, others are ``flex``,
    ``priority``, ``batch``, ``fast`` or any other name. Several names are joined by ``+``.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0  # the part of cache_write_tokens that is kept for an hour (more expensive)
    reasoning_tokens: int = 0
    exact: bool = True
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    web_searches: int = 0
    tier: str = ""
    lost: bool = field(default=False, compare=False)  # whether the vendor left out or garbled a count of the answer

    def plus(self, other: Usage) -> Usage:
        """The sum of both usages. The service tier is that of ``other`` if it has one, else that of this usage."""
        counts = {
            name: getattr(self, name) + getattr(other, name)
            for name in Usage.__dataclass_fields__
            if name not in ("exact", "tier", "lost")
        }
        return Usage(
            **counts,
            exact=self.exact and other.exact,
            tier=other.tier or self.tier,
            lost=self.lost or other.lost,
        )
