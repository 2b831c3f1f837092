"""``Step``: what the vendor does with one request.

A step says what the vendor answers, how slowly, what goes wrong, and how the bytes are sent. Every field has a
harmless default. There are three ways to script steps, and short names for common ones:

    upstream.script(Step(text="Hello"), Step(status=529), Step(fault="reset", after=3))
    POST /_script  [{"text": "Hello"}, {"status": 529}, {"fault": "reset", "after": 3}]
    model "gpt-4o-mini+words=50+between=0.02+fault=end+after=10"       (for concurrent tests)
    model "gpt-hang", "claude-slow", ...                               (``PRESETS``)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any

FAULTS = frozenset(
    {
        "hang",  # send nothing more until the client disconnects
        "stall",  # send nothing for `pause` seconds, then continue
        "reset",  # end the connection with RST
        "close",  # send FIN inside the body: the last chunk, or a part of Content-Length's bytes, is missing
        "end",  # end the body properly, but without a terminal event (a plain answer: cut JSON, correct length)
        "error",  # send an error event, then end properly (a plain answer: a 500)
        "malformed",  # send an event that is not valid JSON, then continue
        "huge",  # put a word of `size` characters into the answer
        "unknown",  # send an event of an unknown type, then continue
        "inject",  # send `data` unchanged, then continue
        "disorder",  # send event number `after` two positions later
        "duplicate",  # send event number `after` twice
    }
)


@dataclass(frozen=True)
class Step:
    """What the vendor does with one request. The comments below explain each group of fields."""

    # The requests that the step serves. With `times` 0 it is never used up.
    model: str | None = None
    path: str | None = None
    times: int = 1

    # The answer. Its deltas are `pieces`, or else the words of `text`, or else `words` numbered words, or else a
    # default text. `echo` answers with the last user text. `tools` are {"name", "input"} or
    # {"name", "arguments": "raw JSON text"}; `call_tools` n calls the first n tools that the request offers.
    # `stop_reason` may be a stop reason of either vendor, which is translated; any other word is sent unchanged.
    text: str | None = None
    pieces: Sequence[str] | None = None
    words: int | None = None
    echo: bool = False
    thinking: str | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    call_tools: int = 0
    refusal: str | None = None
    stop_reason: str | None = None
    id: str | None = None
    served_model: str | None = None
    replay: str | None = None  # a file under tests/fixtures/upstream, which is sent as recorded

    # Tokens as they are billed: `input_tokens` is the whole prompt, whatever the vendor's format says. The values of
    # `usage` overwrite those of the usage object that is sent; the value "absent" removes a key, and `usage` None
    # removes the object. `usage_in_finish` puts OpenAI's usage into the last content chunk.
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int | None = None
    usage: Mapping[str, Any] | None = field(default_factory=dict)
    usage_in_finish: bool = False
    finish: bool = True  # whether to send the finish_reason or message_delta
    done: bool = True  # whether to send [DONE] or message_stop

    # An HTTP error (or a redirect) instead of the answer. `message` may contain {prompt}, {completion} and {key},
    # because a hostile vendor may echo what it was sent. Error events use `message` too.
    status: int | None = None
    message: str | None = None
    error_type: str | None = None
    error_code: str | None = None
    error_param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None  # replaces the JSON body, whatever the status is

    # Delays in seconds.
    before_headers: float = 0.0
    before_first: float = 0.0
    between: float = 0.0  # between two events; a plain answer's body is sent in 8 pieces
    slow_headers: float = 0.0  # the time to send the header block, which is sent in 100 packets

    # What goes wrong. `after` says where: -1 before the headers, 0 right after them, n after n events (a plain answer:
    # after n bytes of its body).
    fault: str | None = None
    after: int = 0
    pause: float = 1.0
    size: int = 1 << 20
    data: str = ""

    # How the bytes are sent.
    split: int = 0  # bytes per packet; 0 sends all bytes at once
    newline: str = "\n"
    gzip: bool = False  # compress, whether the client accepts it or not
    chunked: bool = False  # send a plain answer without Content-Length
    content_type: str | None = None
    duplicate_length: bool = False  # send two different Content-Length headers
    interim: Sequence[int] = ()  # interim statuses before the answer: 100, 103
    then: str = ""  # "close" closes the idle connection right away, "close_on_next" when the next request comes

    lenient: bool = False  # skip the vendor's checks of the request body

    def __post_init__(self) -> None:
        if self.fault is not None and self.fault not in FAULTS:
            raise ValueError(f"unknown fault {self.fault!r}; the faults are {sorted(FAULTS)}")
        if self.then not in ("", "close", "close_on_next"):
            raise ValueError(f"unknown value {self.then!r} of `then`; use 'close' or 'close_on_next'")

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Step:
        """Raises ValueError if the document has an unknown field."""
        unknown = set(document) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"a step has no field {sorted(unknown)[0]!r}")
        return cls(**document)

    def serves(self, model: str | None, path: str) -> bool:
        if self.path is not None and not path.endswith(self.path):
            return False
        return self.model is None or (model is not None and fnmatchcase(model, self.model))


def redirect(location: str, status: int = 307) -> Step:
    """A redirect. Vendors send none, so a client that follows one leaks a prompt and a key."""
    return Step(status=status, headers={"location": location}, body="")


#: Steps by the last part of the model's name: ``gpt-slow``, ``claude-haiku-4-5-reset``. Modifiers change single
#: fields: ``gpt-slow+words=5``.
PRESETS: dict[str, Step] = {
    "slow": Step(words=20, between=0.1),
    "long": Step(words=200, between=0.01),
    "late": Step(before_first=1.0),
    "hang": Step(fault="hang", after=-1),
    "mute": Step(fault="hang", after=0),
    "stuck": Step(words=20, fault="hang", after=5),
    "reset": Step(fault="reset", after=-1),
    "broken": Step(words=20, fault="reset", after=5),
    "cut": Step(words=20, fault="end", after=5),
    "closed": Step(words=20, fault="close", after=5),
    "failing": Step(words=20, fault="error", after=5),
    "malformed": Step(words=20, fault="malformed", after=5),
    "overloaded": Step(status=529),
    "limited": Step(status=429, headers={"retry-after": "1"}),
    "down": Step(status=500),
    "missing": Step(status=404),
    "tool": Step(call_tools=1),
    "thinking": Step(thinking="Let me think about that."),
    "echo": Step(echo=True),
    "bytewise": Step(split=1),
}


def for_model(name: str | None) -> Step | None:
    """The step that a model's name asks for, or None. Raises ValueError for an unknown modifier."""
    if not name:
        return None
    base, *modifiers = name.split("+")
    step = PRESETS.get(base.rpartition("-")[2])
    if not modifiers:
        return step
    values: dict[str, Any] = {}
    for modifier in modifiers:
        key, _, value = modifier.partition("=")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    unknown = set(values) - {item.name for item in fields(Step)}
    if unknown:
        raise ValueError(f"a step has no field {sorted(unknown)[0]!r}")
    return replace(step or Step(), **values)
