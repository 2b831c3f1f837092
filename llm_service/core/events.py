"""The events of an answer's iterator, and the complete answer in the last of them.

A call is answered by an iterator of events that ends with exactly one ``Finished``. Whatever may reject the call does
so before the first event. A later failure is raised out of the iterator.
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

    If the client speaks the vendor's format, ``body`` is the vendor's own JSON object, which is sent on verbatim, and
    ``parts`` is empty. ``model`` is the model that the vendor says it used. Routing fills in ``provider`` and
    ``cost_nanousd`` (None: unknown price). ``headers`` are the vendor's headers that the caller gets, with
    lower-case names.

    ``logprobs`` holds the tokens of the text if the client asked for them. If the client asked for several choices,
    ``choices`` holds all of them, and ``parts``, ``stop_reason`` and ``logprobs`` are those of the first one. After a
    stream the parts and the logprobs are empty, because its deltas had them.

    ``usage_lost``: a stream ended properly after its answer, but before its usage and its end marker. Its cost is not
    known.
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
    usage_lost: bool = False

    @property
    def text(self) -> str:
        """The text of the answer, a refusal included."""
        return _words(self.parts)


@dataclass(frozen=True, slots=True)
class Admitted:
    """The call may be sent: the first event. ``tightest`` is the limit with the smallest part left, for headers."""

    tightest: Limit | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """An upstream is about to be asked. This is for the call's recorder; the edge sends nothing for it."""

    provider: str
    model: str
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class TargetRefused:
    """The vendor refused this service's own key, or its account has no credit left. Like ``Attempt``, for the recorder.

    ``reason`` is the code of the error.
    """

    provider: str
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class DiscardedAnswer:
    """A whole answer was paid for, but the caller does not get it. Like ``Attempt``, this is for the recorder.

    A later ``Finished`` includes its usage and cost.
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

    ``usage`` is what is known so far (Anthropic reports the input at the start). ``dropped`` names request fields that
    the target cannot express. ``verbatim``: the vendor's own frames follow (``Relay``), including its first ones.
    ``headers`` are as in ``Answer``.
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
    """A piece of reasoning is complete. Its vendor wants ``signature`` back together with it."""

    signature: str = ""
    vendor: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """The model calls a tool. ``index`` counts the tool calls of this answer from 0.

    Until its ``ToolCallEnd`` only its own pieces follow, even if the upstream interleaves several calls.
    """

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the arguments' JSON text. For a tool without arguments, all pieces together may be ""."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    index: int


@dataclass(frozen=True, slots=True)
class Relay:
    """Whole frames of the vendor's own stream, which are sent as they are.

    ``characters`` counts the generated text in them, for an estimate if the stream is cut.
    """

    data: bytes
    characters: int = 0


@dataclass(frozen=True, slots=True)
class HeldBack:
    """This many characters were generated and are not sent yet: they are checked first. For the recorder."""

    characters: int


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing has arrived for a while. The edge may send a keep-alive."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an answer. ``tail`` is the last piece of a verbatim stream, which is still to be sent."""

    answer: Answer
    tail: bytes = b""


Event: TypeAlias = (
    Admitted
    | Attempt
    | TargetRefused
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
    """How many characters of generated text ``event`` carries; None for other kinds. The frequent kinds come first."""
    if type(event) is Relay:
        return event.characters
    if type(event) is Delta:
        return len(event.text)
    if type(event) is ToolCallDelta:
        return len(event.arguments)
    if type(event) is ThinkingDelta or type(event) is RefusalDelta or type(event) is ChoiceDelta:
        return len(event.text)
    return None
