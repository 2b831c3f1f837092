"""One request to a vendor and the reading of its answer: what both SDK providers share.

When the client speaks the vendor's format the body travels verbatim and the
bytes of a stream are relayed as they arrive (``Passthrough``); otherwise the
conversation is written into the vendor's format and its answer read back
(``Reader``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import orjson

from llm_service.core.call import Call
from llm_service.core.cancellation import Cancel
from llm_service.core.conversation import Conversation
from llm_service.core.errors import (
    UpstreamBroken,
    UpstreamError,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
)
from llm_service.core.events import IDLE, Attempt, Event, Finished, Started
from llm_service.core.headers import RETURNED
from llm_service.core.target import Target
from llm_service.formats import RelayedFormat, UpstreamFormat, json_mode, registry, sse
from llm_service.formats.decoding import VendorError
from llm_service.observability import scrub
from llm_service.providers.http.sdk_head import Reply, Wire
from llm_service.providers.http.transport import Scope

# Error codes of vendors' 429s that mean "out of credit", not "too fast"
# (anthropic error.details.error_code; openai error.code).
_QUOTA_CODES = {
    "insufficient_quota",
    "credit_balance_exhausted",
    "enforced_spend_limit_reached",
    "contract_spend_limit_reached",
}
_HEADER_VALUE = re.compile(r"[ -~]{1,128}\Z")
_FIELD_PATH = re.compile(r"[A-Za-z0-9_.\[\]-]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class Vendor:
    """What differs between the vendors' routes: the format, the way there and the headers it wants.

    One that is given streams has a ``StreamedFormat``, and calls that cross an ``UpstreamFormat``.
    ``left_out`` names what ``forward`` leaves out of a call's own body.
    """

    format: RelayedFormat
    wire: Wire
    headers: Callable[[Call, Mapping[str, Any], bool], Mapping[str, str]]
    tick: float
    left_out: Callable[[Call], tuple[str, ...]] = lambda call: ()


def events(
    vendor: Vendor, call: Call, target: Target, cancel: Cancel, conversation: Conversation | None = None
) -> Iterator[Event]:
    """The answer's events. ``conversation`` is the call's, where it was read already."""
    verbatim = registry.speaks(call, vendor.format)
    dropped: tuple[str, ...] = ()
    wants_object = False
    if verbatim:
        body, dropped = vendor.format.forward(call, target), vendor.left_out(call)
    else:
        if conversation is None:
            conversation = registry.format_of(call).read_request(call.body, call.headers)
        body, lost = cast(UpstreamFormat, vendor.format).write_request(call, conversation, target)
        # Who wants it checked has that done with the answer as a whole, where it can be mended.
        unchecked = call.kind == "generate" and call.json_answers == "off"
        wants_object = unchecked and json_mode.asks_for_object(conversation)
        betas = ("anthropic-beta",) if "anthropic-beta" in call.headers else ()
        dropped = (*conversation.dropped, *lost, *betas)
    yield Attempt(target.provider.name, target.model, target.price)
    reply = _send(vendor, call, target, cancel, body, verbatim)
    facts: dict[str, Any] = {
        "upstream_request_id": scrub.identifier(reply.header("request-id") or reply.header("x-request-id")),
        "headers": _returned(reply),
        "dropped": dropped,
    }
    try:
        if call.stream:
            events = _stream(vendor, call, reply, verbatim)
            for event in json_mode.checked(events) if wants_object else events:
                if type(event) is Started:
                    event = replace(event, **facts)
                elif type(event) is Finished:
                    event = replace(event, answer=replace(event.answer, **facts))
                yield event
            reply.drain()
        else:
            read = vendor.format.read_verbatim if verbatim else cast(UpstreamFormat, vendor.format).read_answer
            answer = read(_json(reply.read()), call)
            if wants_object:
                json_mode.check(answer)
            yield Finished(replace(answer, **facts))
    finally:
        reply.close()


def _send(vendor: Vendor, call: Call, target: Target, cancel: Cancel, body: Mapping[str, Any], verbatim: bool) -> Reply:
    scope = Scope(target.timeouts, cancel, vendor.tick)
    reply = vendor.wire.ask(orjson.dumps(body), vendor.headers(call, body, verbatim), scope)
    if not 200 <= reply.status < 300:
        raise _status_error(vendor, call, reply)
    return reply


def _returned(reply: Reply) -> dict[str, str]:
    """The vendor's headers that the caller gets; what is no short printable line is no header of a vendor's."""
    return {name: value for name in RETURNED if _HEADER_VALUE.match(value := reply.header(name))}


def _stream(vendor: Vendor, call: Call, reply: Reply, verbatim: bool) -> Iterator[Event]:
    if not reply.is_event_stream:
        raise UpstreamBroken("The provider did not answer with an event stream.")
    splitter = sse.Splitter()
    format = cast(UpstreamFormat, vendor.format)
    reader = format.Passthrough(call) if verbatim else format.StreamDecoder(call)
    for data in reply.pieces():
        if not data:
            yield IDLE
            continue
        blocks = splitter.feed(data)
        if blocks:
            yield from reader.feed_many(blocks)
            if reader.finished:
                return
    yield from reader.feed_many(splitter.end())  # some servers leave out the last blank line
    if reader.finished:
        return
    raise UpstreamBroken("The provider's stream ended without its terminal event.")


def _json(body: bytes) -> dict[str, Any]:
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UpstreamBroken("The provider's answer is not JSON.") from None
    if not isinstance(reply, dict):
        raise UpstreamBroken("The provider's answer is not a JSON object.")
    return reply


def _status_error(vendor: Vendor, call: Call, reply: Reply) -> UpstreamError:
    """The vendor's refusal as ours. Its text passes only through ``scrub``."""
    status = reply.status
    try:
        parsed = orjson.loads(reply.read())
    except orjson.JSONDecodeError:
        parsed = None
    finally:
        reply.close()
    content = scrub.request_text(call.body)
    told = _without_content(vendor.format.read_error(parsed, status), content)
    request_id = reply.header("request-id") or reply.header("x-request-id")
    facts = {"status": status, "type": told.type, "code": told.code, "request_id": scrub.identifier(request_id)}
    param = told.param if told.param and _FIELD_PATH.match(told.param) else None
    message = scrub.vendor_message(told.message, content) if told.message else ""
    retry_after = _retry_after(reply.header("retry-after"))
    common: dict[str, Any] = {
        "vendor": {"format": vendor.format.NAME, **facts},
        "retry_after": retry_after,
        "headers": _returned(reply),
    }
    if status in (401, 403):
        text = "The provider refused this service's own credentials; the operator must look at its API key."
        return UpstreamRejected(text, status=status, code="upstream_authentication", **common)
    if status == 429 and (told.code in _QUOTA_CODES or told.type in _QUOTA_CODES):
        return UpstreamQuotaExhausted("This service's account with the provider is out of credit.", **common)
    if status == 429:
        return UpstreamRateLimited(message or "The provider's own rate limit was reached.", **common)
    if status in (503, 529):
        return UpstreamOverloaded("The provider is overloaded.", **common)
    if status == 408:
        return UpstreamTimeout("The provider timed out.", **common)
    if status == 409:
        return UpstreamFailed(message or "The provider reported a conflict.", status=409, **common)
    if 400 <= status < 500:
        return UpstreamRejected(message or "The provider refused the request.", status=status, param=param, **common)
    if status >= 500:
        return UpstreamFailed("The provider failed.", status=status if status < 600 else 502, **common)
    return UpstreamFailed("The provider answered with a redirect, which is not followed.", **common)


def _without_content(told: VendorError, content: str) -> VendorError:
    """Identifiers and paths only as far as they quote nothing of the request."""

    def kept(text: str | None) -> str | None:
        if text is None or text in _QUOTA_CODES:  # those decide what is tried again, whatever the request says
            return text
        return text if scrub.vendor_message(text, content) == text else None

    return replace(told, type=kept(told.type), code=kept(told.code), param=kept(told.param))


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
