"""What a request can make a vendor read, write and charge at most, as its body says it.

Each format has one ``Bounds`` that names its fields (``bounds.py`` of its folder). ``billing/upper_bound.py`` turns
what is read here into tokens and prices, and explains the numbers.

A request may carry fields of another vendor's format, because the target decides what happens to them. So the
fields that multiply or add cost are read by every name that any format has for them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

# Tokens that templates add to the text of a request.
PER_CALL: Final = 64
PER_OBJECT: Final = 16
PER_TOOLS: Final = 2_000
PER_TEXT: Final = 2

# The highest number of choices a client may ask for. The body of a format that does not check it may say more.
_MAX_CHOICES: Final = 128
_MAX_TOKENS: Final = 2**31
# OpenAI's Responses API takes no smaller limit of the output, so a smaller one of the client's becomes this one.
LEAST_OUTPUT: Final = 16
# The tiers that vendors take in ``service_tier``, besides the standard one.
_TIERS: Final = ("fast", "flex", "priority", "scale")
# Every name that a format has for the limit of the output.
_LIMITS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_IMAGES: Final = frozenset({"image", "image_url", "input_image"})
_DOCUMENTS: Final = frozenset(
    {"document", "file", "input_file", "video", "video_url", "input_video", "audio_url", "container_upload"}
)
# Below these members of a content block everything is text.
_TEXT_BELOW: Final = frozenset({"input", "arguments", "parameters"})
# Fields that make a vendor read, run or charge for what is not in the request, and their values that do not.
_HARMLESS: Final[Mapping[str, tuple[Any, ...]]] = {
    "background": (None, False),
    "compaction": (None,),
    "container": (None,),
    "conversation": (None,),
    "fallbacks": (None, []),
    "inference_geo": (None,),
    "mcp_servers": (None, []),
    "models": (None, []),  # this one and the next two are OpenRouter's, search_parameters is xAI's
    "plugins": (None, []),
    "previous_response_id": (None,),
    "provider": (None, {}),
    "search_parameters": (None,),
    "thread": (None,),
    "web_search_options": (None,),
}


@dataclass(frozen=True, slots=True)
class InputBound:
    """What the input of a request holds: ``text`` is an upper bound of the tokens of its text and its templates."""

    text: int
    images: int = 0
    documents: bool = False


class Bounds:
    """The bounds of one format. A subclass names the format's fields."""

    # The format's names of the limit of the output.
    LIMITS: ClassVar[tuple[str, ...]] = ("max_tokens",)
    # Fields that hold content blocks, in which an image or a document is a medium and not text.
    CONTENT: ClassVar[frozenset[str]] = frozenset()
    # Fields that may hold a list of texts, or tokens by their number, alone or in lists.
    TEXTS: ClassVar[frozenset[str]] = frozenset()

    def input_bound(self, body: Mapping[str, Any]) -> InputBound:
        return _InputReader(body, self.CONTENT, self.TEXTS).bound()

    def output_limit(self, body: Mapping[str, Any]) -> int | None:
        """The limit of output tokens that the client set.

        A body may name it several times: the largest counts, because the vendor decides which one it obeys.
        """
        if all(type(body.get(name)) is not int for name in self.LIMITS):
            return None
        limits: list[int] = [body[name] for name in _LIMITS if type(body.get(name)) is int]
        return min(max(0, *limits), _MAX_TOKENS)

    def with_output_limit(self, body: Mapping[str, Any], limit: int) -> dict[str, Any]:
        """``body`` with a limit on its output, in the words of this format. Each target gets its own name for it."""
        return {**body, self.LIMITS[0]: limit}

    def with_default_limit(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """``body`` with the limit that the vendor applies to a request without one."""
        return body

    def choices(self, body: Mapping[str, Any]) -> int:
        """How many answers are generated, each with its own output: ``n``, or the ``best_of`` they are chosen from."""
        counts: list[int] = [body[name] for name in ("n", "best_of") if type(body.get(name)) is int]
        return min(max([1, *counts]), _MAX_CHOICES)

    def predicted(self, body: Mapping[str, Any]) -> int:
        """Output tokens that are billed for a wrong prediction (OpenAI's rejected_prediction_tokens)."""
        prediction = body.get("prediction")
        if not isinstance(prediction, Mapping):
            return 0
        return self.choices(body) * _InputReader(prediction, self.CONTENT, self.TEXTS).bound().text

    def service_tiers(self, body: Mapping[str, Any]) -> tuple[str | None, ...]:
        """The service tiers that the vendor may bill, as prices name them. None is any tier: it is left to the vendor.

        There are two fields for it, and a target may drop one of them. A word that is not a tier of any API may be
        dropped too, and then the vendor decides.
        """
        asked = body.get("service_tier")
        tiers: tuple[str | None, ...] = (None,) if asked in (None, "auto") else (None, str(asked))
        if asked in ("default", "standard", "standard_only"):
            tiers = ("",)
        elif asked in _TIERS:
            tiers = (asked,)
        speed = body.get("speed")
        return tiers if speed in (None, "standard") else (*tiers, str(speed))

    def unbounded(self, body: Mapping[str, Any], *, crosses: bool = False) -> str | None:
        """The first field whose cost cannot be known before the call; None if there is none.

        ``crosses``: no target speaks this format. What only the format's own vendor runs is left out then.
        """
        for name, harmless in _HARMLESS.items():
            if body.get(name) not in harmless:
                return name
        if not crosses:
            for index, tool in enumerate(as_list(body.get("tools"))):
                if self.is_vendors(tool):
                    return f"tools[{index}].type"
        if isinstance(body.get("prompt"), Mapping):  # a template that the vendor keeps
            return "prompt"
        return None if _only_clears(body.get("context_management")) else "context_management"

    def is_vendors(self, tool: Any) -> bool:
        """Whether the vendor runs ``tool``. The client runs its own tools, which have no type of their own."""
        return isinstance(tool, Mapping) and tool.get("type", "custom") not in ("custom", "function", None)


def _only_clears(management: Any) -> bool:
    """Whether ``context_management`` only leaves out parts of the input. A compaction is billed as one more answer."""
    if management is None or management in ([], {}):
        return True
    if not isinstance(management, Mapping) or not isinstance(edits := management.get("edits"), list):
        return False
    kinds = (edit.get("type") if isinstance(edit, Mapping) else None for edit in edits)
    return all(isinstance(kind, str) and kind.startswith("clear_") for kind in kinds)


def as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


class _InputReader:
    """Reads the input of a body once."""

    def __init__(self, body: Mapping[str, Any], content: frozenset[str], texts: frozenset[str]) -> None:
        self._text = PER_CALL + (PER_TOOLS if body.get("tools") or body.get("functions") else 0)
        self._images = 0
        self._documents = False
        for value in self._scalars(body, content, texts):
            self._text += _size(value)

    def bound(self) -> InputBound:
        return InputBound(self._text, self._images, self._documents)

    def _scalars(self, body: Mapping[str, Any], content: frozenset[str], texts: frozenset[str]) -> Iterator[Any]:
        """Every name and every value that is text. Without recursion, because a body may be nested deep."""
        yield from body
        waiting: list[tuple[Any, bool]] = []
        for name, value in body.items():
            waiting.append((self._count_texts(value) if name in texts else value, name in content))
        while waiting:
            value, is_content = waiting.pop()
            if isinstance(value, Mapping):
                self._text += PER_OBJECT
                yield from value
                skipped = self._count_medium(value) if is_content else ()
                for name, inner in value.items():
                    if name not in skipped:
                        waiting.append((inner, is_content and name not in _TEXT_BELOW))
            elif isinstance(value, (list, tuple)):
                waiting += [(inner, is_content) for inner in value]
            else:
                yield value

    def _count_texts(self, value: Any) -> Any:
        """Count what each text of a list adds, and the tokens given by number; returns what is left to be read."""
        if not isinstance(value, list):
            return value
        left = []
        for item in [value] if value and type(value[0]) is int else value:
            self._text += PER_TEXT
            if isinstance(item, list) and all(type(number) is int for number in item):
                self._text += len(item)
            else:
                left.append(item)
        return left

    def _count_medium(self, block: Mapping[str, Any]) -> tuple[str, ...]:
        """Count ``block`` if it is a medium; returns the names of its members that are data and not text."""
        kind = block.get("type")
        if not isinstance(kind, str):
            return ()
        if kind in _IMAGES:
            self._images += 1
            return ("source", "image_url")
        if kind in _DOCUMENTS:
            source = block.get("source")
            if not (isinstance(source, Mapping) and source.get("type") in ("text", "content")):
                self._documents = True
        return ()


def _size(value: Any) -> int:
    """At least as many as ``value`` has tokens."""
    if not isinstance(value, str):
        return len(str(value)) if type(value) is not int else value.bit_length() // 3 + 2
    if value.isascii():
        return len(value)
    size = len(value.encode("utf-8", "surrogatepass"))
    if not unicodedata.is_normalized("NFKC", value):
        size = max(size, len(unicodedata.normalize("NFKC", value).encode("utf-8", "surrogatepass")))
    return size
