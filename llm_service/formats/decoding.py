"""What the decoders of all vendors' answers share: untrusted counts, errors, malformed answers.

An upstream may be any server that claims to speak a format. Nothing that it sends may raise anything but an
``UpstreamError``. A count that is not a plausible number is never used: it is estimated (four characters per token),
and ``Usage.exact`` is False.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from llm_service.core.call import Call
from llm_service.core.errors import (
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
from llm_service.core.events import IDLE, Event
from llm_service.core.identifiers import vendor_code
from llm_service.core.usage import Usage
from llm_service.formats import lenient_json, sse, vendor_errors
from llm_service.formats.bounds import as_list

CHARACTERS_PER_TOKEN = 4
# Far above any context window. A higher count is a server's mistake and is not used.
MAX_TOKENS = 10**8
# The most searches of one answer. A higher number is not used.
MAX_SEARCHES = 1000
# What vendors call the processing they bill at the standard price: "default" is OpenAI's, "standard"
# Anthropic's (service_tier and speed), "global" and "not_available" its inference_geo, "on_demand"
# Groq's; "auto" is the request's word, echoed by servers that know no tiers.
_STANDARD = frozenset({"default", "standard", "global", "not_available", "on_demand", "auto"})
_LONGEST_MESSAGE = 2000


class Stream:
    """One upstream's stream as events. The decoder that sees the end of the stream sets ``finished``."""

    __slots__ = ()

    finished: bool
    _begun: bool  # whether anything but comments has come

    def feed(self, block: bytes) -> list[Event]:
        """The events of one block."""
        return list(self.feed_many((block,)))

    def feed_many(self, blocks: Iterable[bytes]) -> Iterator[Event]:
        """The events of the blocks of one network read. Blocks after the terminal event are ignored.

        After the events before it, a malformed block raises UpstreamBroken, and the vendor's in-band error raises an
        UpstreamError.
        """
        for block in blocks:
            if self.finished:
                return
            _, data = sse.parse(block)
            if data:
                yield from self._read(parse_json(data))
            elif self._begun:
                yield IDLE

    def end(self) -> Iterator[Event]:
        """The events at the proper end of a body that had no terminal event. Most formats need that event."""
        return iter(())

    def reported(self) -> Usage | None:
        """The usage that the vendor has reported so far, for a stream that failed. None if it has reported none."""
        return None

    def _read(self, event: dict[str, Any]) -> Iterator[Event]:
        """The events of one event of the upstream. A decoder with its own ``feed_many`` does not need it."""
        raise NotImplementedError


def broken(what: str) -> NoReturn:
    raise UpstreamBroken(f"The provider's answer is not in its own format: {what}.")


def parse_json(data: bytes) -> dict[str, Any]:
    """The JSON object of an event. Raises UpstreamBroken."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = parse_leniently(data)
    if type(value) is not dict:
        broken("an event is not a JSON object")
    return value


def parse_leniently(data: bytes, joined: frozenset[str] = frozenset()) -> Any:
    """JSON that orjson does not read, as ``lenient_json.load`` does. Raises UpstreamBroken."""
    try:
        return lenient_json.load(data, joined)
    except ValueError:
        broken("an event is not JSON")


def merge_counts(known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The usage that was reported so far: ``given`` over ``known``, but no count gets lower or is lost."""
    merged = dict(known)
    for name, value in given.items():
        before = merged.get(name)
        if isinstance(before, dict):
            if isinstance(value, dict):
                merged[name] = merge_counts(before, value)
        elif (count := plausible(before)) is not None:
            merged[name] = max(count, plausible(value) or 0)
        elif value is not None:
            merged[name] = value
    return merged


def has_counts(usage: Any) -> bool:
    """Whether a usage object has a count above zero."""
    return isinstance(usage, dict) and any(map(plausible, usage.values()))


def plausible(value: Any) -> int | None:
    """The count that ``value`` stands for, None if it cannot be one. Some servers write counts as text or as 7.0."""
    if type(value) is not int:
        is_text = type(value) is str and value.isascii() and value.isdigit() and len(value) < 12
        if not is_text and not (type(value) is float and value.is_integer()):
            return None
        value = int(value)
    return value if 0 <= value <= MAX_TOKENS else None


