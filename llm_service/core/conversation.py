"""The values every dialect and provider agree on. Frozen; no I/O, no clock.

A call is answered by an iterator of events that ends with exactly one
``Finished``. Whatever may refuse the call does so before the first event; a
failure after it is raised out of the iterator.

Token counts follow one convention here, whatever the vendor's: ``input_tokens``
is the whole prompt and *includes* cached and cache-write tokens (Anthropic's
``usage.input_tokens`` excludes both); ``output_tokens`` includes reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from llm_service.core.content import Document as Document
from llm_service.core.content import Effort as Effort
from llm_service.core.content import Image as Image
from llm_service.core.content import JsonFormat as JsonFormat
from llm_service.core.content import Message as Message
from llm_service.core.content import Part as Part
from llm_service.core.content import Reasoning as Reasoning
from llm_service.core.content import RedactedThinking as RedactedThinking
from llm_service.core.content import Refusal as Refusal
from llm_service.core.content import Role as Role
from llm_service.core.content import Text as Text
from llm_service.core.content import Thinking as Thinking
from llm_service.core.content import Tool as Tool
from llm_service.core.content import ToolCall as ToolCall
from llm_service.core.content import ToolChoice as ToolChoice
from llm_service.core.content import ToolResult as ToolResult

if TYPE_CHECKING:
    from llm_service.catalog.prices import Price
    from llm_service.core.errors import Limit
    from llm_service.core.limits import Budget, Limits

StopReason: TypeAlias = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "other"]

# What is asked for: an answer, vectors (no output tokens), or only a count of tokens (which nobody bills).
Kind: TypeAlias = Literal["generate", "embed", "count"]

# How far to go when JSON was asked for: see ``json_answers``.
JsonAnswers: TypeAlias = Literal["off", "check", "repair", "retry"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a client asks for, free of any vendor's format.

    ``max_tokens`` None means the model's own limit. ``temperature`` is on
    OpenAI's scale, 0 to 2. ``reasoning`` None: not a word about it. ``cache`` is the hint to keep
    the whole prompt. ``tier``: ``auto``, ``standard``, or a dearer or cheaper way by the client's
    name for it. ``dropped`` names request fields that the reader
    left out because no other format can express them; the edge tells the
    caller in ``X-Dropped-Parameters``.
    """

    messages: tuple[Message, ...]
    system: tuple[Text, ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    user: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    format: JsonFormat | None = None
    reasoning: Reasoning | None = None
    tier: str | None = None
    cache: int | None = None
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. ``exact`` is False when we counted instead of the vendor.

    Audio and image tokens are part of ``input_tokens`` and ``output_tokens``.
    ``tier`` is how the vendor says it processed the call, as prices name it: ""
    is the standard way, else ``flex``, ``priority``, ``batch``, ``fast`` or any
    other name; several are joined by ``+``.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0  # the part of cache_write_tokens kept for an hour (dearer)
    reasoning_tokens: int = 0
    exact: bool = True
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    web_searches: int = 0
    tier: str = ""

    def plus(self, other: Usage) -> Usage:
        """Of both answers; processed as ``other`` was, unless only this one says how."""
        counts = {
            name: getattr(self, name) + getattr(other, name)
            for name in Usage.__dataclass_fields__
            if name not in ("exact", "tier")
        }
        return Usage(**counts, exact=self.exact and other.exact, tier=other.tier or self.tier)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer.

    ``body`` is the vendor's own JSON object when it travels verbatim (the
    client speaks the vendor's dialect); then ``parts`` is empty.
    ``model`` is the model the vendor says it used. ``provider`` and
    ``cost_nanousd`` (None: unknown price) are stamped on by routing. ``headers``
    are the vendor's that the caller gets (lower-case names).
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

    @property
    def text(self) -> str:
        """What is said in words, a refusal included."""
        return "".join([part.text for part in self.parts if type(part) is Text or type(part) is Refusal])


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
class Discarded:
    """A whole answer was paid for that the caller does not get. For the journal, as ``Attempt``.

    A ``Finished`` that comes after it has this in its own usage and cost.
    """

    usage: Usage
    cost_nanousd: int | None

    def plus(self, usage: Usage, cost_nanousd: int | None) -> Discarded:
        unknown = self.cost_nanousd is None or cost_nanousd is None
        return Discarded(self.usage.plus(usage), None if unknown else (self.cost_nanousd or 0) + (cost_nanousd or 0))


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


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """A piece of the model's refusal."""

    text: str


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
class Withheld:
    """So much of an answer has been generated and is not sent yet, if ever: it is judged first. For the journal."""

    characters: int


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing has arrived for a while; the edge may send a keep-alive."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an answer. ``tail`` is what a verbatim stream still has to send."""

    answer: Answer
    tail: bytes = b""


Event: TypeAlias = (
    Admitted
    | Attempt
    | Discarded
    | Withheld
    | Started
    | Delta
    | RefusalDelta
    | ThinkingDelta
    | ThinkingEnd
    | RedactedThinking
    | ToolCallStart
    | ToolCallDelta
    | ToolCallEnd
    | Relay
    | Silence
    | Finished
)

SILENCE = Silence()


def characters_in(event: Event) -> int | None:
    """Of the generated text in a piece of an answer; None for any other event. The frequent ones come first."""
    if type(event) is Relay:
        return event.characters
    if type(event) is Delta:
        return len(event.text)
    if type(event) is ToolCallDelta:
        return len(event.arguments)
    if type(event) is ThinkingDelta or type(event) is RefusalDelta:
        return len(event.text)
    return None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: an API key and what its owner may do. Never holds the key itself.

    ``limits`` are those of its user, organisation, network, models and of the service; ``budgets`` all that its
    calls count against, its tier's too.
    """

    key_id: str
    name: str = ""
    org: str | None = None
    user: str | None = None
    tier: str = "default"
    rpm: int | None = None
    models: tuple[str, ...] = ()  # empty: all
    tpm: int | None = None
    parallel: int | None = None
    limits: tuple[Limits, ...] = ()
    budgets: tuple[Budget, ...] = ()
    json_answers: JsonAnswers = "off"  # unless the request says otherwise
    storage: bool | None = None  # whether the vendor may keep content when asked to; None: as the provider's row says


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model, as the edge read it.

    ``created`` is Unix seconds, ``arrived`` monotonic ones; ``body_bytes`` the size
    of the request as received.

    ``body`` is the client's JSON object in ``dialect``'s format; a provider that
    speaks the same dialect sends it on verbatim. ``headers`` holds only the
    client headers that may travel upstream (lower-case names).
    """

    id: str
    request_id: str
    route: str
    dialect: str
    model: str
    stream: bool
    body: Mapping[str, Any]
    caller: Caller
    created: int = 0
    arrived: float | None = None
    body_bytes: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    client_ip: str = ""
    kind: Kind = "generate"
    json_answers: JsonAnswers = "off"
