"""How much a call can cost at most, before it is made. Pure: a call, and the targets that may answer it.

The client's format reads the body (``formats/bounds.py``); here its readings become tokens and prices.

Text: a token of a byte-level vocabulary is at least one byte. So the bytes of every string in the body bound its
tokens, in any format and for any model. Some tokenizers read a string's compatibility form (NFKC), which is longer
for a few characters; the longer of the two counts. Templates add tokens that are in no string: ``PER_OBJECT`` for
each object (a message, a part, a tool), ``PER_CALL`` once, ``PER_TOOLS`` if there are tools, and ``PER_TEXT`` for
each text of a list (embeddings, legacy completions). A token that is given by its number counts as one.

Media: the tokens that vendors count for media have little to do with its bytes.

| what | at most | why |
|---|---|---|
| image, Anthropic | 8,464 tokens | patches of 28 x 28 px, the long edge scaled down to 2,576 px |
| image, others | 50,000 tokens | OpenAI's most expensive model by count: 2,833 + 8 tiles of 5,667 (gpt-4o-mini) |
| document, file, video | the model's context, else 1,000,000 | pages are in compressed data, or elsewhere |
| audio, other base64 | a token for each character | at 8 kbit/s an audio token is worth 100 characters |

Only a content block is a medium. Within a tool's arguments or schema the same object is text.

Where the catalogue knows a model's context, no input exceeds it: the vendor rejects a longer one and bills nothing.

Output: the limit that applies, for each answer. It is at least ``LEAST_OUTPUT``, which one API makes of a smaller one.

``unbounded`` names a field that makes a vendor read, work or charge beyond the body (its own tools, what it has
stored). A caller with a budget cannot use such a field.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from llm_service.core.call import Call
from llm_service.core.target import Target
from llm_service.formats import registry
from llm_service.formats.bounds import LEAST_OUTPUT, InputBound

# The context of a model for which the catalogue has none.
CONTEXT: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class UpperBound:
    """Upper bounds of one call over every target that may answer it.

    ``max_tokens`` is the limit on each answer that applies. Where ``given`` is False the client set none, and the
    limit has to be written into the body that travels. None means that neither the client nor the catalogue has a
    limit, so nothing bounds the call.
    ``cost_nanousd`` is None when nothing bounds it or when a target's price is unknown, also for the service tier
    that was asked for; then ``unpriced`` names the target.
    ``unbounded`` names a field of the body whose cost cannot be known before the call.
    """

    input_tokens: int
    output_tokens: int
    max_tokens: int | None
    given: bool
    cost_nanousd: int | None
    unpriced: str | None = None
    unbounded: str | None = None

    @property
    def tokens(self) -> int:
        """What the call takes from the limits of tokens per minute."""
        return self.input_tokens + self.output_tokens


def upper_bound(call: Call, targets: Sequence[Target]) -> UpperBound:
    """The bounds of a call whose body was checked, over ``targets`` (at least one).

    The prices are those of the time at which the call was created, as its cost will be.
    """
    bounds, body = registry.format_of(call).BOUNDS, call.body
    generates = call.kind == "generate"  # embeddings have no output and no limit of it
    limit, given = output_limit(call, targets) if generates else (0, True)
    output = bounds.choices(body) * (max(limit, LEAST_OUTPUT) if limit else 0) + bounds.predicted(body)
    read = bounds.input_bound(body)
    inputs = [input_tokens(read, target, capped=generates) for target in targets]
    service_tiers, unpriced, costs = bounds.service_tiers(body), None, [0]
    for target, tokens in zip(targets, inputs, strict=True):
        ceiling = _ceiling(call, target, tokens, output, service_tiers)
        if ceiling is None:
            unpriced = unpriced or target.name
        else:
            costs.append(ceiling)
    cost = None if unpriced is not None or limit is None else max(costs)
    unbounded = bounds.unbounded(body, crosses=not any(_may_relay(call, target) for target in targets))
    return UpperBound(max(inputs), output, limit, given, cost, unpriced, unbounded)


def _may_relay(call: Call, target: Target) -> bool:
    """Whether ``target`` may get the body as it is: its server speaks the client's format, or nobody says what it
    speaks."""
    formats = target.provider.formats
    return not formats or call.format in formats


def _ceiling(call: Call, target: Target, inputs: int, output: int, tiers: Iterable[str | None]) -> int | None:
    """The most that so many tokens can cost in any of these service tiers; None if one of them has no known price."""
    highest = 0
    for tier in tiers:
        price = target.price
        ceiling = None if price is None else price.ceiling(inputs, output, tier=tier, at=call.created or None)
        if ceiling is None:
            return None
        highest = max(highest, ceiling)
    return highest


def input_tokens(read: InputBound, target: Target, *, capped: bool = True) -> int:
    """At least as many tokens as ``target`` can count for the input that was read.

    ``capped`` says that all of it is one input. A batch of embeddings may be many times the context.
    """
    context = target.context or CONTEXT
    tokens = read.text + read.images * registry.image_tokens(target.provider.kind)
    if read.documents:
        tokens += context
    return min(tokens, context) if target.context and capped else tokens


def output_limit(call: Call, targets: Iterable[Target]) -> tuple[int | None, bool]:
    """The limit of output tokens that applies, and whether the client set it.

    Without the client's it is the smallest ``max_output`` of the targets, because one body may travel to any of
    them. None if a target has no ``max_output``.
    """
    asked = registry.format_of(call).BOUNDS.output_limit(call.body)
    if asked is not None:
        return asked, True
    known = [target.max_output for target in targets]
    values = [value for value in known if value is not None]
    return (min(values) if values and len(values) == len(known) else None), False