def has_tools(call: Call | None) -> bool:
    """Whether the call offers tools. A vendor must not call a tool of a request without tools.

    A request for Responses may offer them in items of its input too.
    """
    if call is None or call.body.get("tools"):
        return True
    return any(isinstance(item, dict) and item.get("tools") for item in as_list(call.body.get("input")))


def tool_names(call: Call | None) -> frozenset[str]:
    """The names of the tools that the call offers, in any format."""
    offered = call.body.get("tools") if call is not None else None
    tools = [tool for tool in offered if isinstance(tool, dict)] if isinstance(offered, list) else []
    named = [tool["function"] if isinstance(tool.get("function"), dict) else tool for tool in tools]
    return frozenset(name for tool in named if isinstance(name := tool.get("name"), str))


def check_calls(call: Call | None, count: int) -> None:
    """Raises UpstreamBroken for calls of tools that the request does not have, and for several calls if the client's
    older form (``functions``) can hold only one."""
    older = call is not None and call.body.get("functions")
    if count and not older and not has_tools(call):
        broken("it calls a tool that it was not given")
    if count > 1 and older:
        broken("it calls several functions at once, but the request allows one")


def estimated_input(call: Call | None) -> int:
    return call.body_bytes // CHARACTERS_PER_TOKEN if call is not None else 0


def estimated_output(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)


class Counts:
    """Reads token counts from a vendor's usage object.

    ``exact`` is False once a count was not plausible, and ``lost`` is True once a count had to be estimated.
    """

    __slots__ = ("_given", "exact", "lost")

    def __init__(self, given: Any) -> None:
        self._given: Mapping[str, Any] = given if isinstance(given, dict) else {}
        self.exact, self.lost = True, False

    def known(self, *names: str) -> int | None:
        """The count with the first of ``names`` that has one, None if none has."""
        for name in names:
            value = self._given.get(name)
            count = plausible(value)
            if value is not None and (count is None or type(value) is str):
                self.exact = False
            if count is not None:
                return count
        return None

    def estimated(self, estimate: int) -> int:
        """``estimate``, for a count that is not known."""
        self.exact, self.lost = False, True
        return estimate

    def required(self, names: tuple[str, ...], estimate: int) -> int:
        """The count with one of ``names``. Zero is not plausible where ``estimate`` says that there was something."""
        count = self.known(*names)
        return self.estimated(estimate) if count is None or (count == 0 and estimate) else count

    def both(
        self, prompt: tuple[str, ...], output: tuple[str, ...], call: Call | None, characters: int
    ) -> tuple[int, int]:
        """The tokens of the prompt and of the output. ``total_tokens`` says what one of them does not."""
        expected, written = estimated_input(call), estimated_output(characters)
        asked, answered, total = self.known(*prompt), self.known(*output), self.known("total_tokens")
        asked = None if asked == 0 and expected else asked
        answered = None if answered == 0 and written else answered
        if asked is None:
            known = answered is not None and total is not None and total > answered
            asked = total - answered if known else self.estimated(min(expected, total or expected))  # type: ignore[operator]
        if answered is None:
            left = max(0, total - asked) if total is not None else 0
            answered = left if left and not self.lost else self.estimated(max(written, left))
        return asked, answered

    def reasoning(self, prompt: int, output: int, *path: str) -> tuple[int, int]:
        """The whole output and the reasoning in it.

        Some servers do not count hidden reasoning as output: xAI reports it beside the output, and Gemini only as a
        part of ``total_tokens``.
        """
        total = self.known("total_tokens")
        reasoning = self.optional(*path, maximum=MAX_TOKENS)
        if total is not None and total > prompt + output:
            output = total - prompt
        elif output < reasoning < MAX_TOKENS and total is None:
            self.exact = False
            output += reasoning
        return output, self.optional(*path, maximum=output)

    def optional(self, *path: str, maximum: int) -> int:
        """The count at ``path``, 0 if it is missing. A value above ``maximum`` is cut to it and is not exact."""
        value: Any = self._given
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            return 0
        count = maximum if type(value) is int and value > maximum else plausible(value)
        if count is None or count != value or count > maximum:
            self.exact = False
        return min(count or 0, maximum)


