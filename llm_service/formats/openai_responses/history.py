"""OpenAI Responses, what travels verbatim: the items of earlier turns that OpenAI can read.

A client sends the items of an answer back in the next request. OpenAI cannot read two kinds of them:

- reasoning that another vendor made (``carried``): it rejects what it has not encrypted itself;
- what it would have to look up but never kept: a reference (``item_reference``) and reasoning without its encrypted
  content. OpenAI answers 404 for them. By default its API keeps items, so its clients send references; this service
  has told it to keep nothing.

These items are left out and named. The result of a tool call is rejected if the call itself was only referred to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from llm_service.core.call import Call
from llm_service.core.target import Provider
from llm_service.formats import storage, validation
from llm_service.formats.openai_responses.encode_answer import read_carried

_REFERENCE: Final = "item_reference"
_WHY: Final = (
    "it is the result of a tool call that was sent as an item_reference, and the items of earlier turns are not kept: "
    "send the call itself (in the AI SDK: providerOptions.openai.store = false)"
)
_NOTHING: Final = (
    "it holds only references to items of earlier turns, and these are not kept: send the items themselves"
)


def readable(call: Call, provider: Provider) -> list[Any]:
    """The items of the list ``input`` that the vendor can read.

    Raises UnsupportedParameter if the rest of the request makes no sense without an item that is left out.
    """
    given: list[Any] = call.body["input"]
    unreadable = set(_unreadable(call, provider))
    if not unreadable:
        return given
    kept = [item for index, item in enumerate(given) if index not in unreadable]
    if not kept:
        validation.unsupported("input", _NOTHING)
    if any(_kind(given[index]) == _REFERENCE for index in unreadable):
        check_results(given)
    return kept


def left_out(call: Call, provider: Provider) -> tuple[str, ...]:
    """The names of the kinds of items that ``readable`` leaves out."""
    given = call.body.get("input")
    if not isinstance(given, list):
        return ()
    return tuple(dict.fromkeys(f"input[].{_kind(given[index])}" for index in _unreadable(call, provider)))


def _unreadable(call: Call, provider: Provider) -> Iterator[int]:
    """The indexes of the items that the vendor cannot read."""
    given = call.body["input"]
    suspects = [index for index, item in enumerate(given) if _kind(item) in (_REFERENCE, "reasoning")]
    if not suspects:
        return
    may_refer = storage.may_refer(call, provider)
    for index in suspects:
        encrypted = given[index].get("encrypted_content")
        if isinstance(encrypted, str) and encrypted:
            if read_carried(encrypted) is not None:
                yield index
        elif not may_refer and _is_looked_up(given[index]):
            yield index


def _kind(item: Mapping[str, Any]) -> str:
    """The type of an item. A reference may leave it out; so may a message, which has a role."""
    kind = item.get("type")
    if kind is None:
        return "message" if "role" in item else _REFERENCE
    return kind if isinstance(kind, str) else ""


def _is_looked_up(item: Mapping[str, Any]) -> bool:
    """Whether the vendor must find the item by its id. The text of open-weight models stands in the item itself."""
    return not item.get("content")


def check_results(given: Sequence[Any]) -> None:
    """Raises UnsupportedParameter for the result of a tool call that the input only refers to."""
    called = {item.get("call_id") for item in given if not _kind(item).endswith("_output")}
    for index, item in enumerate(given):
        if _kind(item).endswith("_output") and item.get("call_id") is not None and item["call_id"] not in called:
            validation.unsupported(f"input[{index}]", _WHY)
