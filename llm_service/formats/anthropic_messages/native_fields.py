"""Anthropic Messages, the upstream's side: fields of Anthropic's own API that clients of other formats send.

A chat client may write ``"system": "Be brief."`` or ``"top_k": 5`` for a Claude model. Such a field means what it
means in Anthropic's API. It is checked by the same rules, and becomes a part of the conversation before the request
is written, so that the model's own limits (no sampling, no thinking) apply to it as to any other field.

If the request already says the same thing in another field, the two must agree. A contradiction is a 400
that names Anthropic's field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, NoReturn

from llm_service.core.content import JsonFormat, Reasoning, Text
from llm_service.core.conversation import Conversation, Extra
from llm_service.formats import media, validation
from llm_service.formats.anthropic_messages import decode_messages, decode_request
from llm_service.formats.anthropic_messages.schema import RequestSchema

NEEDS_BETA: Final = "it needs a beta header, which only travels with requests in Anthropic's own format (/v1/messages)"


def merge(conversation: Conversation) -> Conversation:
    """The conversation with Anthropic's own fields moved from ``extras`` into the fields they stand for.

    Raises UnsupportedParameter naming a field that is malformed or that contradicts another one, and a member
    that cannot be sent. Another format may reject or drop the field, so the next target of an alias is still tried.
    """
    with validation.for_this_target():
        return _merge(conversation)


def _merge(conversation: Conversation) -> Conversation:
    given = {name: extra.value for name, extra in conversation.extras.items() if name in READERS}
    if given:
        validation.check(_SCHEMA, given)
        rest = {name: extra for name, extra in conversation.extras.items() if name not in given}
        conversation = replace(conversation, extras=rest)
        for read in dict.fromkeys(READERS[name] for name in given):
            conversation = read(conversation, given)
    return _merge_user(conversation)


def _set(conversation: Conversation, name: str, value: Any, path: str) -> Conversation:
    """The conversation with ``value`` as its field ``name``, and ``path`` as the client's name of that field.

    Raises InvalidRequest naming ``path`` if the field has another value.
    """
    other = getattr(conversation, name)
    if other is None or other == ():
        return replace(conversation, field_names={**conversation.field_names, name: path}, **{name: value})
    if other != value:
        _contradiction(path, conversation, name)
    return conversation


def _contradiction(path: str, conversation: Conversation, name: str) -> NoReturn:
    other = conversation.field_names.get(name, name)
    validation.contradiction(path, other)


def _system(conversation: Conversation, given: Mapping[str, Any]) -> Conversation:
    """Equal texts are no contradiction, however they are cut into blocks. The blocks with hints to cache are kept."""
    dropped = dict.fromkeys(conversation.dropped)
    blocks = decode_messages.read_system(given["system"], dropped)
    conversation = replace(conversation, dropped=tuple(dropped))
    if not blocks or not conversation.system:
        return replace(conversation, system=blocks or conversation.system)
    if _text(blocks) != _text(conversation.system):
        rule = "contradicts the system prompt that the request already has, in a message or in another field"
        validation.invalid("system", f"{rule}: send one of the two, or the same text in both")
    hinted = any(block.cache is not None for block in blocks)
    return replace(conversation, system=blocks) if hinted else conversation


def _text(blocks: Iterable[Text]) -> str:
    return "".join(block.text for block in blocks)


def _top_k(conversation: Conversation, given: Mapping[str, Any]) -> Conversation:
    return _set(conversation, "top_k", given["top_k"], "top_k")


def _stop_sequences(conversation: Conversation, given: Mapping[str, Any]) -> Conversation:
    return _set(conversation, "stop", tuple(given["stop_sequences"]), "stop_sequences")


def _cache_control(conversation: Conversation, given: Mapping[str, Any]) -> Conversation:
    hint, dropped = given["cache_control"], dict.fromkeys(conversation.dropped)
    seconds = media.read_cache(hint, media.EPHEMERAL, media.ANTHROPIC_TTL, "cache_control", dropped)
    return _set(replace(conversation, dropped=tuple(dropped)), "cache", seconds, "cache_control")


def _output(conversation: Conversation, given: Mapping[str, Any]) -> Conversation:
    """``thinking`` and ``output_config``.

    An effort beside ``thinking`` is no contradiction: one says how much to think, the other in which way. Only if
    exactly one of them turns thinking off do they contradict each other.
    """
    thinking, dropped = given.get("thinking"), dict.fromkeys(conversation.dropped)
    format, effort = decode_request.read_output(given.get("output_config"), dropped)
    asked = conversation.reasoning or Reasoning()
    if effort is not None and asked.effort not in (None, effort):
        _contradiction("output_config.effort", conversation, "effort")
    wanted = decode_request.read_thinking(thinking, effort or asked.effort, dropped)
    conversation = replace(conversation, dropped=tuple(dropped))
    if wanted is not None:
        off = thinking is not None and thinking["type"] == "disabled"
        if thinking is not None and asked.effort is not None and off != (asked.effort == "none"):
            _contradiction("thinking", conversation, "reasoning")
        if wanted.summary is not None and asked.summary not in (None, wanted.summary):
            _contradiction("thinking.display", conversation, "reasoning")
        if wanted.summary is None:
            wanted = replace(wanted, summary=asked.summary)
        names = dict(conversation.field_names)
        if conversation.reasoning is None:
            names["reasoning"] = "output_config.effort" if thinking is None else "thinking"
        conversation = replace(conversation, reasoning=wanted, field_names=names)
    return _with_format(conversation, format)


def _with_format(conversation: Conversation, format: JsonFormat | None) -> Conversation:
    """Only the schemas are compared: in Anthropic's API a schema has no name and is always strict."""
    if format is not None and conversation.format is not None and format.schema != conversation.format.schema:
        _contradiction("output_config.format", conversation, "format")
    return conversation if format is None or conversation.format is not None else replace(conversation, format=format)


def _merge_user(conversation: Conversation) -> Conversation:
    """``{"user_id": ...}`` alone is Anthropic's ``metadata``: it names the end user, if the request does not yet.

    Anything else is OpenAI's ``metadata``, which is dropped by the table: its pairs are tags with meanings of the
    client's own, so a different ``user_id`` among them is no contradiction.
    """
    metadata = conversation.extras.get("metadata")
    match metadata:
        case Extra({"user_id": str(user), **others}, path) if user and not others:
            if conversation.user not in (None, user):
                return conversation
            rest = {name: extra for name, extra in conversation.extras.items() if name != "metadata"}
            names = {"user": f"{path}.user_id", **conversation.field_names}
            return replace(conversation, user=user, extras=rest, field_names=names)
    return conversation


# Each field with the function that makes it a part of the conversation, in the order in which they are merged.
READERS: Final[Mapping[str, Callable[[Conversation, Mapping[str, Any]], Conversation]]] = {
    "system": _system,
    "top_k": _top_k,
    "stop_sequences": _stop_sequences,
    "cache_control": _cache_control,
    "thinking": _output,
    "output_config": _output,
}
_SCHEMA = RequestSchema(only=[name for name in READERS if name != "cache_control"])
