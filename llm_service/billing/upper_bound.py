"""How much a call can cost at most, before it is made. Pure: a body and the targets that may answer it.

Text: a token of a byte-level vocabulary is at least one byte, so the bytes of every string in the body
bound its tokens, in any format and for any model; so do those of its compatibility form (NFKC), which is
longer for a few characters and which some tokenizers read. Templates add tokens that are in no string:
``PER_OBJECT`` for each object (a message, a part, a tool), ``PER_CALL`` once, ``PER_TOOLS`` if there are tools,
``PER_TEXT`` for each text of a list (embeddings, legacy completions). A token given by its number is one.

Media: what vendors count for it has little to do with its bytes.

| what | at most | why |
|---|---|---|
| image, Anthropic | 8,464 tokens | patches of 28 x 28 px, the long edge scaled down to 2,576 px |
| image, others | 50,000 tokens | OpenAI's dearest by count: 2,833 + 8 tiles of 5,667 (gpt-4o-mini) |
| document, file, video | the model's context, else 1,000,000 | pages are in compressed data, or elsewhere |
| audio, other base64 | a token for each character | at 8 kbit/s an audio token is worth 100 characters |

Only a content block is a medium. Within a tool's arguments or schema the same object is text.

No input exceeds the model's context where the catalogue knows it: the vendor refuses more, and bills nothing.

What makes a vendor read, work or charge beyond the body (its own tools, what it has stored) is named by
``unbounded``; a caller with a budget cannot use it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llm_service.core.target import Target

PER_CALL: Final = 64
PER_OBJECT: Final = 16
PER_TOOLS: Final = 2_000
PER_TEXT: Final = 2
IMAGE: Final = {"anthropic": 8_464}
IMAGE_ELSEWHERE: Final = 50_000
CONTEXT: Final = 1_000_000

_IMAGES: Final = frozenset({"image", "image_url", "input_image"})
_DOCUMENTS: Final = frozenset(
    {"document", "file", "input_file", "video", "video_url", "input_video", "container_upload"}
)
# Where content blocks are, and where below that everything is text.
_CONTENT: Final = frozenset({"messages", "system", "input"})
_PLAIN: Final = frozenset({"input", "arguments", "parameters"})
# Names of the field that says how many tokens may be generated, by what the formats call it.
LIMITS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")
# The most choices a client may ask for; a body that was not checked is not believed.
_MOST_CHOICES: Final = 128
_MOST_TOKENS: Final = 2**31
# Fields that may hold tokens by number, alone or in lists.
_NUMBERED: Final = ("prompt", "input")

_HARMLESS: Final[Mapping[str, tuple[Any, ...]]] = {
    "background": (None, False),
    "container": (None,),
    "conversation": (None,),
    "fallbacks": (None, []),
    "inference_geo": (None,),
    "mcp_servers": (None, []),
    "previous_response_id": (None,),
    "web_search_options": (None,),
}
# Items of a Responses input that are all there is to them. Others stand for what the vendor keeps (item_reference),
# or bring what it runs (additional_tools).
_ITEMS: Final = frozenset(
    {
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "local_shell_call",
        "local_shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
    }
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Upper bounds of one call over every target that may answer it.

    ``max_tokens`` is the limit on each answer that applies; where ``given`` is False the client set none and it has
    to be written into the body that travels. None: neither client nor catalogue has one, nothing bounds the call.
    ``cost_nanousd`` is None when a target's price is unknown, for the tier asked for too (then ``unpriced`` names
    it), or when nothing bounds it.
    ``unbounded`` names a field of the body whose cost is not known beforehand.
    """

    input_tokens: int
    output_tokens: int
    max_tokens: int | None
    given: bool
    cost_nanousd: int | None
    unpriced: str | None = None
    unbounded: str | None = None

    @property
    def tokens(self) -> int:
        """What the call takes of tokens per minute."""
        return self.input_tokens + self.output_tokens


def estimate(
    body: Mapping[str, Any], targets: Sequence[Target], at: float | None = None, *, generates: bool = True
) -> Estimate:
    """The bounds of a checked ``body``, in whichever dialect, over ``targets`` (at least one).

    ``at``: Unix seconds of the prices, those its cost will be counted with; None is now. ``generates``: False for
    embeddings, which have no output and no limit of it.
    """
    limit, given = max_tokens(body, targets) if generates else (0, True)
    output = choices(body) * (limit or 0) + predicted(body)
    told = _Told(body)
    inputs = [told.tokens(target, capped=generates) for target in targets]
    asked, unpriced, costs = tier(body), None, [0]
    for target, tokens in zip(targets, inputs, strict=True):
        most = target.price.ceiling(tokens, output, tier=asked, at=at) if target.price is not None else None
        if most is None:
            unpriced = unpriced or target.name
        else:
            costs.append(most)
    cost = None if unpriced is not None or limit is None else max(costs)
    return Estimate(max(inputs), output, limit, given, cost, unpriced, unbounded(body))


def input_tokens(body: Mapping[str, Any], target: Target) -> int:
    """At least as many tokens as ``target`` can count for ``body``."""
    return _Told(body).tokens(target)


