"""What an answer is made of: the events of its iterator, and the complete answer in the last of them.

A call is answered by an iterator of events that ends with exactly one
``Finished``. Whatever may refuse the call does so before the first event; a
failure after it is raised out of the iterator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from llm_service.core.content import Part, RedactedThinking, Refusal, Text, TokenLogprob
from llm_service.core.errors import Limit
from llm_service.core.target import Price
from llm_service.core.usage import Usage

StopReason: TypeAlias = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "other"]


def _words(parts: tuple[Part, ...]) -> str:
    return "".join([part.text for part in parts if type(part) is Text or type(part) is Refusal])


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several answers to the same request. ``index`` is its number, from 0."""

    index: int = 0
    stop_reason: StopReason | None = None
    parts: tuple[Part, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def text(self) -> str:
        """The text of the choice, a refusal included."""
        return _words(self.parts)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer.

    ``body`` is the vendor's own JSON object when it travels verbatim (the
    client speaks the vendor's dialect); then ``parts`` is empty.
    ``model`` is the model the vendor says it used. ``provider`` and
    ``cost_nanousd`` (None: unknown price) are stamped on by routing. ``headers``
    are the vendor's that the caller gets (lower-case names). ``logprobs`` holds the
    tokens of the text when the client asked for them. ``choices`` holds every choice,
    the first one included, when the client asked for several; ``parts``, ``stop_reason``
    and ``logprobs`` are those of the first one. After a stream the parts and the
    logprobs are empty: its deltas had them.
    """

    usage: Usage
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    parts: tuple[Part, ...] = ()
    model: str = ""
    body: Mapping[str, Any] | None = None
    provider: str = ""
    cost_nanousd: int | None = None
    upstream_request_id: str | None = None
    dropped: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    logprobs: tuple[TokenLogprob, ...] = ()
    choices: tuple[Choice, ...] = ()

    @property
    def text(self) -> str:
        """The text of the answer, a refusal included."""
        return _words(self.parts)


@dataclass(frozen=True, slots=True)
class Admitted:
    """The call may be made: the first event. ``tightest``, for headers: the limit with the smallest part left."""

    tightest: Limit | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """An upstream is about to be asked. For the journal; the edge sends nothing for it."""

    provider: str
    model: str
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class DiscardedAnswer:
    """A whole answer was paid for that the caller does not get. For the journal, as ``Attempt``.

    A ``Finished`` that comes after it has this in its own usage and cost.
    """

    usage: Usage
    cost_nanousd: int | None

    def plus(self, usage: Usage, cost_nanousd: int | None) -> DiscardedAnswer:
        unknown = self.cost_nanousd is None or cost_nanousd is None
        return DiscardedAnswer(
            self.usage.plus(usage), None if unknown else (self.cost_nanousd or 0) + (cost_nanousd or 0)
        )


@dataclass(frozen=True, slots=True)
class Started:
    """A stream has begun: the first event of every streamed answer.

    ``usage`` is what is known so far (Anthropic tells the input at the start).
    ``dropped`` names request fields the target cannot express. ``verbatim``: the
    vendor's own frames follow (``Relay``), its opening ones included. ``headers``:
    as ``Answer``'s.
    """

    model: str = ""
    usage: Usage | None = None
    provider: str = ""
    upstream_request_id: str | None = None
    dropped: tuple[str, ...] = ()
    verbatim: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer's text."""

    text: str

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """The tokens of this piece; only ``ChoiceDelta`` has some."""
        return ()

    @property
    def choice(self) -> int:
        """The index of the choice that this piece belongs to; only ``ChoiceDelta`` has others than 0."""
        return 0


@dataclass(frozen=True, slots=True)
class ChoiceDelta(Delta):
    """A piece of the text of choice ``choice``, with its tokens, when the client asked for several choices or logprobs.

    A class of its own, because ``Delta`` is built for most events of most streams and every field costs time.
    The text is empty when the tokens are only a part of a character.
    """

    logprobs: tuple[TokenLogprob, ...] = ()
    choice: int = 0


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """A piece of the model's refusal. ``choice`` is the index of the choice it belongs to."""

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """A piece of the model's reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingEnd:
    """A run of reasoning is over; what its vendor wants to see again beside it."""

    signature: str = ""
    vendor: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """The model asks for a tool: the ``index``-th of this answer, from 0.

    Until its ``ToolCallEnd`` nothing but its own pieces follows, though an upstream may interleave them.
    """

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the arguments' JSON text; all together are "" or JSON for a tool without arguments."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    index: int


@dataclass(frozen=True, slots=True)
class Relay:
    """Whole frames of the vendor's own stream, to be sent as they are.

    ``characters`` counts the generated text inside, for an estimate should the
    stream be cut.
    """

    data: bytes
    characters: int = 0


@dataclass(frozen=True, slots=True)
class HeldBack:
    """So much of an answer has been generated and is not sent yet, if ever: it is judged first. For the journal."""

    characters: int


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing has arrived for a while; the edge may send a keep-alive."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an answer. ``tail`` is what a verbatim stream still has to send."""

    answer: Answer
    tail: bytes = b""


Event: TypeAlias = (
    Admitted
    | Attempt
    | DiscardedAnswer
    | HeldBack
    | Started
    | Delta
    | ChoiceDelta
    | RefusalDelta
    | ThinkingDelta
    | ThinkingEnd
    | RedactedThinking
    | ToolCallStart
    | ToolCallDelta
    | ToolCallEnd
    | Relay
    | Idle
    | Finished
)

IDLE = Idle()


def characters_in(event: Event) -> int | None:
    """Of the generated text in a piece of an answer; None for any other event. The frequent ones come first."""
    if type(event) is Relay:
        return event.characters
    if type(event) is Delta:
        return len(event.text)
    if type(event) is ToolCallDelta:
        return len(event.arguments)
    if type(event) is ThinkingDelta or type(event) is RefusalDelta or type(event) is ChoiceDelta:
        return len(event.text)
    return None