def service_tier(*reported: Any) -> str:
    """``Usage.tier`` from the vendor's fields that say how it processed the call.

    A value that is not an identifier becomes ``unknown``, and then the cost is unknown too.
    """
    names = [vendor_code(word) or "unknown" for word in reported if word is not None and word != ""]
    return "+".join(name for name in map(str.lower, names) if name not in _STANDARD)


@dataclass(frozen=True, slots=True)
class VendorError:
    """A vendor's error object. ``type`` and ``code`` are identifiers or None; ``message`` and ``param``
    are the vendor's raw text. It may quote the prompt: scrub it before use.

    ``inner`` is the error of another vendor that this one has asked, as text. It only helps to recognise the failure.
    """

    type: str | None = None
    code: str | None = None
    message: str | None = None
    param: str | None = None
    inner: str | None = None

    @property
    def words(self) -> tuple[str | None, str | None]:
        return self.code, self.type

    @property
    def text(self) -> str:
        """All sentences of the error."""
        return " ".join(filter(None, (self.message, self.inner)))

    @classmethod
    def of(cls, error: Mapping[str, Any], code: Any = None) -> VendorError:
        message, param = _sentence(error), error.get("param")
        metadata = error.get("metadata")
        inner = metadata.get("raw") if isinstance(metadata, dict) else None  # OpenRouter
        code = error.get("code") if code is None else code
        return cls(
            type=vendor_code(error.get("type")),
            code=vendor_code(str(code) if type(code) is int else code),  # some servers send the status: 429
            message=message[:_LONGEST_MESSAGE] if message is not None else None,
            param=param if isinstance(param, str) else None,
            inner=inner[:_LONGEST_MESSAGE] if isinstance(inner, str) else None,
        )


# Where servers put the sentence of an error: OpenAI, FastAPI, a validation error of FastAPI, Cloudflare, MiniMax.
_SENTENCES = ("message", "detail", "msg", "errors", "base_resp", "status_msg")


def _sentence(error: Any, depth: int = 3) -> str | None:
    """The sentence of an error, however a compatible server wraps it."""
    if isinstance(error, str):
        return error
    if isinstance(error, list) and error:
        error = error[0]
    if not isinstance(error, dict) or depth == 0:
        return None
    found = (_sentence(error[name], depth - 1) for name in _SENTENCES if name in error)
    return next((text for text in found if text), None)


CONTENT_REJECTED = "The provider's content policy does not allow this request or its answer."
_IN_BAND: Mapping[type[UpstreamError], str] = {
    UpstreamRateLimited: "The provider's rate limit was reached in the middle of its answer.",
    UpstreamQuotaExhausted: "This service's account with the provider ran out of credit.",
    UpstreamOverloaded: "The provider is overloaded and stopped its answer.",
    UpstreamKeyRefused: "The provider refused this service's own key. The operator of the service must check it.",
    UpstreamRejected: "The provider rejected the request after it had begun to answer.",
    UpstreamContentRejected: CONTENT_REJECTED,
    UpstreamTooLarge: "The request is too large for the provider.",
    UpstreamTimeout: "The provider timed out in the middle of its answer.",
    UpstreamFailed: "The provider failed in the middle of its answer.",
}


def in_band(format: str, reported: VendorError) -> UpstreamError:
    """The error inside a stream (its HTTP status was 200) as ours; the vendor's text is left out."""
    kind = vendor_errors.kind_of(reported.words, reported.text) or UpstreamFailed
    vendor = {"format": format, "status": 200, "type": reported.type, "code": reported.code, "request_id": None}
    if kind is UpstreamContextExceeded:
        return vendor_errors.context_exceeded(reported.text, vendor=vendor)
    return kind(_IN_BAND[kind], vendor=vendor)
