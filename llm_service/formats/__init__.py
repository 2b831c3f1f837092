"""Wire formats, one folder or file per format. Pure: no Flask, SDK, SQLAlchemy, Redis, clock or I/O.

A format is a module with the members of ``ClientFormat``. A format that providers speak too also has the members of
``UpstreamFormat``. ``registry`` lists them all, and there mypy checks each against its protocol.

What others need to know about a format they ask it through these members: they never compare its name.

What the streams promise:

* ``StreamEncoder``, ``StreamDecoder`` and ``Passthrough`` serve one call. ``StreamEncoder.error`` reports a failure
  after the first event, and the format's terminal event never follows it.
* ``feed_many`` takes the blocks of one network read (``sse.Splitter``) and yields the events before a failure
  before it raises the failure. ``finished`` is True once the answer is complete: a stream that ends before is
  malformed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, ClassVar, Protocol

from marshmallow import Schema

from llm_service.core.call import Call
from llm_service.core.content import JsonFormat
from llm_service.core.conversation import Conversation
from llm_service.core.errors import ServiceError
from llm_service.core.events import Answer, Event
from llm_service.core.target import Target
from llm_service.core.usage import Usage
from llm_service.formats.bounds import Bounds
from llm_service.formats.decoding import VendorError


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
        """Raises UpstreamBroken for bytes that are not in the format, UpstreamError for an in-band error."""
        ...

    def end(self) -> Iterator[Event]:
        """The last events of a body that ended properly but without the format's terminal event.

        Nothing if the answer needs that event, or is not complete: then the stream is malformed.
        """
        ...

    def reported(self) -> Usage | None:
        """The usage that the vendor has reported so far, None if it has reported none."""
        ...


class ClientFormat(Protocol):
    """A format that clients speak."""

    @property
    def NAME(self) -> str: ...

    @property
    def PATHS(self) -> tuple[str, ...]:
        """The routes that speak it; a route below one of these speaks it too."""
        ...

    @property
    def KEEP_ALIVE(self) -> bytes: ...

    @property
    def ERROR_TYPE(self) -> str:
        """The content type of errors."""
        ...

    @property
    def BOUNDS(self) -> Bounds:
        """What a request can make a vendor read, write and charge at most."""
        ...

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

    def json_format(self, body: Mapping[str, Any]) -> JsonFormat | None:
        """The JSON that a checked body asks for; None if it asks for none."""
        ...

    def with_turn(self, body: Mapping[str, Any], text: str, note: str) -> dict[str, Any]:
        """``body`` with the model's answer ``text`` and a user message ``note`` at its end."""
        ...

    def read_request(self, body: Mapping[str, Any], headers: Mapping[str, str] = ...) -> Conversation:
        """A checked body; ``headers`` are ``Call.headers``. Raises UnsupportedParameter for what cannot cross."""
        ...

    def write_answer(self, call: Call, answer: Answer) -> dict[str, Any]: ...

    def response_headers(self, request_id: str) -> dict[str, str]:
        """The vendor's own headers of every reply."""
        ...

    def status(self, failure: ServiceError) -> int:
        """The HTTP status that this format's SDKs expect for ``failure``."""
        ...

    def error(self, failure: ServiceError, request_id: str) -> dict[str, Any]: ...

    def error_headers(self, failure: ServiceError, now: datetime) -> dict[str, str]:
        """The vendor's own headers of a failure; ``now`` is aware."""
        ...


class RelayedFormat(Protocol):
    """A format whose own clients' requests and answers travel verbatim.

    With ``call``, which may be left out, missing token counts are estimated.
    """

    @property
    def NAME(self) -> str: ...

    def forward(self, call: Call, target: Target) -> dict[str, Any]:
        """The client's own body with the model and usage options replaced."""
        ...

    def read_verbatim(self, body: Mapping[str, Any], call: Call | None = None) -> Answer:
        """``Answer`` with ``body`` and the usage only. Raises UpstreamBroken when it is not an answer."""
        ...

    def read_error(self, body: object, status: int = 0) -> VendorError: ...


class StreamedFormat(RelayedFormat, Protocol):
    @property
    def Passthrough(self) -> Callable[[Call], StreamDecoder]:
        """For an answer that is relayed as it is."""
        ...


class UpstreamFormat(ClientFormat, StreamedFormat, Protocol):
    """A format in which providers answer the clients of every format."""

    @property
    def StreamDecoder(self) -> Callable[[Call], StreamDecoder]:
        """For an answer that is translated."""
        ...

    def write_request(
        self, call: Call, conversation: Conversation, target: Target
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The body, and the client's names of the fields that are dropped because the target has no counterpart.

        Raises UnsupportedParameter for a field that must not be dropped."""
        ...

    def read_answer(self, body: Mapping[str, Any], call: Call | None = None) -> Answer:
        """Raises UpstreamBroken when it is not an answer."""
        ...
