"""The parts of a conversation: turns and what is in them, tools and output formats. Frozen values.

They belong to no vendor's format: each format converts its own values into these, and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text.

    ``cache``, here and below, is a hint: the vendor may keep the prompt up to and including this part for later
    calls, for this number of seconds. 0 leaves the time to the vendor. None means no hint.
    """

    text: str
    cache: int | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """An image: a ``url``, or base64 ``data`` of ``media_type``. ``detail`` is OpenAI's hint how closely to look."""

    url: str | None = None
    data: str | None = None
    media_type: str = ""
    cache: int | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A document: the ``url`` of a PDF, base64 ``data`` of ``media_type``, plain ``text``, or a file of OpenAI."""

    url: str | None = None
    data: str | None = None
    media_type: str = ""
    text: str | None = None
    title: str | None = None
    context: str | None = None
    cache: int | None = None
    file_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model calls a tool. ``arguments`` should be the text of a JSON object, but a model may have got it wrong."""

    id: str
    name: str
    arguments: str
    cache: int | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of the tool call ``id``: text, images and documents. It stands first in a user's message."""

    id: str
    parts: tuple[Text | Image | Document, ...] = ()
    is_error: bool = False
    cache: int | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """The model's reasoning.

    Only the vendor that signed it accepts it again, unchanged. ``signature`` is empty if nobody signed it.
    ``vendor`` is the format of the upstream that it came from.
    """

    text: str
    signature: str = ""
    vendor: str = ""


@dataclass(frozen=True, slots=True)
class RedactedThinking:
    """Reasoning that is encrypted: only its vendor can read it."""

    data: str
    vendor: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The model's own explanation of why it did not answer; "" if it gave none."""

    text: str


Part: TypeAlias = Text | Image | Document | ToolCall | ToolResult | Thinking | RedactedThinking | Refusal


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Results of tools belong to the user's turn, together with what the user says after them.

    ``paths`` holds the path of each part in the client's body, for error messages (``messages[3].content[0]``).
    """

    role: Role
    parts: tuple[Part, ...]
    paths: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def text(self) -> str:
        return "".join([part.text for part in self.parts if type(part) is Text])

    def path_of(self, index: int = 0) -> str:
        return self.paths[index] if index < len(self.paths) else "messages"

    @property
    def path(self) -> str:
        """The path of the turn itself: ``messages[3]``. Taken from the last part, as tools' results may come first."""
        return self.paths[-1].partition(".")[0] if self.paths else "messages"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. ``schema`` is the JSON Schema of its arguments; None: it takes none.

    ``path`` is its path in the client's body. ``custom`` is set for a custom tool of OpenAI, which takes text: the
    fields that it has beside its name, for a target that has custom tools too.
    """

    name: str
    description: str | None = None
    schema: Mapping[str, Any] | None = None
    strict: bool | None = None
    cache: int | None = None
    path: str = field(default="tools", compare=False, repr=False)
    custom: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """``auto``, ``none``, ``required`` (any tool) or ``tool`` (the one with this ``name``).

    If ``allowed`` is set, the model may call only the tools with these names.
    """

    mode: Literal["auto", "none", "required", "tool"] = "auto"
    name: str | None = None
    allowed: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """The answer must be JSON: of ``schema``, or any object if that is None. ``path`` is as in ``Tool``."""

    schema: Mapping[str, Any] | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    path: str = field(default="response_format", compare=False, repr=False)


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
    """How much the model should think: an ``effort``, or at most ``budget`` tokens. With neither, the model decides.

    ``summary`` says whether the client wants to see the reasoning; None leaves that to the model.
    """

    effort: Effort | None = None
    budget: int | None = None
    summary: bool | None = None
