"""OpenAI Chat Completions of other servers: what a provider's row says that they want otherwise than OpenAI.

Some servers want the thoughts of a turn back beside its tool calls, and reject the request without them:

* as the text of a field of the message (``reasoning_content``, ``reasoning``), which may be empty;
* as ``extra_content`` of the tool calls, which holds Gemini's ``thought_signature``. Clients of other formats keep it
  as reasoning that only its own vendor can read (``RedactedThinking``): a JSON object with the ids of the calls.

So a history that another model began, and one of a client that keeps no thoughts, can go on with such a server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from llm_service.core.content import Part, RedactedThinking, Thinking
from llm_service.core.target import Provider
from llm_service.formats.openai_chat.schema import NAME, UNSIGNED_THOUGHTS

EXTRA: Final = "extra_content"
# Google's documented stand-in for the signature of a call that Gemini did not make or whose signature is lost
# (ai.google.dev/gemini-api/docs/thought-signatures).
_NO_SIGNATURE: Final[Mapping[str, Any]] = {"google": {"thought_signature": "skip_thought_signature_validator"}}


def fit(body: dict[str, Any], provider: Provider) -> None:
    """Change the caller's own body, which is a copy, as the provider's row says."""
    role, field = provider.system_role, provider.thoughts
    if not provider.stream_usage:
        body.pop("stream_options", None)
    if (role is None and field == "none") or "messages" not in body:
        return
    body["messages"] = [_fitting(message, role, field) for message in body["messages"]]


def _fitting(message: Mapping[str, Any], role: str | None, field: str) -> Mapping[str, Any]:
    if role is not None and message.get("role") in ("system", "developer"):
        return {**message, "role": role}
    if field != "none" and message.get("role") == "assistant" and message.get("tool_calls"):
        fitting = dict(message)
        _complete(fitting, field)
        return fitting
    return message


def _complete(message: dict[str, Any], field: str) -> None:
    """Add what a server wants beside the tool calls of a turn where nothing is there."""
    if field != EXTRA:
        if not isinstance(message.get(field), str):
            message[field] = _thoughts_in(message)
    elif not any(isinstance(call, Mapping) and call.get(EXTRA) for call in message["tool_calls"]):
        first, *others = message["tool_calls"]  # Gemini signs the first of parallel calls
        if isinstance(first, Mapping):
            message["tool_calls"] = [{**first, EXTRA: _NO_SIGNATURE}, *others]


def _thoughts_in(message: Mapping[str, Any]) -> str:
    """The thoughts that another server wrote into a field of its own, or into blocks; "" if there are none."""
    for name in UNSIGNED_THOUGHTS:
        given = message.get(name)
        if isinstance(given, list):
            blocks = [block for block in given if isinstance(block, Mapping)]
            texts = [block.get("text") or block.get("thinking") or block.get("summary") for block in blocks]
            given = "".join(text for text in texts if isinstance(text, str))
        if isinstance(given, str) and given:
            return given
    return ""


def write_thoughts(message: dict[str, Any], thoughts: Iterable[Part], field: str) -> bool:
    """Give the turn ``message`` its thoughts back. Returns whether all of them could be given back."""
    if field == "none" or not message.get("tool_calls"):
        return False
    texts, extras, whole = [], {}, True
    for part in thoughts:
        if field == EXTRA and type(part) is RedactedThinking and part.vendor == NAME:
            extras.update(_read_carried(part.data))
        elif field != EXTRA and type(part) is Thinking and not part.signature:
            texts.append(part.text)
        else:  # another vendor's
            whole = False
    if field == EXTRA:
        message["tool_calls"] = [
            {**call, EXTRA: extras[call["id"]]} if call["id"] in extras else call for call in message["tool_calls"]
        ]
    elif texts:
        message[field] = "\n\n".join(texts)
    _complete(message, field)
    return whole


def carried(calls: Iterable[tuple[str, Any]]) -> list[RedactedThinking]:
    """The ``extra_content`` of tool calls, given with their ids, as clients of other formats keep it."""
    extras = {
        id: call[EXTRA] for id, call in calls if isinstance(call, Mapping) and isinstance(call.get(EXTRA), Mapping)
    }
    return [RedactedThinking(orjson.dumps(extras).decode(), NAME)] if extras else []


def _read_carried(data: str) -> dict[str, Any]:
    """What ``carried`` wrote. A client may have changed it, and then there is nothing."""
    try:
        given = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(given, dict):
        return {}
    return {id: extra for id, extra in given.items() if isinstance(extra, dict)}
