"""What a conversation is made of: turns, their parts, tools and formats. Frozen; no I/O.

No vendor's format shows here: each dialect reads its own into these and writes them back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Text:
    """A run of text.

    ``cache``, here and below: the prompt up to and with this part may be kept for
    later calls, for so many seconds; 0 leaves the time to the vendor, None is no hint.
    """

    text: str
    cache: int | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """A picture: ``url``, or base64 ``data`` of ``media_type``."""

    url: str | None = None
    data: str | None = None
    media_type: str = ""
    cache: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A document: ``url`` of a PDF, base64 ``data`` of ``media_type``, or plain ``text``."""

    url: str | None = None
    data: str | None = None
    media_type: str = ""
    text: str | None = None
    title: str | None = None
    context: str | None = None
    cache: int | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a tool. ``arguments`` is the text of a JSON object; a model may still have got it wrong."""

    id: str
    name: str
    arguments: str
    cache: int | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the tool asked for as ``id`` said: text, images and documents. In a user's message, before all else."""

    id: str
    parts: tuple[Text | Image | Document, ...] = ()
    is_error: bool = False
    cache: int | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """The model's reasoning. Only the vendor that signed it takes it back, unchanged; an empty
    ``signature`` is nobody's. ``vendor`` is the upstream dialect it came by."""

    text: str
    signature: str = ""
    vendor: str = ""


@dataclass(frozen=True, slots=True)
class RedactedThinking:
    """Reasoning that only its vendor can read."""

    data: str
    vendor: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the model would not answer, in its words; "" where it gave none."""

    text: str


Part: TypeAlias = Text | Image | Document | ToolCall | ToolResult | Thinking | RedactedThinking | Refusal


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. What tools answered is the user's turn, together with what the user says after it.

    ``places`` tells where each part was in the client's body, for refusals (``messages[3].content[0]``).
    """

    role: Role
    parts: tuple[Part, ...]
    places: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def text(self) -> str:
        return "".join([part.text for part in self.parts if type(part) is Text])

    def place(self, index: int = 0) -> str:
        return self.places[index] if index < len(self.places) else "messages"

    @property
    def path(self) -> str:
        """Where the turn itself was: ``messages[3]``. That of its last part: before it there may be tools' answers."""
        return self.places[-1].partition(".")[0] if self.places else "messages"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may ask for. ``schema`` is the JSON Schema of its arguments; None: it takes none.

    ``place`` is where it was in the client's body.
    """

    name: str
    description: str | None = None
    schema: Mapping[str, Any] | None = None
    strict: bool | None = None
    cache: int | None = None
    place: str = field(default="tools", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """``auto``, ``none``, ``required`` (some tool) or ``tool`` (the one called ``name``).

    ``allowed``, where given, are the only tools that may be asked for, by name.
    """

    mode: Literal["auto", "none", "required", "tool"] = "auto"
    name: str | None = None
    allowed: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """The answer is JSON: of ``schema``, or any object where that is None. ``place`` as in ``Tool``."""

    schema: Mapping[str, Any] | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    place: str = field(default="response_format", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of an answer and the natural logarithm of its probability.

    ``bytes`` is the token as UTF-8, None where the vendor does not send it: a token
    may be a part of a character. ``top`` holds the most likely tokens at this position,
    whose own ``top`` is empty.
    """

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top: tuple[TokenLogprob, ...] = ()


Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How much to think: an ``effort``, or at most ``budget`` tokens; neither: as the model sees fit.

    ``summary`` is whether the client wants to see it; None leaves that to the model.
    """

    effort: Effort | None = None
    budget: int | None = None
    summary: bool | None = None