def max_tokens(body: Mapping[str, Any], targets: Iterable[Target]) -> tuple[int | None, bool]:
    """The limit of output tokens that applies, and whether the client gave it.

    Of several names the largest counts: which one a vendor obeys is its own affair. Without one it is the
    smallest ``max_output`` of the targets, as one body may travel to any of them; None if one has none.
    """
    told: list[int] = [body[name] for name in LIMITS if type(body.get(name)) is int]
    if told:
        return min(max(0, *told), _MOST_TOKENS), True
    known = [target.max_output for target in targets]
    values = [value for value in known if value is not None]
    return (min(values) if values and len(values) == len(known) else None), False


def choices(body: Mapping[str, Any]) -> int:
    """How many answers are generated, each with its own output: ``n`` (or the ``best_of`` that they are chosen from)
    for each prompt, of which legacy completions take a list."""
    asked = max([1, *(number for number in (body.get("n"), body.get("best_of")) if type(number) is int)])
    prompts = _list(body.get("prompt"))
    single = all(type(item) is int for item in prompts)
    return min(asked, _MOST_CHOICES) * (1 if single else len(prompts))


def predicted(body: Mapping[str, Any]) -> int:
    """Output tokens billed for a prediction that was wrong (OpenAI's rejected_prediction_tokens)."""
    prediction = body.get("prediction")
    return choices(body) * _Told(prediction).text if isinstance(prediction, Mapping) else 0


def tier(body: Mapping[str, Any]) -> str | None:
    """The vendor's processing tier that was asked for, as prices name it; None: any, the vendor or its settings say."""
    if body.get("speed") not in (None, "standard"):
        return str(body["speed"])
    asked = body.get("service_tier")
    if asked in (None, "auto"):
        return None
    return "" if asked in ("default", "standard", "standard_only") else str(asked)


def unbounded(body: Mapping[str, Any]) -> str | None:
    """The first field whose cost cannot be known beforehand; None if there is none."""
    for name, harmless in _HARMLESS.items():
        if body.get(name) not in harmless:
            return name
    for index, tool in enumerate(_list(body.get("tools"))):
        # The client's own tools have a schema and run at the client; a vendor's have a type of their own.
        if isinstance(tool, Mapping) and tool.get("type", "custom") not in ("custom", "function", None):
            return f"tools[{index}].type"
    if isinstance(body.get("prompt"), Mapping):  # a template that the vendor keeps
        return "prompt"
    for index, item in enumerate(_list(body.get("input"))):
        if isinstance(item, Mapping) and item.get("type", "message") not in _ITEMS:
            return f"input[{index}].type"
    return None


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


class _Told:
    """What a body says about its input, read once for all targets."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.text = PER_CALL + (PER_TOOLS if body.get("tools") or body.get("functions") else 0)
        self.images = 0
        self.documents = False
        for value in self._scalars(body):
            self.text += _size(value)

    def tokens(self, target: Target, *, capped: bool = True) -> int:
        """``capped``: all of it is one input. A batch of embeddings may be many times the context."""
        most = target.context or CONTEXT
        told = self.text + self.images * IMAGE.get(target.provider.kind, IMAGE_ELSEWHERE)
        if self.documents:
            told += most
        return min(told, most) if target.context and capped else told

    def _scalars(self, body: Mapping[str, Any]) -> Iterator[Any]:
        """Without recursion: a body may be nested deep."""
        yield from body
        waiting: list[tuple[Any, bool]] = []
        for name, value in body.items():
            waiting.append((self._texts(value) if name in _NUMBERED else value, name in _CONTENT))
        while waiting:
            value, content = waiting.pop()
            if isinstance(value, Mapping):
                self.text += PER_OBJECT
                yield from value
                skipped = self._medium(value) if content else ()
                for name, inner in value.items():
                    if name not in skipped:
                        waiting.append((inner, content and name not in _PLAIN))
            elif isinstance(value, (list, tuple)):
                waiting += [(inner, content) for inner in value]
            else:
                yield value

    def _texts(self, value: Any) -> Any:
        """Count what a list of texts adds to them, and tokens given by number; what is left to be read."""
        if not isinstance(value, list):
            return value
        left = []
        for item in [value] if value and type(value[0]) is int else value:
            self.text += PER_TEXT
            if isinstance(item, list) and all(type(number) is int for number in item):
                self.text += len(item)
            else:
                left.append(item)
        return left

    def _medium(self, block: Mapping[str, Any]) -> tuple[str, ...]:
        """Count ``block`` if it is a medium; the names of its fields that are data and not text."""
        kind = block.get("type")
        if not isinstance(kind, str):
            return ()
        if kind in _IMAGES:
            self.images += 1
            return ("source", "image_url")
        if kind in _DOCUMENTS:
            source = block.get("source")
            if not (isinstance(source, Mapping) and source.get("type") in ("text", "content")):
                self.documents = True
        return ()


def _size(value: Any) -> int:
    if not isinstance(value, str):
        return len(str(value)) if type(value) is not int else value.bit_length() // 3 + 2
    if value.isascii():
        return len(value)
    size = len(value.encode("utf-8", "surrogatepass"))
    if not unicodedata.is_normalized("NFKC", value):
        size = max(size, len(unicodedata.normalize("NFKC", value).encode("utf-8", "surrogatepass")))
    return size
