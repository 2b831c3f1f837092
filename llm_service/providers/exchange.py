"""One request to a vendor and its answer: what all providers with an SDK share.

If the client speaks the format of the lane, its body travels verbatim and the
bytes of a stream are relayed as they arrive (``Passthrough``). Otherwise the
conversation is written in the lane's format and the answer is decoded
(``StreamDecoder``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import orjson

from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.conversation import Conversation
from llm_service.core.errors import (
    ServiceError,
    UpstreamBroken,
    UpstreamContentRejected,
    UpstreamContextExceeded,
    UpstreamError,
    UpstreamFailed,
    UpstreamKeyRefused,
    UpstreamOverloaded,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTooLarge,
)
from llm_service.core.events import IDLE, Answer, Attempt, Event, Finished, Started
from llm_service.core.headers import RETURNED
from llm_service.core.identifiers import field_path, loggable
from llm_service.core.target import Target
from llm_service.formats import (
    RelayedFormat,
    StreamDecoder,
    UpstreamFormat,
    framing,
    json_mode,
    lenient_json,
    registry,
    tool_names,
    vendor_errors,
    whole_answer,
)
from llm_service.formats.decoding import CONTENT_REJECTED, VendorError
from llm_service.observability import scrub
from llm_service.providers import row_fields
from llm_service.providers.http.sdk_head import Reply, Wire
from llm_service.providers.http.transport import Scope

# Error codes with which vendors say in a 429 that the account is out of credit, not that requests come too fast
# (Anthropic: error.details.error_code; OpenAI: error.code).
_QUOTA_CODES = {
    "insufficient_quota",
    "credit_balance_exhausted",
    "enforced_spend_limit_reached",
    "contract_spend_limit_reached",
}
_KEY_REFUSED = (
    "The provider {} refused this service's own key for this model. The operator of the service must check the key and "
    "its rights."
)
_HEADER_VALUE = re.compile(r"[ -~]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class Lane:
    """The way to one route of a vendor: its format, where its requests go and the headers that they need.

    The format of a lane for streams is a ``StreamedFormat``, that of a lane for calls that cross an
    ``UpstreamFormat``. ``left_out`` names the fields that ``forward`` leaves out of a body that travels verbatim.
    ``names_model``: the body names the model; otherwise only the path does.
    """

    format: RelayedFormat
    wire: Wire
    headers: Callable[[Call, Mapping[str, Any], bool], Mapping[str, str]]
    tick: float
    left_out: Callable[[Call], tuple[str, ...]] = lambda call: ()
    names_model: bool = True


@dataclass(frozen=True, slots=True)
class _Request:
    """What is sent for a call. ``wants_object``: the answer must be a JSON object, and it is checked here.

    ``tool_names`` has the caller's name of each tool that is sent under an alias.
    """

    body: Mapping[str, Any]
    verbatim: bool
    dropped: tuple[str, ...]
    wants_object: bool = False
    tool_names: Mapping[str, str] = field(default_factory=dict)


def events(
    lane: Lane, call: Call, target: Target, cancel: Cancel, conversation: Conversation | None = None
) -> Iterator[Event]:
    """The events of a call's answer. ``conversation`` is the decoded call, if it was decoded already."""
    request = _request(lane, call, target, conversation)
    yield Attempt(target.provider.name, target.model, target.price)
    reply = _send(lane, call, target, cancel, request)
    facts: dict[str, Any] = {
        "upstream_request_id": loggable(reply.header("request-id") or reply.header("x-request-id")),
        "headers": _returned(reply),
        "dropped": request.dropped,
    }
    try:
        if call.stream:
            answer = _stream(lane, call, reply, request.verbatim)
            if request.tool_names:
                answer = tool_names.restored(answer, request.tool_names)
            for event in json_mode.checked(answer) if request.wants_object else answer:
                if type(event) is Started:
                    event = replace(event, **facts)
                elif type(event) is Finished:
                    event = replace(event, answer=replace(event.answer, **facts))
                yield event
            reply.drain()
        else:
            yield Finished(replace(_plain(lane, call, reply, request), **facts))
    finally:
        reply.close()


