"""What the vendor does next: ``Step``.

One step serves one request. A step says what is answered, how slowly, what goes
wrong and how the bytes are laid on the wire; every field has a harmless default.

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
        "hang",  # say nothing more until the client leaves
        "stall",  # say nothing for `pause` seconds, then go on
        "reset",  # RST
        "close",  # FIN in the middle of the body: no last chunk, or fewer bytes than Content-Length
        "end",  # a proper end of the body, but no terminal event (a plain answer: cut JSON, right length)
        "error",  # an error event, then a proper end (a plain answer: a 500)
        "malformed",  # an event that is no JSON, then go on
        "huge",  # the answer has a word of `size` characters
        "unknown",  # an event of a kind nobody knows, then go on
        "inject",  # `data` as it is, then go on
        "disorder",  # event number `after` comes two places later
        "duplicate",  # event number `after` comes twice
    }
)


@dataclass(frozen=True)
class Step:
    """See the groups below. ``after`` places the fault: -1 before the headers, 0 right after them, n after
    n events (a plain answer: after n bytes of its body)."""

    # which request it serves; `times` 0 serves for ever
    model: str | None = None
    path: str | None = None
    times: int = 1

    # the answer: `pieces` are the deltas, else `text` by words, else `words` numbered words, else a default text.
    # `echo` answers the last user text. `tools` are {"name", "input"} or {"name", "arguments": "raw JSON text"};
    # `call_tools` n calls the first n tools the request offers. A stop reason of either vendor is understood;
    # any other word is sent as it is.
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
    replay: str | None = None  # a file under tests/fixtures/upstream, sent as recorded

    # tokens as billed (the whole prompt, whatever the wire says); `usage` is laid over the vendor's own usage object
    # as it is (a value "absent" takes a key away), None leaves the object out; `usage_in_finish` puts OpenAI's into
    # the last content chunk
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int | None = None
    usage: Mapping[str, Any] | None = field(default_factory=dict)
    usage_in_finish: bool = False
    finish: bool = True  # send the finish_reason / message_delta
    done: bool = True  # send [DONE] / message_stop

    # an HTTP error (or a redirect) instead. `message` may hold {prompt}, {completion} and {key}: a hostile vendor
    # echoes what it was sent. It is used for error events too.
    status: int | None = None
    message: str | None = None
    error_type: str | None = None
    error_code: str | None = None
    error_param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None  # instead of JSON, whatever the status

    # time, in seconds
    before_headers: float = 0.0
    before_first: float = 0.0
    between: float = 0.0  # two events; a plain answer's body comes in 8 pieces
    slow_headers: float = 0.0  # how long the header block takes, in 100 packets

    # what goes wrong
    fault: str | None = None
    after: int = 0
    pause: float = 1.0
    size: int = 1 << 20
    data: str = ""

    # the wire
    split: int = 0  # bytes per packet
    newline: str = "\n"
    gzip: bool = False  # compressed, asked or not
    chunked: bool = False  # a plain answer without Content-Length
    content_type: str | None = None
    duplicate_length: bool = False  # two Content-Length headers that disagree
    interim: Sequence[int] = ()  # 100, 103 before the answer
    then: str = ""  # "close" the idle connection right away; "close_on_next": when the next request comes

    lenient: bool = False  # skip the vendor's checks of the body

    def __post_init__(self) -> None:
        if self.fault is not None and self.fault not in FAULTS:
            raise ValueError(f"no such fault: {self.fault}")
        if self.then not in ("", "close", "close_on_next"):
            raise ValueError(f"no such then: {self.then}")

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Step:
        """Raises ValueError for a field that does not exist."""
        unknown = set(document) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"no such field of a step: {sorted(unknown)[0]}")
        return cls(**document)

    def serves(self, model: str | None, path: str) -> bool:
        if self.path is not None and not path.endswith(self.path):
            return False
        return self.model is None or (model is not None and fnmatchcase(model, self.model))


def redirect(location: str, status: int = 307) -> Step:
    """A redirect; vendors send none, so whoever follows one leaks a prompt and a key."""
    return Step(status=status, headers={"location": location}, body="")


#: Behaviours by the end of the model's name: ``gpt-slow``, ``claude-haiku-4-5-reset``. They may be refined:
#: ``gpt-slow+words=5``.
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
    """The behaviour a model's name asks for, or None. Raises ValueError for a modifier that does not exist."""
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
        raise ValueError(f"no such field of a step: {sorted(unknown)[0]}")
    return replace(step or Step(), **values)
