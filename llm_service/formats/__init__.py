"""Wire formats. One per format, both directions; pure: no Flask, SDK, clock or I/O.

``simple``, ``chat`` and ``messages`` are modules with the members of
``ClientFormat``; ``chat`` and ``messages``, which providers speak too, also have
those of ``UpstreamFormat``. The larger ones are spread over ``*_client``,
``*_upstream`` and ``*_stream``; ``fields`` and ``upstream`` hold what they share.

What the streams promise:

* ``StreamEncoder``, ``Reader`` and ``Passthrough`` serve one call. A failure after the first event
  is ``StreamEncoder.error``, and the format's terminal event never follows it.
* ``feed_many`` takes the blocks of one network read (``sse.Splitter``) and yields
  what came before a failure before it raises it. ``finished`` is True once the
  terminal event was seen: the end of the bytes without it is a broken answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from marshmallow import Schema

from llm_service.core.call import Call
from llm_service.core.conversation import Conversation
from llm_service.core.errors import ServiceError
from llm_service.core.events import Answer, Event

if TYPE_CHECKING:
    from llm_service.core.target import Target
    from llm_service.formats import anthropic_messages as messages
    from llm_service.formats import openai_chat as chat
    from llm_service.formats.decoding import VendorError
    from llm_service.formats.small import simple


class StreamEncoder(Protocol):
    """The bytes of one answer's stream, in the client's format."""

    KEEP_ALIVE: ClassVar[bytes]

    def feed(self, event: Event) -> bytes:
        """The bytes to send for ``event``: b"" for ``Attempt`` and ``Idle``."""
        ...

    def error(self, failure: ServiceError, request_id: str = "") -> bytes:
        """The last bytes of a stream that failed."""
        ...


class StreamDecoder(Protocol):
    """One upstream stream as events, the first ``Started``, the last ``Finished``."""

    finished: bool

    def feed(self, block: bytes) -> list[Event]: ...

    def feed_many(self, blocks: Iterable[bytes]) -> Iterator[Event]:
        """Raises UpstreamBroken for what is not the format, UpstreamError for an in-band error."""
        ...


class ClientFormat(Protocol):
    """A format that clients speak."""

    @property
    def NAME(self) -> str: ...

    @property
    def KEEP_ALIVE(self) -> bytes: ...

    @property
    def RequestSchema(self) -> Callable[[], Schema]:
        """Also the source of the OpenAPI document."""
        ...

    @property
    def StreamEncoder(self) -> Callable[[Call], StreamEncoder]: ...

    def check(self, body: Any) -> dict[str, Any]:
        """``body`` itself. Raises InvalidRequest naming the field and the rule, never the value."""
        ...

    def prompt(self, body: Mapping[str, Any]) -> list[Any]:
        """The JSON values that hold the prompt, for its keyed hash."""
        ...

    def read_request(self, body: Mapping[str, Any], headers: Mapping[str, str] = ...) -> Conversation:
        """A checked body; ``headers`` are ``Call.headers``. Raises UnsupportedParameter for what cannot cross."""
        ...

    def write_answer(self, call: Call, answer: Answer) -> dict[str, Any]: ...

    def status(self, failure: ServiceError) -> int:
        """The HTTP status this format's SDKs expect for ``failure``."""
        ...

    def error(self, failure: ServiceError, request_id: str) -> dict[str, Any]: ...

    def error_headers(self, failure: ServiceError, now: datetime) -> dict[str, str]:
        """The vendor's own headers for it; ``now`` is aware."""
        ...


class RelayedFormat(Protocol):
    """A format whose own clients' requests and answers travel verbatim.

    ``call``, where it may be left out, lets missing counts be estimated.
    """

    @property
    def NAME(self) -> str: ...

    def forward(self, call: Call, target: Target) -> dict[str, Any]:
        """The client's own body with the model and usage options replaced."""
        ...

    def read_verbatim(self, body: Mapping[str, Any], call: Call | None = None) -> Answer:
        """``Answer`` with ``body`` and the usage only. Raises UpstreamBroken when it is no answer."""
        ...

    def read_error(self, body: object, status: int = 0) -> VendorError: ...


class StreamedFormat(RelayedFormat, Protocol):
    @property
    def Passthrough(self) -> Callable[[Call], StreamDecoder]:
        """For an answer that is relayed as it is."""
        ...


class UpstreamFormat(ClientFormat, StreamedFormat, Protocol):
    """A format that providers speak to everybody's clients."""

    @property
    def StreamDecoder(self) -> Callable[[Call], StreamDecoder]:
        """For an answer that crosses."""
        ...

    def write_request(
        self, call: Call, conversation: Conversation, target: Target
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The body, and the names of the client's fields that the target cannot take.

        Raises UnsupportedParameter for what must not be left out."""
        ...

    def read_answer(self, body: Mapping[str, Any], call: Call | None = None) -> Answer:
        """Raises UpstreamBroken when it is no answer."""
        ...


if TYPE_CHECKING:
    # The modules keep the contract: checked by mypy, here and nowhere else.
    _simple: ClientFormat = simple
    _chat: UpstreamFormat = chat
    _messages: UpstreamFormat = messages