def _request(lane: Lane, call: Call, target: Target, conversation: Conversation | None) -> _Request:
    """Raises InvalidRequest or UnsupportedParameter if the target cannot take the request."""
    if registry.speaks(call, lane.format):
        body, without = _fitted(lane, call, target, lane.format.forward(call, target))
        return _Request(body, True, (*lane.left_out(call), *without))
    if conversation is None:
        conversation = registry.format_of(call).read_request(call.body, call.headers)
    conversation, names = tool_names.fit(conversation, target)
    written, dropped = cast(UpstreamFormat, lane.format).write_request(call, conversation, target)
    body, without = _fitted(lane, call, target, written)
    betas = ("anthropic-beta",) if "anthropic-beta" in call.headers else ()
    # If the caller's JSON is checked by json_answers, the whole answer is checked, and may be repaired, there.
    unchecked = call.kind == "generate" and call.json_answers == "off"
    wants_object = unchecked and json_mode.asks_for_object(conversation)
    return _Request(body, False, (*conversation.dropped, *dropped, *without, *betas), wants_object, names)


def _fitted(lane: Lane, call: Call, target: Target, body: dict[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The body as the provider's row wants it, and what the row leaves out of it."""
    if not lane.names_model:
        body.pop("model", None)
    return row_fields.fitted(body, call, target.provider)


def _plain(lane: Lane, call: Call, reply: Reply, request: _Request) -> Answer:
    data = reply.read()
    decoder = getattr(lane.format, "StreamDecoder", None)
    if decoder is not None and framing.is_event_stream(data):  # some servers stream though they were not asked to
        answer = whole_answer.of_events(_decode(decoder(call), (data,), reply))
    else:
        answer = _read(lane, call, _json(data), request)
        if request.verbatim:
            return answer
    if request.wants_object:
        json_mode.check(answer)
    return tool_names.restored_answer(answer, request.tool_names) if request.tool_names else answer


def _read(lane: Lane, call: Call, body: Mapping[str, Any], request: _Request) -> Answer:
    """The answer in ``body``. The error of one that failed has the usage that it reports."""
    try:
        if request.verbatim:
            return lane.format.read_verbatim(body, call)
        return cast(UpstreamFormat, lane.format).read_answer(body, call)
    except UpstreamError as error:
        if (read := getattr(lane.format, "reported_usage", None)) is not None:
            error.usage = read(body, call)
        raise


def _send(lane: Lane, call: Call, target: Target, cancel: Cancel, request: _Request) -> Reply:
    scope = Scope(target.timeouts, cancel, lane.tick)
    headers = lane.headers(call, request.body, request.verbatim)
    reply = lane.wire.ask(call, target, orjson.dumps(request.body), headers, scope)
    if not 200 <= reply.status < 300:
        raise _status_error(lane, call, target, reply)
    return reply


def _returned(reply: Reply) -> dict[str, str]:
    """The vendor's headers that the caller gets. A value that is not a short printable line is left out."""
    return {name: value for name in RETURNED if _HEADER_VALUE.match(value := reply.header(name))}


def _stream(lane: Lane, call: Call, reply: Reply, verbatim: bool) -> Iterator[Event]:
    format = cast(UpstreamFormat, lane.format)
    return _decode(format.Passthrough(call) if verbatim else format.StreamDecoder(call), reply.pieces(), reply)


def _decode(decoder: StreamDecoder, pieces: Iterable[bytes], reply: Reply) -> Iterator[Event]:
    """The events of a body. Raises UpstreamBroken if it ends before the answer does."""
    try:
        start, splitter = b"", None
        for data in pieces:
            if not data:
                yield IDLE
                continue
            if splitter is None:
                start += data
                begun = framing.split(start)
                if begun is None:
                    continue
                splitter, data = begun
            blocks = splitter.feed(data)
            if blocks:
                yield from decoder.feed_many(blocks)
                if decoder.finished:
                    return
        if splitter is not None:
            yield from decoder.feed_many(splitter.end())  # some servers leave out the last blank line
        if reply.complete and not decoder.finished:
            yield from decoder.end()
        if not decoder.finished:
            raise UpstreamBroken("The provider's stream ended without its terminal event.")
    except ServiceError as error:
        error.usage = error.usage or decoder.reported()
        raise


def _json(body: bytes) -> dict[str, Any]:
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            reply = lenient_json.load(body)
        except ValueError:
            raise UpstreamBroken("The provider's answer is not JSON.") from None
    if isinstance(reply, list) and len(reply) == 1:  # Gemini's errors
        reply = reply[0]
    if not isinstance(reply, dict):
        raise UpstreamBroken("The provider's answer is not a JSON object.")
    return reply


def _status_error(lane: Lane, call: Call, target: Target, reply: Reply) -> UpstreamError:
    """The error for a vendor's error status. Of the vendor's text only what ``scrub`` lets through is kept."""
    status = reply.status
    try:
        parsed = orjson.loads(reply.read())
    except orjson.JSONDecodeError:
        parsed = None
    finally:
        reply.close()
    content = scrub.request_text(call.body)
    raw = lane.format.read_error(parsed, status)
    error = _without_content(raw, content)
    request_id = reply.header("request-id") or reply.header("x-request-id")
    facts = {"status": status, "type": error.type, "code": error.code, "request_id": loggable(request_id)}
    param = field_path(error.param)
    message = scrub.vendor_message(error.message, content) if error.message else ""
    retry_after = _retry_after(reply.header("retry-after"))
    common: dict[str, Any] = {
        "vendor": {"format": lane.format.NAME, **facts},
        "retry_after": retry_after,
        "headers": _returned(reply),
    }
    kind = vendor_errors.closer_kind(status, raw.words, raw.text)
    if kind is UpstreamContextExceeded:
        return vendor_errors.context_exceeded(raw.text, **common)
    if kind is UpstreamContentRejected:
        return UpstreamContentRejected(CONTENT_REJECTED, param=param, **common)
    if kind is UpstreamTooLarge:
        return UpstreamTooLarge(message or "The request is too large for the provider.", param=param, **common)
    out_of_credit = status == 402 or (status == 429 and (error.code in _QUOTA_CODES or error.type in _QUOTA_CODES))
    if out_of_credit or kind is UpstreamQuotaExhausted:
        return UpstreamQuotaExhausted("This service's account with the provider is out of credit.", **common)
    if status == 401 or (status == 403 and not _is_about_the_prompt(parsed)):
        return UpstreamKeyRefused(_KEY_REFUSED.format(target.provider.name), **common)
    if status == 429:
        return UpstreamRateLimited(message or "The provider's own rate limit was reached.", **common)
    if status in (503, 529):
        return UpstreamOverloaded("The provider is overloaded.", **common)
    if status == 408:
        return UpstreamTimeout("The provider timed out.", **common)
    if status == 409:
        return UpstreamFailed(message or "The provider reported a conflict.", status=409, **common)
    if 400 <= status < 500:
        return UpstreamRejected(message or "The provider rejected the request.", status=status, param=param, **common)
    if status >= 500:
        return UpstreamFailed("The provider failed.", status=status if status < 600 else 502, **common)
    return UpstreamFailed("The provider answered with a redirect, which is not followed.", **common)


def _is_about_the_prompt(body: Any) -> bool:
    """Whether a 403 is for the prompt and not for the key: OpenRouter answers so when moderation flags the input."""
    error = body.get("error") if isinstance(body, dict) else None
    metadata = error.get("metadata") if isinstance(error, dict) else None
    return isinstance(metadata, dict) and "flagged_input" in metadata


def _without_content(error: VendorError, content: str) -> VendorError:
    """``error`` without the identifiers and paths that quote the request."""

    def scrubbed(text: str | None) -> str | None:
        # The quota codes decide whether another attempt is made, so they stay even if the request contains them.
        if text is None or text in _QUOTA_CODES:
            return text
        return text if scrub.vendor_message(text, content) == text else None

    return replace(error, type=scrubbed(error.type), code=scrubbed(error.code), param=scrubbed(error.param))


def _retry_after(text: str) -> int | None:
    """Whole seconds from a Retry-After header (RFC 9110 section 10.2.3: seconds or a date)."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return None
    if not math.isfinite(seconds) or seconds < 0:
        return None
    return min(math.ceil(seconds), 86_400)
